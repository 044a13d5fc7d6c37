"""Turns index expressions, guards, loads and stores into scalars and vectors at one point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from compiler.kernels.index import Axis, Div, Index, axes_of, bounds
from compiler.kernels.kernel import (
    SCALAR_BUFFER,
    SCALARS,
    Acc,
    Const,
    Expr,
    Guarded,
    Guards,
    Load,
    Op,
    Position,
    Random,
    Store,
)
from compiler.llvm.builder import Builder, Int, Val, as_val, const, constants, number, vector
from compiler.llvm.math import philox_uniform
from compiler.llvm.ops import ELEM, cast, emit_op

MEMORY = {**ELEM, "u8": "i8", "bool": "i8"}


class Scope:
    """Values at one point of a kernel, or at `lanes` neighbouring points along the axis `vec`.

    `axes` says where each axis stands (`vec`: its first lane); `mask`, if any, tells which lanes
    exist. What a parent scope has computed is reused in its children.
    """

    def __init__(
        self,
        b: Builder,
        pointers: Mapping[str, str],
        axes: Mapping[Axis, Int],
        vec: Axis | None = None,
        lanes: int = 1,
        mask: Val | None = None,
        parent: Scope | None = None,
    ) -> None:
        self.b, self.pointers, self.axes = b, pointers, axes
        self.vec, self.lanes, self.mask, self.parent = vec, lanes, mask, parent
        self.accs: dict[int, Val] = dict(parent.accs) if parent else {}
        self._memo: dict[Expr, Val] = {}

    def child(self, axes: Mapping[Axis, Int]) -> Scope:
        """Returns the scope of a loop body inside this one."""
        inner = {**self.axes, **axes}
        return Scope(self.b, self.pointers, inner, self.vec, self.lanes, self.mask, self)

    def along(self, vec: Axis, first: Int, lanes: int, mask: Val | None = None) -> Scope:
        """Returns a scope of `lanes` points along a further axis."""
        assert self.vec is None
        inner = {**self.axes, vec: first}
        return Scope(self.b, self.pointers, inner, vec, lanes, mask, self)

    # ---- indices -----------------------------------------------------------------------------

    def scalar(self, i: Index) -> Int:
        """Returns the index at the first lane."""
        total: Int = i.const
        for atom, factor in i.terms:
            total = self.b.iadd(total, self.b.imul(self._atom(atom), factor))
        return total

    def _atom(self, atom: Any) -> Int:
        if isinstance(atom, Axis):
            return self.axes[atom]
        low, high = bounds(atom.of)
        # Unsigned division needs no correction: move the range above 0 by a multiple of `by`.
        shift = max(0, -(low // atom.by))
        moved = self.b.iadd(self.scalar(atom.of), shift * atom.by)
        quotient, rest = self.b.idivmod(moved, atom.by, high + shift * atom.by < 2**31)
        return self.b.isub(quotient, shift) if isinstance(atom, Div) else rest

    def stride(self, i: Index) -> int | None:
        """Returns how much the index grows from lane to lane; None if not evenly."""
        if self.vec is None or self.vec not in axes_of(i):
            return 0
        for atom, _ in i.terms:
            if not isinstance(atom, Axis) and self.vec in axes_of(atom.of):
                return None
        return i.coefficient(self.vec)

    def vector(self, i: Index) -> Val:
        """Returns the index in every lane, as i32."""
        b = self.b
        even = Index(i.const, tuple(t for t in i.terms if self.stride(Index(0, (t,))) is not None))
        total = b.widen(b.convert("trunc", as_val(self.scalar(even)), "i32"), self.lanes)
        step = self.stride(even)
        if step:
            total = b.bin("add", total, constants([step * n for n in range(self.lanes)], "i32"))
        for atom, factor in i.terms:
            if self.stride(Index(0, ((atom, 1),))) is None:
                part = self._vector_atom(atom)
                total = b.bin("add", total, b.bin("mul", part, const(factor, "i32", self.lanes)))
        return total

    def _vector_atom(self, atom: Any) -> Val:
        b = self.b
        shift = max(0, -(bounds(atom.of)[0] // atom.by))
        by = const(atom.by, "i32", self.lanes)
        moved = b.bin("add", self.vector(atom.of), const(shift * atom.by, "i32", self.lanes))
        if isinstance(atom, Div):
            return b.bin("sub", b.bin("udiv", moved, by), const(shift, "i32", self.lanes))
        return b.bin("urem", moved, by)

    def holds(self, guards: Guards) -> tuple[Val | None, Val | None]:
        """Returns whether all guards hold: what all lanes share, and what differs by lane."""
        shared: Val | None = None
        by_lane: Val | None = None
        for guard in guards:
            if self.stride(guard.index) == 0:
                shared = self._inside(shared, as_val(self.scalar(guard.index)), guard)
            else:
                by_lane = self._inside(by_lane, self.vector(guard.index), guard)
        return shared, by_lane

    def _inside(self, so_far: Val | None, value: Val, guard: Any) -> Val:
        b = self.b
        # low <= v < high is one unsigned comparison.
        moved = b.bin("sub", value, const(guard.low, value.elem))
        test = b.cmp("icmp ult", moved, const(max(0, guard.high - guard.low), value.elem))
        return test if so_far is None else b.bin("and", so_far, test)

    # ---- values ------------------------------------------------------------------------------

    def value(self, e: Expr) -> Val:
        """Emits an expression, unless it or its like was emitted before."""
        if isinstance(e, Acc):
            return self.accs[e.id]
        if isinstance(e, Const):
            return const(e.value, ELEM[e.dtype])
        scope: Scope | None = self
        while scope is not None:
            if e in scope._memo:
                return scope._memo[e]
            scope = scope.parent
        made = self._emit(e)
        self._memo[e] = made
        return made

    def _emit(self, e: Expr) -> Val:
        if isinstance(e, Load):
            return self._load(e)
        if isinstance(e, Op):
            args = tuple(self.value(a) for a in e.args)
            return emit_op(self.b, e.name, args, e.dtype, e.attrs)
        if isinstance(e, Position):
            return self._position(e.index)
        if isinstance(e, Guarded):
            value = self.value(e.value)
            other = const(e.other, value.elem, value.lanes)
            for condition in self.holds(e.guards):
                if condition is not None:
                    value = self.b.select(condition, value, other)
            return value
        assert isinstance(e, Random), e
        words = []
        for name in ("iteration", "seed_lo", "seed_hi"):
            at = self.b.at(self.pointers[SCALAR_BUFFER], "i32", SCALARS[name][0])
            words.append(self.b.load(at, "i32"))
        element = self._position(e.element)
        return philox_uniform(self.b, element, (words[0], words[1], words[2]), e.stream)

    def _position(self, i: Index) -> Val:
        if self.stride(i) == 0:
            return self.b.convert("trunc", as_val(self.scalar(i)), "i32")
        return self.vector(i)

    # ---- memory ------------------------------------------------------------------------------

    def _load(self, e: Load) -> Val:
        shared, by_lane = self.holds(e.guards)
        stride, elem = self.stride(e.offset), MEMORY[e.dtype]
        if stride == 0 or self.lanes == 1:
            value = self._load_one(e, elem, shared, by_lane)
        elif stride == 1:
            value = self._load_row(e, elem, shared, by_lane)
        else:
            value = self._gather(e, elem, shared, by_lane)
        return cast(self.b, value, ELEM[e.dtype])

    def _address(self, e: Load, elem: str, shared: Val | None) -> str:
        """Where to load from: a block of `other` where the guards that all lanes share fail."""
        b = self.b
        at = b.at(self.pointers[e.buffer], elem, self.scalar(e.offset))
        if shared is None:
            return at
        return b.op(f"select {shared}, ptr {at}, ptr {self.pad(e.other, elem)}", "ptr").text

    def pad(self, other: float, elem: str) -> str:
        """Returns a constant block of one vector of a value."""
        text = number(other, elem)
        name = f"@pad_{elem}_{text.replace('-', 'm')}_{self.b.lanes}"
        inner = ", ".join([f"{elem} {text}"] * self.b.lanes)
        kind = f"[{self.b.lanes} x {elem}]"
        self.b.globals.add(f"{name} = private unnamed_addr constant {kind} [{inner}], align 64")
        return name

    def _load_one(self, e: Load, elem: str, shared: Val | None, by_lane: Val | None) -> Val:
        b = self.b
        if by_lane is None:
            return b.load(self._address(e, elem, shared), elem)
        kind = by_lane.type
        some = b.call(
            f"llvm.vector.reduce.or.v{self.lanes}i1", "i1", "i1", 1, f"{kind} {by_lane.text}"
        )
        both = some if shared is None else b.bin("and", shared, some)
        value = b.load(self._address(e, elem, both), elem)
        mask = by_lane if shared is None else b.bin("and", shared, by_lane)
        return b.select(mask, value, const(e.other, elem))

    def _mask(self, *parts: Val | None) -> Val | None:
        mask: Val | None = None
        for part in parts:
            if part is not None:
                mask = part if mask is None else self.b.bin("and", mask, part)
        return None if mask is None else self.b.widen(mask, self.lanes)

    def _load_row(self, e: Load, elem: str, shared: Val | None, by_lane: Val | None) -> Val:
        b, n = self.b, self.lanes
        at = self._address(e, elem, shared)
        mask = self._mask(by_lane, self.mask)
        if mask is None:
            return b.load(at, elem, n)
        kind, other = vector(elem, n), const(e.other, elem, n)
        size = max(1, int(elem != "i8") * 4)
        return b.call(
            f"llvm.masked.load.{_suffix(elem, n)}.p0", kind, elem, n,
            f"ptr {at}", f"i32 {size}", str(mask), str(other),
        )  # fmt: skip

    def _addresses(self, buffer: str, offset: Index, elem: str) -> str:
        index = self.vector(offset)
        base = self.pointers[buffer]
        return self.b.op(f"getelementptr {elem}, ptr {base}, {index}", "ptr").text

    def _gather(self, e: Load, elem: str, shared: Val | None, by_lane: Val | None) -> Val:
        b, n = self.b, self.lanes
        mask = self._mask(shared, by_lane, self.mask) or const(True, "i1", n)
        kind, other = vector(elem, n), const(e.other, elem, n)
        size = max(1, int(elem != "i8") * 4)
        return b.call(
            f"llvm.masked.gather.{_suffix(elem, n)}.v{n}p0", kind, elem, n,
            f"<{n} x ptr> {self._addresses(e.buffer, e.offset, elem)}", f"i32 {size}",
            str(mask), str(other),
        )  # fmt: skip

    def store(self, s: Store, value: Val) -> None:
        """Writes a value of this point."""
        b, n, elem = self.b, self.lanes, MEMORY[s.dtype]
        value = cast(b, value, elem)
        stride = self.stride(s.offset)
        at = b.at(self.pointers[s.buffer], elem, self.scalar(s.offset))
        if n == 1 or stride == 0:
            b.store(value, at)
            return
        value = b.widen(value, n)
        size = max(1, int(elem != "i8") * 4)
        if stride == 1 and self.mask is None:
            b.store(value, at)
        elif stride == 1:
            name = f"llvm.masked.store.{_suffix(elem, n)}.p0"
            self._void(name, str(value), f"ptr {at}", f"i32 {size}", str(self.mask))
        else:
            addresses = f"<{n} x ptr> {self._addresses(s.buffer, s.offset, elem)}"
            mask = self.mask or const(True, "i1", n)
            name = f"llvm.masked.scatter.{_suffix(elem, n)}.v{n}p0"
            self._void(name, str(value), addresses, f"i32 {size}", str(mask))

    def _void(self, name: str, *args: str) -> None:
        self.b.declare(name, "void", args)
        self.b.void(f"call void @{name}({', '.join(args)})")

    def store_all(self, stores: Iterable[Store]) -> None:
        """Writes several values of this point, all computed before the first is written."""
        values = [(s, self.value(s.value)) for s in stores]
        for s, value in values:
            self.store(s, value)


def _suffix(elem: str, lanes: int) -> str:
    return f"v{lanes}{'f32' if elem == 'float' else 'f64' if elem == 'double' else elem}"
