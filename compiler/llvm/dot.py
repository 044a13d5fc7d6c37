"""Tiles whose lanes run along the sum: for factors that are both contiguous there, as they lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from compiler.kernels.index import Axis
from compiler.kernels.kernel import Kernel, Load, load_axes, product
from compiler.llvm.builder import Builder, Int, Val, Var, const, constants
from compiler.llvm.contract_plan import Plan
from compiler.llvm.fold import lanes_of
from compiler.llvm.host import Host
from compiler.llvm.scope import Scope
from compiler.llvm.tiles import first_row, row_axes, tile_scope
from compiler.lowering.adapt import shared_run


def dot_plan(kernel: Kernel, host: Host) -> Plan | None:
    """Returns a plan of `mr` rows by one vector of columns, `nr` of which are summed at a time."""
    reduce = kernel.reduces[0]
    factors, along = product(reduce), shared_run(reduce)
    assert factors is not None
    store = kernel.stores[0].offset
    vec = next((a for a in kernel.space if store.coefficient(a) == 1), None)
    owners = [f for f in factors if vec in load_axes(f)]
    if along is None or vec is None or len(owners) != 1:
        return None
    columns, scalar = owners[0], factors[1 - factors.index(owners[0])]
    rows = tuple(a for a in kernel.space if a not in load_axes(columns))
    outer = tuple(a for a in kernel.space if a is not vec and a not in rows)
    _, mr, nr = min(dot_tiles(math.prod(a.size for a in rows), vec.size, host))
    return Plan(
        scalar,
        columns,
        vec,
        outer,
        rows,
        False,
        reduce.axes,
        0,
        mr,
        1,
        host.lanes,
        0,
        0,
        1,
        False,
        nr,
    )


def dot_tiles(rows: int, columns: int, host: Host) -> Iterable[tuple[float, int, int]]:
    """Yields tiles as (cycles for one step of all sums, mr, nr), as `contract_plan` counts them."""
    for nr in (n for n in (1, 2, 4, 8) if n <= host.lanes):
        for mr in range(1, min(rows, host.pointers - nr) + 1):
            if mr * nr + min(mr, nr) + 1 > host.registers:
                break
            tiles = -(-rows // mr) * -(-columns // nr)
            yield tiles * (max(mr * nr / 2, 4) + 0.5 * (mr + nr) + 1), mr, nr


class DotTile:
    """Sums one tile, `nr` columns at a time, in vectors whose lanes are added up at the end."""

    def __init__(self, b: Builder, plan: Plan, pointers: dict[str, str]) -> None:
        self.b, self.plan, self.pointers = b, plan, pointers
        self.sums = [[b.var("float", plan.lanes) for _ in range(plan.nr)] for _ in range(plan.mr)]

    def emit(self, t: Val, results: str, block: Int) -> None:
        """Writes the sums of a tile, which are one block."""
        b, plan = self.b, self.plan
        scope, row_tile = tile_scope(b, plan, self.pointers, t)
        begin, first = first_row(b, plan, row_tile), scope.axes[plan.vec]
        # What lies behind the last row or column is that one again: nobody looks at it.
        at_rows = []
        for r in range(plan.mr):
            row = b.imin(b.iadd(begin, r), plan.row_count - 1)
            at_rows.append(scope.child(row_axes(b, plan, row)))
        with b.loop(0, b.imin(plan.width, b.isub(plan.vec.size, first)), plan.nr) as n:
            at_columns = []
            for c in range(plan.nr):
                column = b.imin(b.iadd(b.iadd(first, n), c), plan.vec.size - 1)
                at_columns.append(scope.child({plan.vec: column}))
            self._sum(at_rows, at_columns)
            for r, sums in enumerate(self.sums):
                for c, var in enumerate(sums):
                    place = b.iadd(n, r * plan.width + c)
                    b.store(_lanes_added(b, var), b.at(results, "float", place))

    def _sum(self, rows: list[Scope], columns: list[Scope]) -> None:
        plan = self.plan
        for var in (v for row in self.sums for v in row):
            var.set(const(0.0, "float", plan.lanes))
        self._nest(rows, columns, plan.sums)

    def _nest(self, rows: list[Scope], columns: list[Scope], sums: Sequence[Axis]) -> None:
        b, axis = self.b, sums[0]
        if len(sums) > 1:
            with b.loop(0, axis.size) as k:
                at = {axis: k}
                self._nest([s.child(at) for s in rows], [s.child(at) for s in columns], sums[1:])
            return
        lanes = self.plan.lanes
        starts = [self._start(self.plan.scalar, s, axis) for s in rows]
        others = [self._start(self.plan.vector, s, axis) for s in columns]
        whole, tail = axis.size // lanes * lanes, axis.size % lanes
        with b.loop(0, whole, lanes) as k:
            self._step(starts, others, k, None)
        if tail:
            mask = constants([n < tail for n in range(lanes)], "i1")
            self._step(starts, others, whole, mask)

    def _start(self, load: Load, scope: Scope, axis: Axis) -> str:
        at = scope.child({axis: 0}).scalar(load.offset)
        return self.b.at(self.pointers[load.buffer], "float", at)

    def _step(self, rows: list[str], columns: list[str], k: Int, mask: Val | None) -> None:
        xs, ys = ([self._load(at, k, mask) for at in side] for side in (rows, columns))
        for x, sums in zip(xs, self.sums, strict=True):
            for y, var in zip(ys, sums, strict=True):
                var.set(self.b.muladd(x, y, var.get()))

    def _load(self, start: str, k: Int, mask: Val | None) -> Val:
        b, lanes = self.b, self.plan.lanes
        at = b.at(start, "float", k)
        if mask is None:
            return b.load(at, "float", lanes)
        name, kind = f"llvm.masked.load.v{lanes}f32.p0", f"<{lanes} x float>"
        zeros = const(0.0, "float", lanes)
        return b.call(name, kind, "float", lanes, f"ptr {at}", "i32 4", str(mask), str(zeros))


def _lanes_added(b: Builder, var: Var) -> Val:
    """Returns the sum of a vector's lanes, half and half."""
    value = var.get()
    while value.lanes > 1:
        half = value.lanes // 2
        value = b.bin("fadd", lanes_of(b, value, half, 0), lanes_of(b, value, half, half))
    return value
