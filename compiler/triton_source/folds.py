"""Folds of elements that come one after the other: of a window, or of a window's places."""

from __future__ import annotations

from dataclasses import replace

from compiler.kernels.index import Axis, Index
from compiler.kernels.kernel import Reduce, shift
from compiler.triton_source.emit import Emitter
from compiler.triton_source.lines import Value
from compiler.triton_source.text import ELEMENTS
from schemas.program import Dtype


def start(em: Emitter, r: Reduce, dims: frozenset[str]) -> tuple[Value, str]:
    """Writes the start of a fold; returns its variable, and for argmax that of the position."""
    best = em.names.fresh({"sum": "total", "max": "most", "argmax": "most"}[r.op])
    dtype = folded_type(r)
    em.line(f"{best} = tl.full({em.shape(dims)}, {neutral(r)}, {ELEMENTS[dtype]})")
    where = ""
    if r.op == "argmax":
        where = em.names.fresh("where")
        em.line(f"{where} = tl.zeros({em.shape(dims)}, tl.int32)")
    return Value(best, dims, dtype, em.level), where


def folded_type(r: Reduce) -> Dtype:
    """Returns the type of what is folded: of an argmax that is no position but an element."""
    return "f32" if r.op == "argmax" else r.dtype


def neutral(r: Reduce) -> str:
    """Returns what changes no result of the Reduce."""
    if r.op == "sum":
        return "0" if r.dtype == "i32" else "0.0"
    return str(-(2**31)) if r.op == "max" and r.dtype == "i32" else 'float("-inf")'


def fold_one(
    em: Emitter, r: Reduce, fold: tuple[Value, str], step: str, axes: dict[Axis, Index]
) -> None:
    """Writes the fold of one element, that at `step`."""
    (acc, where), value = fold, em.expr(shift(r.value, axes))
    if value.dims != acc.dims and len(acc.dims) > 1:
        value = replace(value, text=em.fit(value, acc.dims), dims=acc.dims, plain=True)
    if r.op == "sum":
        em.line(f"{acc.text} += {value.text}")
    elif r.op == "max":
        em.line(f"{acc.text} = {greater(acc.text, value.text)}")
    else:  # strictly greater: of equal ones the first wins
        value = em.define(value, "value")
        better = em.names.fresh("better")
        em.line(f"{better} = {value.text} > {acc.text}")
        em.line(f"{where} = tl.where({better}, {step}, {where})")
        em.line(f"{acc.text} = tl.where({better}, {value.text}, {acc.text})")


def greater(a: str, b: str) -> str:
    return f"tl.maximum({a}, {b}, propagate_nan=tl.PropagateNan.ALL)"


def result(
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
