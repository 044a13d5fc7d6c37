"""Copies a panel of the vector factor to the stack, where its rows are neighbours and aligned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.kernels.index import Axis, index, linear, row_major
from compiler.llvm.builder import Builder, Int, Val, as_val, const
from compiler.llvm.contract_plan import Plan
from compiler.llvm.scope import Scope


class Pack:
    """One panel, copied again whenever a tile needs another one."""

    def __init__(self, b: Builder, plan: Plan, pointers: dict[str, str]) -> None:
        self.b, self.plan = b, plan
        self.sums = plan.sums[plan.lead :]
        sizes = [plan.chunk or self.sums[0].size, *(a.size for a in self.sums[1:])]
        self.memory = b.alloca(f"[{plan.panel} x float]", 64)
        self.source = pointers[plan.vector.buffer]
        self.place = linear([index(a) for a in self.sums], row_major(sizes)) * plan.width
        self.present = b.var("i64", 1, const(-1, "i64"))
        self.origin = self.memory  # where the panel would begin if it had all steps of the sums
        self.keys = [a for a in (*plan.outer, plan.vec) if a in plan.vector_axes]

    def fill(self, scope: Scope, block: Int, start: Int, stop: Int) -> None:
        """Makes sure that a block of a tile's panel is there: `start` to `stop` of one sum."""
        b, plan = self.b, self.plan
        offset = linear([index(a) for a in self.keys], row_major([a.size for a in self.keys]))
        key = as_val(b.iadd(b.imul(scope.scalar(offset), plan.blocks), block))
        rest = math.prod(a.size for a in self.sums[1:])
        self.origin = b.at(self.memory, "float", b.imul(start, -rest * plan.width))
        with b.when(b.cmp("icmp ne", key, self.present.get())):
            with b.loop(start, stop) as k:
                self._copy(scope.child({self.sums[0]: k}), self.sums[1:])
            self.present.set(key)

    def _copy(self, scope: Scope, axes: Sequence[Axis]) -> None:
        b, plan = self.b, self.plan
        if axes:
            with b.loop(0, axes[0].size) as k:
                self._copy(scope.child({axes[0]: k}), axes[1:])
            return
        at = b.at(self.source, "float", scope.scalar(plan.vector.offset))
        to = b.at(self.origin, "float", scope.scalar(self.place))
        for n, value in enumerate(b.load_all(at, plan.nv, plan.lanes)):
            b.store(value, b.at(to, "float", n * plan.lanes))

    def load(self, scope: Scope) -> list[Val]:
        at = self.b.at(self.origin, "float", scope.scalar(self.place))
        return self.b.load_all(at, self.plan.nv, self.plan.lanes)
