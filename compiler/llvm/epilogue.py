"""What follows the sums of a contraction: the stores, row by row from a block of results."""

from __future__ import annotations

from collections.abc import Mapping

from compiler.kernels.index import Axis
from compiler.kernels.kernel import Kernel
from compiler.llvm.builder import Builder, Int, Val, as_val, constants
from compiler.llvm.contract_plan import Plan
from compiler.llvm.scope import Scope
from compiler.llvm.tiles import first_row, row_axes, tile_scope


class Finish:
    """Evaluates a kernel's stores for a tile whose sums lie in a block on the stack."""

    def __init__(self, b: Builder, plan: Plan, kernel: Kernel, pointers: dict[str, str]) -> None:
        self.b, self.plan, self.kernel, self.pointers = b, plan, kernel, pointers

    def emit(self, t: Val, block: str) -> None:
        b, plan = self.b, self.plan
        scope, row_tile = tile_scope(b, plan, self.pointers, t)
        begin = first_row(b, plan, row_tile)
        # Rows of a tile that begins early belong to the tile before; rows behind the end to none.
        skipped = b.isub(b.imul(row_tile, plan.mr), begin)
        stop = b.imin(plan.mr, b.isub(plan.row_count, begin))
        with b.loop(skipped, stop) as r:
            at = scope.child(row_axes(b, plan, b.iadd(begin, r)))
            column = at.axes[plan.vec]
            here = b.at(block, "float", b.imul(r, plan.width))
            left = b.imin(b.isub(plan.vec.size, column), plan.width)
            whole = left
            if plan.vec.size % plan.lanes:
                whole = b.imul(b.idivmod(left, plan.lanes)[0], plan.lanes)
            with b.loop(0, whole, plan.lanes) as n:
                self._stores(at.axes, b.iadd(column, n), b.at(here, "float", n), None)
            if plan.vec.size % plan.lanes:
                # The last panel alone ends within a vector, always in the same lane.
                tail = plan.vec.size % plan.lanes
                mask = constants([n < tail for n in range(plan.lanes)], "i1")
                short = b.cmp("icmp slt", as_val(whole), as_val(left))
                with b.when(short):
                    at_tail = b.at(here, "float", whole)
                    self._stores(at.axes, b.iadd(column, whole), at_tail, mask)

    def _stores(self, axes: Mapping[Axis, Int], column: Int, at: str, mask: Val | None) -> None:
        plan = self.plan
        known = {a: i for a, i in axes.items() if a is not plan.vec}
        base = Scope(self.b, self.pointers, known)
        scope = base.along(plan.vec, column, plan.lanes, mask)
        reduce = self.kernel.reduces[0]
        scope.accs[reduce.id] = self.b.load(at, "float", plan.lanes)
        scope.store_all(self.kernel.stores)
