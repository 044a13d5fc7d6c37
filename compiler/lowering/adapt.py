"""Fits kernels to a backend: splits long sums, copies factors that lie across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import isqrt, prod

from compiler.kernels.index import Axis, Index, axes_of, index
from compiler.kernels.kernel import (
    Expr,
    Kernel,
    Load,
    Parts,
    Reduce,
    Store,
    load_axes,
    product,
    rebuild,
)
from compiler.kernels.parts import fresh, halves, packed
from compiler.kernels.schedule import Buffer, Loop, Work
from compiler.lowering.fuse import substituted
from compiler.lowering.traits import Traits

_MAX_PARTS = 64
_ADDED = 32  # products that one program sums in the time in which it adds one part to another
_PANELS = (64, 48, 32)  # columns
_LARGE = (128, 128)  # a GPU's tile of a product that has many results
# Products that a processor sums for each of them in the time in which it writes or reads their
# part: 64 KiB, as much as the factors of 128 products in bf16.
_HANDED = 128


# What was copied, over which axes (name and size), and the copy's buffer.
Copies = dict[tuple[str, Index, tuple[tuple[str, int], ...]], str]


@dataclass
class Adapted:
    kernels: list[Work]
    buffers: dict[str, Buffer]


def adapt(kernels: Sequence[Work], buffers: dict[str, Buffer], traits: Traits) -> Adapted:
    """Returns the kernels as the backend wants them, with the buffers that this adds."""
    state = Adapted([], dict(buffers))
    copies: Copies = {}
    for work in kernels:
        if isinstance(work, Loop):
            state.kernels.append(_loop(work, state, copies, traits))
            continue
        if traits.contiguous_factor and work.kind == "contract" and not _lies_well(work):
            work = _with_contiguous_factor(work, None, state, copies)
        state.kernels.extend(_split(work, state, traits))
    return state


def _loop(loop: Loop, state: Adapted, copies: Copies, traits: Traits) -> Loop:
    """Fits the kernels of one step; weights that all steps read are copied once, before the loop.

    Each step streams them from memory, so they lie in the order in which they are read.
    """
    moves = dict(loop.moves)
    own = loop.writes()
    inside: list[Kernel] = []
    for kernel in loop.kernels:
        name = kernel.name
        contracts = traits.contiguous_factor and kernel.kind == "contract"
        factor = _vector_factor(kernel) if contracts else None
        if factor is not None and factor.buffer not in own | set(moves.get(name, {})):
            kernel = _with_contiguous_factor(*_in_panels(kernel), state, copies)
        elif factor is not None:
            before = len(state.kernels)
            kernel = _with_contiguous_factor(kernel, None, state, {})
            turned = [k for k in state.kernels[before:] if isinstance(k, Kernel)]
            moves.update({k.name: moves.get(name, {}) for k in turned})
            inside += turned
            del state.kernels[before:]
        for part in _split(kernel, state, traits):
            moves.setdefault(part.name, moves.get(name, {}))
            inside.append(part)
    return replace(loop, kernels=tuple(inside), moves=moves)


# ---- factors ---------------------------------------------------------------------------------


def vector_axis(kernel: Kernel) -> Axis | None:
    """Returns the axis along which a contraction's result is contiguous, if it has one."""
    store = kernel.stores[0]
    return next((a for a in kernel.space if store.offset.coefficient(a) == 1), None)


def shared_run(reduce: Reduce) -> Axis | None:
    """Returns the sum axis along which both factors are contiguous, without guards."""
    factors = product(reduce)
    if factors is None or not reduce.axes or any(f.guards for f in factors):
        return None
    axis = reduce.axes[-1]
    for factor in factors:
        inner = (a.of for a, _ in factor.offset.terms if not isinstance(a, Axis))
        if factor.offset.coefficient(axis) != 1 or any(axis in axes_of(i) for i in inner):
            return None
    return axis


def _lies_well(kernel: Kernel) -> bool:
    """Tells whether a sum runs along both factors, and adding up its lanes costs less than a copy.

    To copy an element costs about as much as to add up the lanes of half a result.
    """
    (reduce,) = kernel.reduces
    along = shared_run(reduce)
    return along is not None and _rows(kernel) <= along.size // 2


def _rows(kernel: Kernel) -> int:
    """Returns the results that each element of the factor with the vector axis is read for."""
    axis = vector_axis(kernel)
    factors = product(kernel.reduces[0]) or ()
    columns = {a for f in factors if axis in load_axes(f) for a in load_axes(f)}
    return prod(a.size for a in kernel.space if a not in columns)


def _vector_factor(kernel: Kernel) -> Load | None:
    """Returns the factor that has the vector axis, if it alone has and a copy of it is simple."""
    factors = product(kernel.reduces[0])
    axis = vector_axis(kernel)
    if factors is None or axis is None:
        return None
    owners = [f for f in factors if axis in load_axes(f)]
    plain = len(owners) == 1 and all(isinstance(a, Axis) for a, _ in owners[0].offset.terms)
    return owners[0] if plain and not owners[0].guards else None


