"""What tiles of rows by columns end with: sums over their rows, stores, and joins of those sums."""

from __future__ import annotations

from contextlib import ExitStack
from math import prod

from compiler.kernels.index import Axis, Index, axes_of, index, unravel
from compiler.kernels.kernel import Kernel, shift
from compiler.triton_source.emit import Emitter
from compiler.triton_source.function import each_of
from compiler.triton_source.lines import Value
from compiler.triton_source.parts import last
from compiler.triton_source.rows import write_join
from compiler.triton_source.text import ceil_div

_RESULTS = frozenset(["row", "col"])
_COLUMNS = frozenset(["col"])
_AT_ONCE = 16  # sums that a thread reads at once


def sum_rows(em: Emitter, kernel: Kernel, axes: dict[Axis, Index]) -> None:
    """Writes the sums over the rows of the tile: values of its columns."""
    for r in kernel.reduces[1:]:
        total = em.names.fresh("total")
        em.line(f"{total} = tl.sum({em.full(em.expr(shift(r.value, axes)), _RESULTS)}, 0)")
        em.accs[r.id] = Value(total, _COLUMNS, "f32", em.level)


def store_results(em: Emitter, kernel: Kernel, axes: dict[Axis, Index]) -> None:
    """Writes what is stored: at each point, or once for all rows of the tile."""
    for s in kernel.stores:
        once = not axes_of(s.offset).issuperset(kernel.rows)
        at = axes | (_numbered(em, kernel) if once else {})
        for one in each_of(s, at):
            em.store(one, _COLUMNS if once else _RESULTS)


def _numbered(em: Emitter, kernel: Kernel) -> dict[Axis, Index]:
    """Returns the axes that number the tiles: what is the same for all rows needs no others."""
    outer = kernel.space[: kernel.space.index(kernel.rows[0])]
    tile = Axis("tile_row", prod(a.size for a in outer))
    em.bind(tile, "tile_row", [])
    return dict(zip(outer, unravel(index(tile), [x.size for x in outer]), strict=True))


def write_joins(em: Emitter, kernel: Kernel, axes: dict[Axis, Index], warps: int) -> None:
    """Lets the last program of a group of tiles join its sums, and that of the last group all."""
    tiles, across = kernel.space[0].size, ceil_div(kernel.space[-1].size, em.block["col"])
    tile_col = Axis("tile_col", across)
    em.bind(tile_col, "tile_col", [])
    number, first = index(Axis("tile_row", tiles)), index(tile_col)
    most = max(1, _AT_ONCE * 32 * warps // em.block["col"])
    with ExitStack() as stack:
        for join in kernel.joins:
            count = join.reduces[0].axes[0].size
            number, tiles = number // count, tiles // count
            stack.enter_context(last(em, count, em.index(number * across + first).operand))
            *group, column = join.space
            own = {**dict.fromkeys(group, number), column: axes[kernel.space[-1]]}
            write_join(em, "col", join, own, most)
            first += tiles * across
