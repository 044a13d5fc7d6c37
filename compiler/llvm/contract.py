"""The generator of all contractions: register tiles of rows by vectors, summed by fused steps."""

from __future__ import annotations

from collections.abc import Callable

from compiler.kernels.index import Axis, Index, axes_of, bounds, index
from compiler.kernels.kernel import Guard, Kernel
from compiler.llvm.builder import Builder, Int, Val, Var, as_val, const
from compiler.llvm.contract_plan import Plan, splits, without
from compiler.llvm.dot import DotTile
from compiler.llvm.epilogue import Finish
from compiler.llvm.host import Host
from compiler.llvm.pack import Pack
from compiler.llvm.piece import Piece, finish, pointers_of
from compiler.llvm.scope import Scope
from compiler.llvm.tiles import first_row, row_axes, tile_scope

_WRITTEN_OUT = 128  # vector operations of the longest loop without a loop
_AHEAD = 12  # steps of a sum, within which numbers come from the second-level cache
# Gives the addresses of all rows' scalars at a point of the sums.
Rows = Callable[[Scope], list[str]]


def emit_contract(kernel: Kernel, plan: Plan, host: Host) -> Piece:
    """Emits tiles: sums in registers, a block of results on the stack, then the stores."""
    b = Builder(host.lanes, host.fma)
    pointers = pointers_of(kernel)
    scratch = b.alloca(f"[{plan.group * plan.mr * plan.width} x float]", 64)
    tile = DotTile(b, plan, pointers) if plan.nr else _Tile(b, plan, pointers)
    ends = Finish(b, plan, kernel, pointers)
    lo, hi = Val("%lo", "i64"), Val("%hi", "i64")
    with b.loop(lo, hi, plan.group) as first:
        last = b.imin(b.iadd(first, plan.group), hi)
        if plan.chunk:
            with b.loop(0, plan.blocks) as n:
                with b.loop(first, last) as t:
                    tile.emit(t, _block(b, plan, scratch, t, first), n)
            with b.loop(first, last) as t:
                ends.emit(t, _block(b, plan, scratch, t, first))
        else:
            tile.emit(first, scratch, 0)
            ends.emit(first, scratch)
    return finish(b, pointers, plan.tiles)


def _block(b: Builder, plan: Plan, scratch: str, t: Val, first: Val) -> str:
    return b.at(scratch, "float", b.imul(b.isub(t, first), plan.mr * plan.width))


