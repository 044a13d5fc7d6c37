"""Accumulators of Reduces: sum, max and argmax, in lanes or not, in partial sums where long."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.kernels.index import Axis, index
from compiler.kernels.kernel import Const, Expr, Load, Op, Position, Reduce, load_axes, walk
from compiler.llvm.builder import Builder, Val, const, constants
from compiler.llvm.math import maximum
from compiler.llvm.ops import ELEM
from compiler.llvm.scope import Scope


class Fold:
    """The running value of one Reduce, and for argmax the payload that belongs to it."""

    def __init__(self, b: Builder, reduce: Reduce, lanes: int) -> None:
        self.b, self.reduce, self.lanes = b, reduce, lanes
        self.elem = ELEM[reduce.value.dtype if reduce.op == "argmax" else reduce.dtype]
        self.best = b.var(self.elem, lanes)
        self.place = b.var("i32", lanes) if reduce.op == "argmax" else None

    def another(self) -> Fold:
        """Returns an empty accumulator of the same kind."""
        made = Fold(self.b, self.reduce, self.lanes)
        made.clear()
        return made

    def _identity(self) -> Val:
        if self.reduce.op == "sum":
            return const(0, self.elem, self.lanes)
        low = -math.inf if self.elem in ("float", "double") else -(2**31)
        return const(low, self.elem, self.lanes)

    def clear(self, first: Scope | None = None) -> None:
        """Empties it; `first` is the scope of the first point, argmax's answer if all are -inf."""
        self.best.set(self._identity())
        if self.place is not None and first is not None:
            assert self.reduce.payload is not None
            self.place.set(first.value(self.reduce.payload))

    def add(self, scope: Scope) -> None:
        """Folds in the value at a point; lanes that do not exist count as nothing."""
        chosen = choice(self.reduce)
        if chosen is not None:
            condition, value = chosen
            here = scope.value(condition)
            if here.lanes == 1:  # the same in all lanes: what does not count is not even read
                with self.b.when(here):
                    self._add(scope.child({}), value)
                return
        self._add(scope, self.reduce.value)

    def _add(self, scope: Scope, expr: Expr) -> None:
        reduce, b = self.reduce, self.b
        fused = self._fused(expr, scope)
        if fused is not None:
            self.best.set(fused)
            return
        value = scope.value(expr)
        if _short(scope, reduce):
            assert scope.mask is not None
            value = b.select(scope.mask, value, self._identity())
        self._take(value, None if self.place is None else scope.value(_payload(reduce)))

    def _fused(self, value: Expr, scope: Scope) -> Val | None:
        if not (isinstance(value, Op) and value.name == "mul" and self.elem == "float"):
            return None
        if self.reduce.op != "sum" or _short(scope, self.reduce):
            return None
        x, y = (scope.value(a) for a in value.args)
        return self.b.muladd(x, y, self.best.get())

    def merge(self, other: Fold) -> None:
        self._take(other.best.get(), other.place.get() if other.place else None)

    def _take(self, value: Val, place: Val | None) -> None:
        b, best = self.b, self.best.get()
        if self.reduce.op == "sum":
            self.best.set(b.bin("fadd" if self.elem in ("float", "double") else "add", best, value))
        elif self.place is None:
            if self.elem in ("float", "double"):
                self.best.set(maximum(b, best, value))
            else:
                self.best.set(b.select(b.cmp("icmp sgt", best, value), best, value))
        else:
            assert place is not None
            more = b.cmp("fcmp ogt" if self.elem == "float" else "icmp sgt", value, best)
            self.best.set(b.select(more, value, best))
            self.place.set(b.select(more, place, self.place.get()))

    def result(self) -> Val:
        return self.best.get() if self.place is None else self.place.get()

    def total(self) -> Val:
        """Returns all lanes folded to one, halves onto halves: always in the same order."""
        b, value, lanes = self.b, self.best.get(), self.lanes
        assert self.place is None
        while lanes > 1:
            lanes //= 2
            halves = [lanes_of(b, value, lanes, start) for start in (0, lanes)]
            if self.reduce.op == "sum":
                op = "fadd" if self.elem in ("float", "double") else "add"
                value = b.bin(op, halves[0], halves[1])
            elif self.elem in ("float", "double"):
                value = maximum(b, halves[0], halves[1])
            else:
                value = b.select(b.cmp("icmp sgt", *halves), *halves)
        return value


def choice(reduce: Reduce) -> tuple[Expr, Expr] | None:
    """Returns the condition and the value of a sum to which some steps add nothing."""
    value = reduce.value
    if reduce.op == "sum" and isinstance(value, Op) and value.name == "select":
        condition, chosen, other = value.args
        if isinstance(other, Const) and other.value == 0:
            return condition, chosen
    return None


def only_step(reduce: Reduce, axis: Axis) -> Expr | None:
    """Returns the one position along `axis` that adds to a sum; None if there may be several."""
    condition = (choice(reduce) or (None,))[0]
    if not isinstance(condition, Op) or condition.name != "equal":
        return None
    wanted, place = condition.args
    at_axis = isinstance(place, Position) and place.index == index(axis)
    used = {a for e in walk(wanted) if isinstance(e, Load) for a in load_axes(e)}
    plain = all(isinstance(e, Load | Op) for e in walk(wanted))
    return wanted if at_axis and plain and axis not in used else None


def _short(scope: Scope, reduce: Reduce) -> bool:
    """Tells whether lanes that do not exist would be folded in."""
    return scope.mask is not None and scope.vec in reduce.axes


def _payload(reduce: Reduce) -> Expr:
    assert reduce.payload is not None
    return reduce.payload


def lanes_of(b: Builder, value: Val, lanes: int, start: int) -> Val:
    if lanes == 1:
        return b.op(f"extractelement {value}, i64 {start}", value.elem)
    picked = constants(list(range(start, start + lanes)), "i32")
    return b.op(f"shufflevector {value}, {value.type} poison, {picked}", value.elem, lanes)


def folds_for(b: Builder, reduces: Sequence[Reduce], lanes: int) -> list[Fold]:
    return [Fold(b, r, lanes) for r in reduces]
