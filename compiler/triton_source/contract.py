"""Contractions (convolutions, products): one implicit matrix product over flattened axes.

Space axes that only the first factor depends on are flattened to M, those of the second alone to
N, those of both count matrices of a batch; the sum's axes are flattened to K. Each factor is read
straight from its tensor: its address is computed from the parts of the flat indices, or a tile of
it comes through a descriptor, if a search found that to be faster. Where the epilogue sums over
rows, they are those of a tile: a sum is a value of its columns. Where it folds results over the
places of a window, a program has a tile for each of them (places.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from compiler.kernels.index import Axis, Index, index, unravel
from compiler.kernels.kernel import Expr, Guarded, Kernel, Load, Op, load_axes, product, shift, walk
from compiler.kernels.parts import halves
from compiler.tilings import Tiling, Tilings, Tunable, digest
from compiler.triton_source.depth import Depth, run_of, scattered, size
from compiler.triton_source.descriptors import Matrix, Reader, matrix
from compiler.triton_source.emit import Emitter
from compiler.triton_source.epilogue import store_results, sum_rows, write_joins
from compiler.triton_source.function import Function, finish, flatten, label, wide
from compiler.triton_source.lines import Value
from compiler.triton_source.parts import last
from compiler.triton_source.places import Place, fold_places, places, window
from compiler.triton_source.same import shape_of
from compiler.triton_source.text import ceil_div
from compiler.triton_source.tiles import (
    MOST,
    Product,
    Target,
    Tile,
    choose,
    described,
    ranked,
    resident,
)
from schemas.precision import Precision

_RESULT = frozenset(["row", "col"])
_AHEAD = 64  # registers of a thread for parts that are on their way
# Of a thread: for its accumulators and what is read beside each of them.
_REGISTERS = 256
_TRIED, _DESCRIBED = 12, 4  # tiles that a search tries; those of them through descriptors
_SUMMED = 64  # accumulators of a thread whose rows are summed: the sums take registers as well
_SWIZZLE = 8  # tiles of this many rows run together, so that they share what they read


@dataclass(frozen=True)
class Roles:
    """Which axis plays which part; `a` and `b` are the factors, `a` that of the rows."""

    a: Expr
    b: Expr
    m: tuple[Axis, ...]
    n: tuple[Axis, ...]
    k: tuple[Axis, ...]
    batch: tuple[Axis, ...]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return size(self.m), size(self.n), size(self.k), size(self.batch)


def roles(kernel: Kernel) -> Roles:
    """Divides a contraction's axes; the axis that is contiguous in the result becomes a column."""
    value, read = kernel.reduces[0].value, product(kernel.reduces[0])
    assert isinstance(value, Op) and read is not None
    (a, b), (first, second) = read, value.args
    out = kernel.stores[0].offset
    inner = [x for x in kernel.space if out.coefficient(x)]
    fastest = min(inner, key=lambda x: abs(out.coefficient(x)), default=None)
    if fastest in load_axes(a) and fastest not in load_axes(b):
        a, b, first, second = b, a, second, first
    in_a, in_b = load_axes(a), load_axes(b)
    folded = window(kernel)
    rows = () if folded else kernel.rows
    space = [x for x in kernel.space if x not in folded]
    m = [x for x in space if x in in_a - in_b or x not in in_a | in_b]
    outer = [x for x in m if x not in rows]
    n = [x for x in space if x in in_b - in_a]
    batch = tuple(x for x in space if x in in_a & in_b)
    k = kernel.reduces[0].axes
    return Roles(
        first,
        second,
        (*_by_stride(outer, a.offset, out), *rows),
        _by_stride(n, out, b.offset),
        _by_stride(k, a.offset, b.offset),
        batch,
    )


def _by_stride(axes: Sequence[Axis], first: Index, second: Index) -> tuple[Axis, ...]:
    """Orders axes by their step in memory, the shortest last: neighbours are read at once."""

    def step(x: Axis) -> float:
        return abs(first.coefficient(x)) or abs(second.coefficient(x)) or float("inf")

    return tuple(sorted(axes, key=step, reverse=True))


def suits(kernel: Kernel) -> bool:
    """Whether matrix tiles pay: a matrix times a vector is better folded as a reduction.

    So is what has a batch of channels, which lie side by side in memory.
    """
    if kernel.kind != "contract":
        return False
    r = roles(kernel)
    m, n, k, _ = r.sizes
    pays = m > 1 and n > 1 and k > 3
    padded = product(kernel.reduces[0]) or ()
    return (pays or bool(window(kernel))) and all(load.other == 0 for load in padded)