class _Tile:
    """Sums one tile over the sum axes, or over a block of them."""

    def __init__(self, b: Builder, plan: Plan, pointers: dict[str, str]) -> None:
        self.b, self.plan, self.pointers = b, plan, pointers
        self.sums = [[b.var("float", plan.lanes) for _ in range(plan.nv)] for _ in range(plan.mr)]
        self.base = pointers[plan.scalar.buffer]
        self.pack = Pack(b, plan, pointers) if plan.packed else None
        # Of the first sum behind those that lead.
        self.range: tuple[Int, Int] = (0, plan.sums[0].size if plan.sums else 0)
        self.at: list[Scope] = []  # the scope of each row, where rows are not even

    def emit(self, t: Val, results: str, block: Int) -> None:
        """Adds block number `block` of the sums to the results of a tile."""
        b, plan = self.b, self.plan
        scope, row_tile = tile_scope(b, plan, self.pointers, t)
        begin = first_row(b, plan, row_tile)
        if plan.chunk:
            lead, cut = plan.sums[: plan.lead], plan.sums[plan.lead].size
            *at, part = b.unravel(block, [*(a.size for a in lead), -(-cut // plan.chunk)])
            start = b.imul(part, plan.chunk)
            self.range = start, b.imin(b.iadd(start, plan.chunk), cut)
            scope = scope.child(dict(zip(lead, at, strict=True)))
        if self.pack is not None:
            self.pack.fill(scope, block, *self.range)
        for var in self._vars():
            var.set(const(0.0, "float", plan.lanes))
        if plan.even:
            scope = scope.child({plan.rows[0]: begin} if plan.rows else {})
            self.at = [scope]
        else:
            self.at = []
            for r in range(plan.mr):
                row = b.imin(b.iadd(begin, r), plan.row_count - 1)
                self.at.append(scope.child(row_axes(b, plan, row)))
        free = [g for g in plan.shared() if not set(plan.sums[plan.lead :]) & axes_of(g.index)]
        self._under(scope, free, lambda inner: self._nest(inner, plan.lead, None))
        self._write(results, block)

    def _vars(self) -> list[Var]:
        return [v for row in self.sums for v in row]

    def _write(self, results: str, block: Int) -> None:
        b, plan = self.b, self.plan
        later = b.cmp("icmp sgt", as_val(block), const(0, "i64")) if plan.chunk else None
        for n, var in enumerate(self._vars()):
            at, value = b.at(results, "float", n * plan.lanes), var.get()
            if later is not None:
                old = b.load(at, "float", plan.lanes)
                zero = const(0.0, "float", plan.lanes)
                value = b.bin("fadd", b.select(later, old, zero), value)
            b.store(value, at)

    # ---- loops over the sums -----------------------------------------------------------------

    def _nest(self, scope: Scope, depth: int, rows: Rows | None) -> None:
        plan, b = self.plan, self.b
        if depth == plan.depth and rows is None:
            self._split(scope, depth)
            return
        if depth == len(plan.sums):
            assert rows is not None
            self._step(scope, rows(scope))
            return
        axis = plan.sums[depth]
        start, stop, rest = self._bounds(scope, axis, depth)
        if self._short(depth, start, stop) and not rest:
            for step in range(axis.size):
                self._nest(scope.child({axis: step}), depth + 1, rows)
            return
        with b.loop(start, stop) as k:
            self._under(scope.child({axis: k}), rest, lambda s: self._nest(s, depth + 1, rows))

    def _short(self, depth: int, start: Int, stop: Int) -> bool:
        """Tells whether the innermost loop is written out: a few steps of a kernel's window."""
        plan = self.plan
        last = depth == len(plan.sums) - 1 and plan.depth <= depth and depth > 0
        known = start == 0 and stop == plan.sums[depth].size
        return last and known and plan.sums[depth].size * plan.mr * plan.nv <= _WRITTEN_OUT

    def _under(self, scope: Scope, guards: list[Guard], emit: Callable[[Scope], None]) -> None:
        shared, by_lane = scope.holds(tuple(guards))
        assert by_lane is None
        if shared is None:
            emit(scope)
            return
        with self.b.when(shared):
            emit(scope.child({}))

    def _bounds(self, scope: Scope, axis: Axis, depth: int) -> tuple[Int, Int, list[Guard]]:
        """Narrows a loop by the guards that it is the last to decide; returns those it cannot."""
        b, later = self.b, set(self.plan.sums[depth + 1 :])
        start, stop = self.range if depth == self.plan.lead else (0, axis.size)
        rest = []
        for guard in self.plan.shared():
            used = axes_of(guard.index)
            if axis not in used or used & later:
                continue
            limits = solve(guard, axis)
            if limits is None:
                rest.append(guard)
                continue
            start = b.imax(start, scope.scalar(limits[0]))
            stop = b.imin(stop, scope.scalar(limits[1]))
        return start, stop, rest

    # ---- rows --------------------------------------------------------------------------------

    def _split(self, scope: Scope, depth: int) -> None:
        """Goes on with plain addresses where all rows are inside of their guards."""
        plan, b = self.plan, self.b
        if not plan.uneven():
            self._nest(scope, depth, self._plain_rows(scope))
            return
        inside = self._all_inside(scope)
        if inside is not None:
            with b.when(inside):
                inner = scope.child({})
                self._nest(inner, depth, self._plain_rows(inner))
            with b.when(b.negate(inside)):
                inner = scope.child({})
                self._nest(inner, depth, self._guarded_rows(inner))
        else:
            self._nest(scope, depth, self._guarded_rows(scope))

    def _all_inside(self, scope: Scope) -> Val | None:
        """Returns whether the guards of all rows hold, None where that cannot be told cheaply."""
        plan, b = self.plan, self.b
        result: Val | None = None
        for guard in plan.uneven():
            if plan.even:
                # An even axis walks straight: what holds at both ends holds between them.
                row = plan.rows[0]
                ends = [scope.axes[row], b.iadd(scope.axes[row], plan.mr - 1)]
                tests = [scope.child({row: end}).holds((guard,))[0] for end in ends]
            else:
                wide = _for_all_rows(guard, plan)
                if wide is None:
                    return None
                tests = [scope.holds((wide,))[0]]
            for test in tests:
                assert test is not None
                result = test if result is None else b.bin("and", result, test)
        return result

    def _plain_rows(self, scope: Scope) -> Rows:
        plan, b = self.plan, self.b
        if plan.even:
            return self._even_rows
        offset = plan.scalar.offset
        if not splits(offset, plan.rows, plan.sums):
            return self._rows_at(scope, guarded=False)
        # Addresses of rows once a tile, and one moving offset for all of them.
        own = without(offset, plan.sums)
        starts = [b.at(self.base, "float", at.scalar(own)) for at in self.at]
        moving = without(offset, plan.rows) - without(without(offset, plan.rows), plan.sums)
        return self._moving(starts, moving)

    def _moving(self, starts: list[str], offset: Index) -> Rows:
        def rows(scope: Scope) -> list[str]:
            moved = scope.scalar(offset)
            return [self.b.at(start, "float", moved) for start in starts]

        return rows

    def _even_rows(self, scope: Scope) -> list[str]:
        plan, b = self.plan, self.b
        at = b.at(self.base, "float", scope.scalar(plan.scalar.offset))
        return [b.at(at, "float", r * plan.step) for r in range(plan.mr)]

    def _guarded_rows(self, scope: Scope) -> Rows:
        return self._rows_at(scope, guarded=True)

    def _rows_at(self, scope: Scope, guarded: bool) -> Rows:
        """Returns rows at this point of the outer sums; zeros for those outside of their guards."""
        plan, b = self.plan, self.b
        inner = plan.sums[plan.depth :]
        offset = without(plan.scalar.offset, inner)
        starts = []
        for r in range(plan.mr):
            at = self._row_scope(scope, r)
            pointer = b.at(self.base, "float", at.scalar(offset))
            holds = at.holds(plan.uneven())[0] if guarded else None
            if holds is not None:
                zeros = self._zeros()
                pointer = b.op(f"select {holds}, ptr {pointer}, ptr {zeros}", "ptr").text
            starts.append(pointer)
        moving = index(0)
        for axis in inner:
            moving = moving + index(axis) * plan.scalar.offset.coefficient(axis)
        return self._moving(starts, moving)

    def _row_scope(self, scope: Scope, r: int) -> Scope:
        """Returns the scope of a row at this point of the sums."""
        plan = self.plan
        if plan.even:
            row = plan.rows[0]
            return scope.child({row: self.b.iadd(scope.axes[row], r)})
        return scope.child({a: self.at[r].axes[a] for a in plan.rows})

    def _zeros(self) -> str:
        size = self.plan.zeros
        kind = f"[{size} x float]"
        name = f"@zeros_{size}"
        self.b.globals.add(
            f"{name} = private unnamed_addr constant {kind} zeroinitializer, align 64"
        )
        return name

    # ---- one step ----------------------------------------------------------------------------

    def _step(self, scope: Scope, rows: list[str]) -> None:
        """sums[r][v] += scalar[r] * vector[v]."""
        plan, b = self.plan, self.b
        if self.pack is not None:
            vectors = self.pack.load(scope)
        else:
            offset = scope.scalar(plan.vector.offset)
            at = b.at(self.pointers[plan.vector.buffer], "float", offset)
            vectors = b.load_all(at, plan.nv, plan.lanes)
        if plan.across:
            ahead = _AHEAD * plan.scalar.offset.coefficient(plan.sums[-1])
            for row in (rows[0], rows[-1]):  # these may lie in two lines of a cache
                b.prefetch(b.at(row, "float", ahead))
        for row, sums in zip(rows, self.sums, strict=True):
            one = b.widen(b.load(row, "float"), plan.lanes)
            for var, vector in zip(sums, vectors, strict=True):
                var.set(b.muladd(one, vector, var.get()))


def solve(guard: Guard, axis: Axis) -> tuple[Index, Index] | None:
    """Returns the range of `axis` in which a guard holds; None if the axis is in an atom."""
    i = guard.index
    factor = i.coefficient(axis)
    rest = without(i, [axis])
    if axis in axes_of(i - index(axis) * factor):
        return None
    if factor > 0:  # ceil((limit - rest) / factor)
        low, high = (rest * -1 + (v + factor - 1) for v in (guard.low, guard.high))
        return low // factor, high // factor
    # low <= rest - m * axis < high
    low, high = rest - guard.high, rest - guard.low
    return low // -factor + 1, high // -factor + 1


def _for_all_rows(guard: Guard, plan: Plan) -> Guard | None:
    """Returns a guard on the sums alone that implies `guard` in every row."""
    if not splits(guard.index, plan.rows, plan.sums):
        return None
    others = axes_of(guard.index) - set(plan.rows)
    low, high = bounds(without(guard.index, others))
    base = without(guard.index, plan.rows)
    corner = without(base, others).const
    narrow = Guard(base, guard.low - (low - corner), guard.high - (high - corner))
    return narrow if narrow.low < narrow.high and others else None
