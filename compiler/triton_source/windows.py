"""Short reductions, such as pooling: a block of points, and a loop over the window.

Where the results are summed over rows, the points are those rows by neighbouring columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from compiler.kernels.index import Axis, Index, index, unravel
from compiler.kernels.kernel import Kernel
from compiler.triton_source.emit import Emitter
from compiler.triton_source.epilogue import store_results, sum_rows, write_joins
from compiler.triton_source.folds import fold_one, result, start
from compiler.triton_source.function import Function, each_of, finish, flatten, label, wide
from compiler.triton_source.pointwise import block_length
from compiler.triton_source.text import ceil_div, next_power
from compiler.triton_source.tiles import MOST, Target

LONGEST = 64  # a longer window is folded as a tile (rows.py)
UNROLLED = 16
_COLUMNS = 32  # of rows that are summed: whole cache lines
_WARPS = 8


def render_windows(kernel: Kernel, target: Target, accumulators: int = MOST) -> Function:
    windows = [r for r in kernel.reduces if r.axes != kernel.rows]
    window, by_window = flatten(windows[0].axes, "r")
    tile = _rows(kernel, accumulators) if kernel.rows else _block(kernel, target)
    em, axes = tile.em, {**tile.axes, **by_window}
    label(em, axes)
    folds = [start(em, r, tile.dims) for r in windows]
    step = em.names.fresh(window.name)
    loop = "tl.static_range" if window.size <= UNROLLED else "range"
    with em.loop(f"for {step} in {loop}({window.size}):"):
        em.bind_counter(window, step)
        for r, fold in zip(windows, folds, strict=True):
            fold_one(em, r, fold, step, axes)
    for r, fold in zip(windows, folds, strict=True):
        em.accs[r.id] = result(em, r, fold, window, axes)
    if kernel.rows:
        sum_rows(em, kernel, axes)
        store_results(em, kernel, axes)
        write_joins(em, kernel, axes, tile.warps)
    else:
        for s in kernel.stores:
            for one in each_of(s, axes):
                em.store(one, tile.dims)
    return finish(kernel, em, tile.programs, tile.warps, accumulators=tile.accumulators)


@dataclass(frozen=True, slots=True)
class _Tile:
    """The points of a program, and what the axes of the space are there.

    `accumulators` are a thread's results, if there is a choice.
    """

    em: Emitter
    axes: dict[Axis, Index]
    dims: frozenset[str]
    programs: int
    warps: int
    accumulators: int = 0


def _block(kernel: Kernel, target: Target) -> _Tile:
    """Returns a block of points."""
    points, by_point = flatten(kernel.space, "i")
    dim = points.name
    length = block_length(points.size, target)
    em = Emitter([dim], {dim: length}, wide(kernel))
    label(em, by_point)
    em.tails[dim] = points
    name = em.names.fresh(dim)
    em.line(f"{name} = pid * {length} + {em.arange(length)}")
    em.bind(points, name, [dim])
    programs, warps = ceil_div(points.size, length), min(8, max(1, length // 256))
    return _Tile(em, by_point, frozenset([dim]), programs, warps)


def _rows(kernel: Kernel, accumulators: int) -> _Tile:
    """Returns the rows that are summed, by neighbouring columns.

    A thread adds up `accumulators` results at most.
    """
    at = kernel.space.index(kernel.rows[0]) + 1
    (row, by_row), (column, by_column) = (
        _flat(axes, name) for axes, name in ((kernel.space[:at], "row"), (kernel.space[at:], "col"))
    )
    height = kernel.rows[0].size
    width = min(_COLUMNS, next_power(column.size), accumulators * 32 * _WARPS // height)
    em = Emitter(["row", "col"], {"row": height, "col": width}, wide(kernel))
    for word in ("row", "col", "tile_row", "tile_col"):
        em.names.fresh(word)
    across = ceil_div(column.size, width)
    em.line(f"tile_row = pid // {across}" if across > 1 else "tile_row = pid")
    em.line(f"row = tile_row * {height} + {em.arange(height)}")
    em.line(f"tile_col = pid % {across}" if across > 1 else "tile_col = 0")
    em.line(f"col = tile_col * {width} + {em.arange(width)}")
    em.bind(row, "row", ["row"])
    em.bind(column, "col", ["col"])
    em.tails["col"] = column
    programs = row.size // height * across
    each = height * width // (32 * _WARPS)
    return _Tile(em, by_row | by_column, frozenset(["row", "col"]), programs, _WARPS, each)


def _flat(axes: Sequence[Axis], name: str) -> tuple[Axis, dict[Axis, Index]]:
    flat = Axis(name, prod(a.size for a in axes))
    return flat, dict(zip(axes, unravel(index(flat), [a.size for a in axes]), strict=True))
