"""Where a contraction's tiles lie in its space."""

from __future__ import annotations

from compiler.kernels.index import Axis
from compiler.llvm.builder import Builder, Int, Val
from compiler.llvm.contract_plan import Plan
from compiler.llvm.scope import Scope


def tile_scope(b: Builder, plan: Plan, pointers: dict[str, str], t: Val) -> tuple[Scope, Int]:
    """Returns the scope of a tile's outer axes and first column, and its row tile's number."""
    outer = [a.size for a in plan.outer]
    panel: Int = 0
    if plan.panels == 1:
        *at, row = b.unravel(t, [*outer, plan.row_tiles])
    elif plan.panels_inside:
        *at, row, panel = b.unravel(t, [*outer, plan.row_tiles, plan.panels])
    else:
        panel, *at, row = b.unravel(t, [plan.panels, *outer, plan.row_tiles])
    axes: dict[Axis, Int] = dict(zip(plan.outer, at, strict=True))
    axes[plan.vec] = b.imul(panel, plan.width)
    return Scope(b, pointers, axes), row


def first_row(b: Builder, plan: Plan, row_tile: Int) -> Int:
    """Returns where a tile begins; the last of an even axis begins early, to stay inside."""
    start = b.imul(row_tile, plan.mr)
    return b.imin(start, plan.row_count - plan.mr) if plan.even else start


def row_axes(b: Builder, plan: Plan, row: Int) -> dict[Axis, Int]:
    """Returns where the row axes stand in a row."""
    sizes = [a.size for a in plan.rows]
    return dict(zip(plan.rows, b.unravel(row, sizes), strict=True))