def _in_panels(kernel: Kernel) -> tuple[Kernel, Axis | None]:
    """Splits the vector axis into panels of columns that are read together, if that comes out."""
    axis = vector_axis(kernel)
    assert axis is not None
    width = next((w for w in _PANELS if axis.size % w == 0 and axis.size > w), 0)
    if not width:
        return kernel, None
    panel = Axis(fresh("panel", kernel), axis.size // width)
    column = Axis(axis.name, width)
    space = [a for b in kernel.space for a in ((panel, column) if b == axis else (b,))]
    split = {axis: index(panel) * width + index(column)}
    return substituted(kernel, split, tuple(space)), panel


def _with_contiguous_factor(
    kernel: Kernel, panel: Axis | None, state: Adapted, copies: Copies
) -> Kernel:
    """Copies the factor that has the vector axis if it does not lie along it, or panel by panel."""
    factor, axis = _vector_factor(kernel), vector_axis(kernel)
    if factor is None or axis is None:
        return kernel
    if panel is None and factor.offset.coefficient(axis) == 1:
        return kernel
    step = factor.offset.coefficient
    used = sorted(axes_of(factor.offset), key=lambda a: (a == axis, a != panel, -step(a)))
    key = (factor.buffer, factor.offset, tuple((a.name, a.size) for a in used))
    if key not in copies:
        names = (f"{factor.buffer}.t{n}" for n in count())
        name = next(n for n in names if n not in state.buffers)
        copies[key] = name
        size = prod(a.size for a in used)
        state.buffers[name] = Buffer(name, factor.dtype, size, "inner")
        store = Store(name, packed(used), factor, factor.dtype)
        owner = kernel.layers[0] if kernel.layers else kernel.name
        taken = {k.name for k in state.kernels}
        turn = next(n for n in (f"{owner}.turn", f"{kernel.name}.turn") if n not in taken)
        state.kernels.append(Kernel(turn, tuple(used), (store,), kernel.layers[:1]))
    copied = Load(copies[key], packed(used), factor.dtype)
    return _replaced(kernel, factor, copied)


def _replaced(kernel: Kernel, old: Load, new: Load) -> Kernel:
    (reduce,) = kernel.reduces

    def visit(e: Expr) -> Expr | None:
        return new if e == old else None

    changed = replace(reduce, value=rebuild(reduce.value, visit))
    return replace(kernel, body=tuple(changed if s is reduce else s for s in kernel.body))


# ---- long sums -------------------------------------------------------------------------------


def _split(kernel: Kernel, state: Adapted, traits: Traits) -> list[Kernel]:
    """Splits sums with too few result tiles."""
    parts = parts_of(kernel, traits)
    if parts is None:
        return [kernel]
    size = prod(a.size for a in kernel.space) * parts.count * len(kernel.reduces)
    state.buffers[parts.buffer] = Buffer(parts.buffer, "f32", size, "inner")
    if traits.last_adds:
        return [replace(kernel, parts=parts)]
    first, second, _ = halves(kernel, parts)
    return [first, second]


def parts_of(kernel: Kernel, traits: Traits) -> Parts | None:
    """Returns how a kernel's sums are made in parts, None if they are not."""
    if traits.parallel == 1 or kernel.kind not in ("contract", "reduce") or kernel.rows:
        return None
    axes = kernel.reduces[0].axes
    if not axes or any(r.op != "sum" for r in kernel.reduces):
        return None
    inner = prod(a.size for a in axes[1:])
    length = axes[0].size * inner
    tiles = _tiles(kernel, traits, traits.tile)
    if inner < traits.inner or length < 4 * traits.shortest or tiles >= traits.parallel:
        return None
    most = min(_MAX_PARTS, length // traits.shortest)
    if traits.processors and min(_only(_sides(kernel)), default=0) >= min(_LARGE):
        cut, count = _evenly(kernel, traits, most)
    else:
        most = min(most, -(-traits.parallel // tiles))
        if traits.last_adds and kernel.kind == "contract":  # no more than make the whole shorter
            most = min(most, isqrt(length // _ADDED))
        cut, count = 0, max(d for d in range(1, most + 1) if axes[0].size % d == 0)
    return Parts(cut, count, f"{kernel.name}.parts") if count > 1 else None


def _evenly(kernel: Kernel, traits: Traits, most: int) -> tuple[int, int]:
    """Returns which axis of a product is cut in how many parts, so that it takes least time.

    Each processor sums one large tile at a time, so that all take some rounds: it is best if none
    is idle in the last one. Each part is written in its round, and in the end one processor reads
    all those of a tile. The last axis stays whole, as neighbours are read together.
    """
    tiles, axes = _tiles(kernel, traits, _LARGE), kernel.reduces[0].axes
    most, length = min(most, -(-traits.parallel // tiles)), prod(a.size for a in axes)

    def time(way: tuple[int, int]) -> tuple[float, int]:
        cut, count = way
        rounds = -(-tiles * count // traits.processors)
        handed = _HANDED * (rounds + count) if count > 1 else 0
        return rounds * length / count + handed, cut

    cuts = enumerate(axes[:-1])
    return min(((n, d) for n, a in cuts for d in range(1, most + 1) if a.size % d == 0), key=time)


def _sides(kernel: Kernel) -> list[set[Axis]]:
    """Returns the axes of the space that each factor of a product depends on."""
    factors = product(kernel.reduces[0]) if kernel.kind == "contract" else None
    return [load_axes(f) & {*kernel.space} for f in factors or ()]


def _only(sides: Sequence[set[Axis]]) -> list[int]:
    """Returns how many results each factor of a product alone tells apart."""
    return [prod(a.size for a in s - t) for s, t in zip(sides, reversed(sides), strict=True)]


def _tiles(kernel: Kernel, traits: Traits, tile: tuple[int, int]) -> int:
    """Returns how many pieces of work the kernel's result makes."""
    (rows, columns), sides = tile, _sides(kernel)
    only = _only(sides)
    # On a GPU what is no product of matrices is folded like any other sum.
    if not sides or (traits.last_adds and 1 in only):
        results = columns if traits.last_adds else rows * columns
        return -(-prod(a.size for a in kernel.space) // results)
    both = prod(a.size for a in sides[0] & sides[1])
    small, large = sorted((rows, columns))
    vector = vector_axis(kernel)
    wide = 0 if vector in sides[0] else 1
    return both * -(-only[wide] // large) * -(-only[1 - wide] // small)
