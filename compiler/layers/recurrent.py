"""Recurrent layers: RNN and LSTM as Caffe has them, and GRU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.params import Filler

OUTPUTS = "number of outputs of each time step"
REVERSE = "go through the sequence from its end to its start"


@dataclass(frozen=True)
class _Recurrent:
    """What the layers share: sequences (T, N, ...), marks of where one begins, static input.

    Bottoms are x (T, N, ...), cont (T, N), 0 where a new sequence begins and 1 elsewhere, and a
    static input (N, ...) that every time step sees. The state before the first step is what the
    last batch has left.
    """

    num_output: int = option(OUTPUTS, low=1)
    weight_filler: Filler = option("first values of the weights", Filler())
    bias_filler: Filler = option("first values of the bias", Filler())
    expose_hidden: bool = option("initial states are bottoms and final ones tops", False)
    debug_info: bool = option("is read and has no effect", False)
    reverse: bool = option(REVERSE, False)

    def _bottoms(self, scope: Scope, rest: tuple[Node, ...]) -> tuple[Node | None, ...]:
        """Returns cont, the static input and the initial states, as far as there are any."""
        states = len(self._states()) if self.expose_hidden else 0
        if len(rest) < states:
            names = ", ".join(f"{name}_0" for name in self._states())
            verb = "is" if states == 1 else "are"
            hint = f"bottom: [x, {names}], or with marks [x, cont, {names}]"
            message = f"expose_hidden: {names} {verb} missing among its bottoms"
            scope.error(message, "expose_hidden", hint)
        others, initial = rest[: len(rest) - states], rest[len(rest) - states :]
        if len(others) > 2:
            scope.error(f"has {len(rest) + 1} bottoms, takes at most {3 + states}")
        cont, static = (*others, None, None)[:2]
        return (cont, static, *initial)

    def _states(self) -> tuple[str, ...]:
        return ("h",)

    def _check(self, scope: Scope, x: Node, cont: Node | None, static: Node | None) -> None:
        if x.type.rank < 3:
            message = f"its first bottom must be a sequence (T, N, ...): {scope.bottoms[0]}"
            scope.error(message, hint="one sequence has N = 1", span=scope.bottom(0))
        if cont is not None and cont.shape != x.shape[:2]:
            hint = "one mark for each step of each sequence: 0 where a new one begins"
            message = f"cont must be {x.shape[:2]}, (T, N), not {scope.bottoms[1]}"
            scope.error(message, hint=hint, span=scope.bottom(1))
        if static is not None:
            self._check_static(scope, x, static)

    def _check_static(self, scope: Scope, x: Node, static: Node) -> None:
        if static.shape[0] != x.shape[1]:
            message = f"the static input must be (N, ...) with N = {x.shape[1]}"
            hint = "one for each sequence: every time step sees it"
            scope.error(f"{message}, not {scope.bottoms[2]}", hint=hint, span=scope.bottom(2))

    def _projected(self, scope: Scope, x: Node, static: Node | None, gates: int) -> Node:
        """Returns W_x x_t + b (+ W_s x_static): all steps at once, outside of the loop."""
        count = gates * self.num_output
        y = dense(scope, "weight_x", x, 2, count, self.weight_filler)
        y = ops.add(y, ops.expand_like(scope.param("bias", (count,), self.bias_filler), y, 2))
        if static is not None:
            s = dense(scope, "weight_static", static, 1, count, self.weight_filler)
            y = ops.add(y, ops.broadcast(ops.reshape(s, (1, *s.shape)), y.shape))
        return y

    def _before(self, scope: Scope, name: str, x: Node, initial: Node | None) -> Node:
        """Returns a state one step earlier: (T, N, num_output)."""
        shape = (*x.shape[:2], self.num_output)
        if initial is not None:
            start = (1, *shape[1:])
            at = self._states().index(name) - len(self._states()) + len(scope.bottoms)
            message = f"the initial state '{name}_0' must be {start}, not {scope.bottoms[at]}"
            if initial.shape not in (start, start[1:]):
                scope.error(message, hint="(1, N, num_output)", span=scope.bottom(at))
            initial = ops.reshape(initial, start)
        return scope.before(name, shape, initial, reverse=self.reverse)

    def _final(self, sequence: Node) -> Node:
        """Returns the state after the last step: (1, N, num_output)."""
        at = 0 if self.reverse else sequence.shape[0] - 1
        return ops.slice_axis(sequence, 0, at, at + 1)


def dense(scope: Scope, name: str, x: Node, axis: int, count: int, filler: Filler) -> Node:
    """x @ weight.T over all axes from `axis` on; the weight is (count, inputs)."""
    flat = x.type.size // _product(x.shape[:axis])
    weight = scope.param(name, (count, flat), filler)
    scope.macs += x.type.size * count
    rows = ops.reshape(x, (*x.shape[:axis], flat))
    batch = "nm"[:axis]
    return ops.contract(rows, weight, f"{batch}c,oc->{batch}o")


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def kept(value: Node, cont: Node | None) -> Node:
    """Returns what a step takes over from the one before: nothing where a sequence begins.

    cont is one number a row, so it may as well scale the product with a weight as its factor.
    """
    if cont is None:
        return value
    marks = ops.reshape(ops.stop(cont), (*cont.shape, 1))
    return ops.mul(value, ops.broadcast(marks, value.shape))


@layer("RNN")
@dataclass(frozen=True)
class RNN(_Recurrent):
    """h_t = tanh(W_hh h_{t-1} + W_xh x_t + b_h), and o_t = tanh(W_ho h_t + b_o) as the output."""

    def build(self, scope: Scope, x: Node, *rest: Node) -> tuple[Node, ...]:
        cont, static, *initial = self._bottoms(scope, rest)
        self._check(scope, x, cont, static)
        xs = self._projected(scope, x, static, 1)
        before = self._before(scope, "h", x, *initial[:1] or (None,))
        past = dense(scope, "weight_h", before, 2, self.num_output, self.weight_filler)
        h = scope.recur(before, ops.tanh(ops.add(xs, kept(past, cont))))
        o = dense(scope, "weight_o", h, 2, self.num_output, self.weight_filler)
        bias = scope.param("bias_o", (self.num_output,), self.bias_filler)
        out = ops.tanh(ops.add(o, ops.expand_like(bias, o, 2)))
        return (out, self._final(h)) if self.expose_hidden else (out,)


@layer("LSTM")
@dataclass(frozen=True)
class LSTM(_Recurrent):
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t); the gates' order in the weights is i, f, o, g."""

    def _states(self) -> tuple[str, ...]:
        return ("h", "c")

    def build(self, scope: Scope, x: Node, *rest: Node) -> tuple[Node, ...]:
        cont, static, *initial = self._bottoms(scope, rest)
        self._check(scope, x, cont, static)
        size, (h_0, c_0) = self.num_output, (*initial, None, None)[:2]
        xs = self._projected(scope, x, static, 4)
        h_before, c_before = self._before(scope, "h", x, h_0), self._before(scope, "c", x, c_0)
        past = dense(scope, "weight_h", h_before, 2, 4 * size, self.weight_filler)
        gates = ops.add(xs, kept(past, cont))
        i, f, o, g = (ops.slice_axis(gates, 2, k * size, (k + 1) * size) for k in range(4))
        kept_c = ops.mul(ops.sigmoid(f), kept(c_before, cont))
        c = scope.recur(c_before, ops.add(kept_c, ops.mul(ops.sigmoid(i), ops.tanh(g))))
        h = scope.recur(h_before, ops.mul(ops.sigmoid(o), ops.tanh(c)))
        return (h, self._final(h), self._final(c)) if self.expose_hidden else (h,)


