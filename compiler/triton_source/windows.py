"""Short reductions, such as pooling: a block of points, and a loop over the window."""

from __future__ import annotations

from compiler.index import Axis, Index
from compiler.kernel import Kernel, Reduce, shift
from compiler.triton_source.emit import Emitter
from compiler.triton_source.function import Function, each_of, finish, flatten, label, wide
from compiler.triton_source.lines import Value
from compiler.triton_source.pointwise import block_length
from compiler.triton_source.text import ELEMENTS, ceil_div
from compiler.triton_source.tiles import Target

LONGEST = 64  # a longer window is folded as a tile (rows.py)
UNROLLED = 16


def render_windows(kernel: Kernel, target: Target) -> Function:
    points, by_point = flatten(kernel.space, "i")
    dim, reduces = points.name, kernel.reduces
    window, by_window = flatten(reduces[0].axes, "r")
    length = block_length(points.size, target)
    em = Emitter([dim], {dim: length}, wide(kernel))
    axes = {**by_point, **by_window}
    label(em, axes)
    em.tails[dim] = points
    name = em.names.fresh(dim)
    em.line(f"{name} = pid * {length} + {em.arange(length)}")
    em.bind(points, name, [dim])
    folds = [_start(em, r, frozenset([dim])) for r in reduces]
    step = em.names.fresh(window.name)
    loop = "tl.static_range" if window.size <= UNROLLED else "range"
    with em.loop(f"for {step} in {loop}({window.size}):"):
        em.bind_counter(window, step)
        for r, fold in zip(reduces, folds, strict=True):
            _fold(em, r, fold, step, axes)
    for r, fold in zip(reduces, folds, strict=True):
        em.accs[r.id] = _result(em, r, fold, window, axes)
    for s in kernel.stores:
        for one in each_of(s, axes):
            em.store(one, frozenset([dim]))
    return finish(kernel, em, ceil_div(points.size, length), min(8, max(1, length // 256)))


def _start(em: Emitter, r: Reduce, dims: frozenset[str]) -> tuple[Value, str]:
    """Writes the start of a fold; returns its variable, and for argmax that of the position."""
    best = em.names.fresh({"sum": "total", "max": "most", "argmax": "most"}[r.op])
    dtype = "f32" if r.op == "argmax" else r.dtype
    start = least(r) if r.op != "sum" else "0" if dtype == "i32" else "0.0"
    em.line(f"{best} = tl.full({em.shape(dims)}, {start}, {ELEMENTS[dtype]})")
    where = ""
    if r.op == "argmax":
        where = em.names.fresh("where")
        em.line(f"{where} = tl.zeros({em.shape(dims)}, tl.int32)")
    return Value(best, dims, dtype, em.level), where


def least(r: Reduce) -> str:
    """Returns what no element of the Reduce is less than."""
    return str(-(2**31)) if r.op == "max" and r.dtype == "i32" else 'float("-inf")'


def _fold(
    em: Emitter, r: Reduce, fold: tuple[Value, str], step: str, axes: dict[Axis, Index]
) -> None:
    (acc, where), value = fold, em.expr(shift(r.value, axes))
    if r.op == "sum":
        em.line(f"{acc.text} += {value.text}")
    elif r.op == "max":
        em.line(
            f"{acc.text} = tl.maximum({acc.text}, {value.text}, propagate_nan=tl.PropagateNan.ALL)"
        )
    else:  # strictly greater: of equal ones the first wins
        value = em.define(value, "value")
        better = em.names.fresh("better")
        em.line(f"{better} = {value.text} > {acc.text}")
        em.line(f"{where} = tl.where({better}, {step}, {where})")
        em.line(f"{acc.text} = tl.where({better}, {value.text}, {acc.text})")


def greater(a: str, b: str) -> str:
    return f"tl.maximum({a}, {b}, propagate_nan=tl.PropagateNan.ALL)"


def _result(
    em: Emitter, r: Reduce, fold: tuple[Value, str], window: Axis, axes: dict[Axis, Index]
) -> Value:
    acc, where = fold
    if r.op != "argmax":
        return acc
    assert r.payload is not None
    return payload(em, r, window, where, acc.dims, axes)


def payload(
    em: Emitter, r: Reduce, window: Axis, where: str, dims: frozenset[str], axes: dict[Axis, Index]
) -> Value:
    """Evaluates the payload of an argmax at the position of the winner."""
    assert r.payload is not None
    winner = Axis(f"{window.name}@{r.id}", window.size)  # another axis: its values are not cached
    em.bind(winner, where, sorted(dims))
    at_winner = {window: Index(0, ((winner, 1),)) if window.size > 1 else Index(0)}
    return em.expr(shift(shift(r.payload, axes), at_winner))