def tunable(kernel: Kernel, target: Target, precision: Precision) -> Tunable | None:
    """Returns the tiles that are worth a try, None if there is no choice.

    Each adds up the sum in blocks of its own depth: another tile, other bits.
    """
    if not suits(kernel):
        return None
    made = kernel if kernel.parts is None else halves(kernel, kernel.parts)[0]
    r = roles(made)
    asked = problem(kernel, r, target, precision)
    through = described(asked)[:_DESCRIBED] if _matrices(kernel, r, precision) else []
    tiles = dict.fromkeys((choose(asked), *through, *ranked(asked)[:_TRIED]))
    return Tunable(_key(kernel, precision), tuple(t.tiling for t in tiles))


def _key(kernel: Kernel, precision: Precision) -> str:
    return digest(*shape_of(kernel).key, precision)


def problem(
    kernel: Kernel, r: Roles, target: Target, precision: Precision, accumulators: int = MOST
) -> Product:
    """Returns what a kernel's tiles are chosen by."""
    accumulators = min(accumulators, _REGISTERS // _held(kernel, r))
    folded = window(kernel)
    if kernel.rows and not folded:
        accumulators = min(accumulators, _SUMMED)
    rows = size(kernel.rows) if kernel.rows and not folded else 0
    m, n, k, batch = r.sizes
    how = target, precision, accumulators, rows, size(folded), _alone(r) is not None
    return Product(m, n, k, batch, size(_run(r)), *how, (_blobs(r.a), _blobs(r.b)))


def _blobs(factor: Expr) -> int:
    """Returns how many tiles of memory one of a factor is made of: all else is vectors."""
    axes = [load_axes(e) for e in {e for e in walk(factor) if isinstance(e, Load)}]
    most = max(len(own) for own in axes)
    return sum(len(own) == most for own in axes)


def _alone(r: Roles) -> Load | None:
    """Returns the rows' factor if each of its numbers is read alone, from memory."""
    return r.a if isinstance(r.a, Load) and scattered(r.a) else None


def _run(r: Roles) -> tuple[Axis, ...]:
    alone = _alone(r)
    return run_of(r.k, alone) if alone is not None else r.k[-1:]


def _matrices(kernel: Kernel, r: Roles, precision: Precision) -> tuple[Matrix, Matrix] | None:
    """Returns both factors as matrices that the copy engine reads, None if they are none, or maps.

    It counts in 32 bits. Steps of a loop move addresses by any number of bytes.
    """
    wanted = "bf16" if precision == "bf16" else "f32"
    plain = kernel.parts is None and not kernel.joins and not kernel.loop
    plain = plain and not r.batch and not wide(kernel)
    if not plain or window(kernel) or not isinstance(r.a, Load) or not isinstance(r.b, Load):
        return None
    if r.a.dtype != wanted or r.b.dtype != wanted:
        return None
    a, b = matrix(r.a, {"row": r.m, "k": r.k}), matrix(r.b, {"k": r.k, "col": r.n})
    return (a, b) if a is not None and b is not None else None


def _tile(asked: Product, found: Tiling | None, describable: bool) -> Tile:
    """Returns the tile that a search found, if it is possible, else the model's.

    One that is too large through descriptors gives way to a smaller one through descriptors.
    """
    if found is None:
        return choose(asked)
    through = described(asked) if describable and "descriptors" in found else []
    possible = through or ranked(asked)
    return next((t for t in possible if t.tiling == found), (*through, choose(asked))[0])


def render_contract(
    kernel: Kernel,
    target: Target,
    precision: Precision,
    accumulators: int,
    tilings: Tilings,
    aligned: bool,
) -> Function:
    """`aligned`: what is read begins at multiples of 16 bytes, as the copy engine wants it."""
    parted = halves(kernel, kernel.parts) if kernel.parts is not None else None
    made = kernel if parted is None else parted[0]
    r = roles(made)
    m, n, _, batch = r.sizes
    matrices = _matrices(kernel, r, precision) if aligned else None
    asked = problem(kernel, r, target, precision, accumulators)
    found = tilings.found.get(_key(kernel, precision)) if tilings.found else None
    tile = _tile(asked, found, matrices is not None)
    em = Emitter(["row", "k", "col"], {"row": tile.m, "col": tile.n, "k": tile.k}, wide(kernel))
    for word in ("row", "k", "col", "acc", "tile", "batch", "lane", "step", "total", "each"):
        em.names.fresh(word)
    depth = Depth(r.k, _run(r), asked.padded(tile), asked.along_depth(tile))
    programs = tiles = ceil_div(m, tile.m) * ceil_div(n, tile.n) * batch
    if tile.descriptors and matrices is not None:
        programs = min(tiles, resident(tile, asked))
        readers = [each.describe(em) for each in matrices]
        # Flattened, the first factors for a tile are on their way while the last one is stored.
        with em.loop(f"for tile in tl.range(pid, {tiles}, {programs}, flatten=True):"):
            _one_tile(em, made, r, tile, depth, precision, "tile", readers)
    else:
        axes = _one_tile(em, made, r, tile, depth, precision, "pid")
        if kernel.parts is not None and parted is not None:
            _, total, part = parted
            with last(em, kernel.parts.count, f"pid % {tiles // kernel.parts.count}"):
                _add_up(em, total, part, axes, tile)
                store_results(em, total, axes)
    accumulators = tile.accumulators * asked.places
    held = accumulators * _held(kernel, r)
    return finish(kernel, em, programs, tile.warps, tile.stages, accumulators, held)


def _one_tile(
    em: Emitter,
    kernel: Kernel,
    r: Roles,
    tile: Tile,
    depth: Depth,
    precision: Precision,
    number: str,
    readers: Sequence[Reader] = (),
) -> dict[Axis, Index]:
    """Writes the tile of a number: its sums, and what is stored; returns all axes as parts."""
    axes = _bind_tiles(em, r, tile, number)
    blocks = ceil_div(depth.size, tile.k)
    lane, step = Axis("lane", tile.k), Axis("step", blocks)
    if not readers:
        em.line(f"lane = {em.arange(tile.k)}")
        em.bind(lane, "lane", ["k"])
    each = places(em, kernel)
    for place in each:
        em.line(f"{place.acc} = tl.zeros(({tile.m}, {tile.n}), tl.float32)")
    flat = index(step) * tile.k + index(lane)
    axes.update(depth.at(flat))
    label(em, axes)
    if blocks == 1:
        _multiply(em, r, axes, depth, step, precision, each, readers)
    else:
        with em.loop(f"for step in tl.range({blocks}, num_stages={tile.stages}):"):
            em.bind_counter(step, "step")
            _multiply(em, r, axes, depth, step, precision, each, readers)
    em.accs |= {place.id: Value(place.acc, _RESULT, "f32", em.level) for place in each}
    if window(kernel):
        fold_places(em, kernel, each, axes, _RESULT)
    else:
        sum_rows(em, kernel, axes)
        store_results(em, kernel, axes)
        write_joins(em, kernel, axes, tile.warps)
    return axes


def _add_up(em: Emitter, kernel: Kernel, part: Axis, axes: dict[Axis, Index], tile: Tile) -> None:
    """Writes the sum of all parts of a tile; several are on their way while one is added."""
    em.line(f"total = tl.zeros(({tile.m}, {tile.n}), tl.float32)")
    ahead = max(1, min(8, _AHEAD // tile.accumulators))
    each = Axis("each", part.size)
    how = f"num_stages=1, loop_unroll_factor={ahead}"
    with em.loop(f"for each in tl.range(0, {part.size}, {how}):"):
        em.bind_counter(each, "each")
        value = em.expr(shift(kernel.reduces[0].value, {**axes, part: index(each)}))
        em.line(f"total += {em.full(value, _RESULT)}")
    em.accs[kernel.reduces[0].id] = Value("total", _RESULT, "f32", em.level)


def _held(kernel: Kernel, r: Roles) -> int:
    """Returns how many numbers a thread holds for each sum when it stores the results.

    They are the sum and what its result is made with: a mask, what it is added to, and its part of
    vectors of columns, each of which serves some eight sums. A result that is spread over a window
    leaves all of them there for the next: it and its address come on top.
    """
    rows, columns = {*r.m, *r.batch}, {*r.n, *r.batch}
    loads = {e for s in kernel.stores for e in walk(s.value) if isinstance(e, Load)}
    inside = [e for e in loads if load_axes(e) & columns]
    read = sum(1 for e in inside if load_axes(e) & rows)
    vectors = (len(inside) - read) // 8
    return 1 + read + vectors + (2 if any(s.axes for s in kernel.stores) else 0)


def _bind_tiles(em: Emitter, r: Roles, tile: Tile, number: str) -> dict[Axis, Index]:
    """Writes which tile has a number; returns M's, N's and the batch's axes as parts."""
    m, n, _, batch = r.sizes
    rows, columns = ceil_div(m, tile.m), ceil_div(n, tile.n)
    axes: dict[Axis, Index] = {}
    if batch > 1:
        em.line(f"batch = pid // {rows * columns}")
        em.line(f"tile = pid % {rows * columns}")
        number = "tile"
        flat, parts = flatten(r.batch, "batch")
        em.bind(flat, "batch", [])
        axes.update(parts)
    else:
        axes.update({x: Index(0) for x in r.batch})
    _tile_numbers(em, rows, columns, number)
    for dim, length, members in (("row", tile.m, r.m), ("col", tile.n, r.n)):
        flat = Axis(dim, size(members))
        parts = dict(zip(members, unravel(index(flat), [x.size for x in members]), strict=True))
        em.line(f"{dim} = tile_{dim} * {length} + {em.arange(length)}")
        em.bind(flat, dim, [dim])
        em.tails[dim] = flat
        axes.update(parts)
    return axes


def _tile_numbers(em: Emitter, rows: int, columns: int, number: str) -> None:
    if rows < 2 or columns <= _SWIZZLE:
        em.line(f"tile_row = {number} // {columns}" if columns > 1 else f"tile_row = {number}")
        em.line(f"tile_col = {number} % {columns}" if columns > 1 else "tile_col = 0")
        return
    em.line(f"first = {number} // {_SWIZZLE * columns} * {_SWIZZLE}")
    em.line(f"height = tl.minimum({rows} - first, {_SWIZZLE})")
    em.line(f"tile_row = first + {number} % {_SWIZZLE * columns} % height")
    em.line(f"tile_col = {number} % {_SWIZZLE * columns} // height")


def _multiply(
    em: Emitter,
    r: Roles,
    axes: dict[Axis, Index],
    depth: Depth,
    step: Axis,
    precision: Precision,
    each: Sequence[Place],
    readers: Sequence[Reader],
) -> None:
    """Writes one step along K."""
    length, k = em.block["k"], depth.size
    if readers:
        first = {dim: f"tile_{dim} * {em.block[dim]}" for dim in ("row", "col")}
        first["k"] = f"step * {length}" if step.size > 1 else "0"
        factors = [tuple(read(first) for read in readers)]
    else:
        if k % length:
            em.line(f"k = step * {length} + lane" if step.size > 1 else "k = lane")
            em.tails["k"] = Axis("k", k)
            em.bind(em.tails["k"], "k", ["k"])
        factors = [_factors(em, r, axes | place.at, depth, precision) for place in each]
    exact = "ieee" if precision == "fp32" else "tf32"
    how = "" if precision == "bf16" else f', input_precision="{exact}"'
    for place, (a, b) in zip(each, factors, strict=True):
        em.line(f"{place.acc} = tl.dot({a}, {b}, {place.acc}{how})")


def _factors(
    em: Emitter, r: Roles, axes: dict[Axis, Index], depth: Depth, precision: Precision
) -> tuple[str, ...]:
    a = _factor(em, r.a, axes, depth, ("row", "k"), precision)
    return a, _factor(em, r.b, axes, depth, ("k", "col"), precision)


def _guarded(factor: Expr, depth: Depth) -> Expr:
    """Returns a factor that is 0 where K holds no number of a run."""
    if not depth.guards:
        return factor
    if isinstance(factor, Load):
        return replace(factor, guards=(*factor.guards, *depth.guards))
    return Guarded(depth.guards, factor, 0.0, "f32")


def _factor(
    em: Emitter,
    factor: Expr,
    axes: dict[Axis, Index],
    depth: Depth,
    dims: tuple[str, str],
    precision: Precision,
) -> str:
    """Returns the text of a factor's tile; what lies as f32 is rounded on its way."""
    moved = shift(_guarded(factor, depth), axes)
    if isinstance(moved, Load):
        value = em.load(moved, precision == "bf16", depth.crossed_by(factor))
    else:  # a map of nothing is not 0
        value = em.where(em.tail("k"), em.expr(moved), 0.0)
    text = em.full(value, frozenset(dims))
    return f"{text}.to(tl.bfloat16)" if precision == "bf16" != value.dtype else text