@layer("GRU")
@dataclass(frozen=True)
class GRU(_Recurrent):
    """h_t = z h_{t-1} + (1 - z) n; the gates' order in the weights is z, r, n.

    reset BEFORE (Cho et al. 2014): n = tanh(W_n x_t + b_n + U_n (r h_{t-1})). reset AFTER (cuDNN):
    n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + c_n)), one product a step.
    """

    reset: Literal["AFTER", "BEFORE"] = option(
        "whether the reset gate works before or after the product with the last state", "AFTER"
    )

    def build(self, scope: Scope, x: Node, *rest: Node) -> tuple[Node, ...]:
        cont, static, *initial = self._bottoms(scope, rest)
        self._check(scope, x, cont, static)
        size = self.num_output
        xs = self._projected(scope, x, static, 3)
        before = self._before(scope, "h", x, *initial[:1] or (None,))
        xz, xr, xn = (ops.slice_axis(xs, 2, k * size, (k + 1) * size) for k in range(3))
        if self.reset == "AFTER":
            past = kept(dense(scope, "weight_h", before, 2, 3 * size, self.weight_filler), cont)
            hz, hr, hn = (ops.slice_axis(past, 2, k * size, (k + 1) * size) for k in range(3))
            bias = scope.param("bias_h", (size,), self.bias_filler)
            r = ops.sigmoid(ops.add(xr, hr))
            n = ops.tanh(ops.add(xn, ops.mul(r, ops.add(hn, ops.expand_like(bias, hn, 2)))))
        else:
            past = kept(dense(scope, "weight_h", before, 2, 2 * size, self.weight_filler), cont)
            hz, hr = (ops.slice_axis(past, 2, k * size, (k + 1) * size) for k in range(2))
            r = ops.sigmoid(ops.add(xr, hr))
            inner = ops.mul(r, kept(before, cont))
            hn = dense(scope, "weight_n", inner, 2, size, self.weight_filler)
            n = ops.tanh(ops.add(xn, hn))
        z = ops.sigmoid(ops.add(xz, hz))
        new = ops.add(ops.mul(z, ops.sub(kept(before, cont), n)), n)
        h = scope.recur(before, new)
        return (h, self._final(h)) if self.expose_hidden else (h,)
