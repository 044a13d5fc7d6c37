"""Activations: one result element from one element."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.params import Filler

Engine = Literal["DEFAULT", "CAFFE", "CUDNN"]
ENGINE_DOC = "accepted and ignored: the backend is chosen when the net is compiled"


@layer("ReLU")
@dataclass(frozen=True)
class ReLU:
    """x where x > 0, else negative_slope * x."""

    negative_slope: float = option("slope left of zero", 0.0)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        if self.negative_slope < 0:
            return ops.select(ops.less(0.0, x), x, ops.mul(x, self.negative_slope))
        return ops.relu(x, self.negative_slope)


@layer("Sigmoid")
@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-x))."""

    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        return ops.sigmoid(x)


@layer("TanH")
@dataclass(frozen=True)
class TanH:
    """The hyperbolic tangent."""

    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        return ops.tanh(x)


@layer("Dropout")
@dataclass(frozen=True)
class Dropout:
    """In training, zeroes elements at random and scales the others by 1 / (1 - dropout_ratio)."""

    dropout_ratio: float = option("share of elements that become zero", 0.5, low=0, below=1)

    def build(self, scope: Scope, x: Node) -> Node:
        if not scope.training or self.dropout_ratio == 0:
            return x
        dropped = ops.less(ops.random(scope.stream(), x.shape), self.dropout_ratio)
        return ops.select(dropped, 0.0, ops.mul(x, 1 / (1 - self.dropout_ratio)))


@layer("ReLU6")
@dataclass(frozen=True)
class ReLU6:
    """min(max(x, 0), 6)."""

    def build(self, scope: Scope, x: Node) -> Node:
        return ops.minimum(ops.relu(x), 6.0)


@layer("PReLU")
@dataclass(frozen=True)
class PReLU:
    """x where x > 0, else slope * x, with a learned slope for each channel or one for all."""

    filler: Filler = option("first values of the slope", Filler(value=0.25))
    channel_shared: bool = option("one slope for all channels", False)

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank >= 2, "needs a bottom with channels")
        shape = () if self.channel_shared else (x.shape[1],)
        slope = ops.expand_like(scope.param("slope", shape, self.filler), x, len(shape))
        return ops.select(ops.less(0.0, x), x, ops.mul(slope, x))


@layer("ELU")
@dataclass(frozen=True)
class ELU:
    """x where x > 0, else alpha * (exp(x) - 1)."""

    alpha: float = option("where it tends to on the left, negated", 1.0)

    def build(self, scope: Scope, x: Node) -> Node:
        # The minimum keeps exp in range where it is not chosen; of equals x gets the gradient.
        left = ops.mul(ops.sub(ops.exp(ops.minimum(0.0, x)), 1.0), self.alpha)
        return ops.select(ops.less(0.0, x), x, left)


@layer("AbsVal")
@dataclass(frozen=True)
class AbsVal:
    """|x|."""

    def build(self, scope: Scope, x: Node) -> Node:
        return ops.abs_(x)


@layer("Power")
@dataclass(frozen=True)
class Power:
    """(shift + scale * x) ** power; the constant shift ** power where scale or power is 0."""

    power: float = option("exponent", 1.0)
    scale: float = option("factor of x", 1.0)
    shift: float = option("what is added to it", 0.0)

    def build(self, scope: Scope, x: Node) -> Node:
        if self.scale == 0 or self.power == 0:
            return ops.broadcast(ops.const(self._constant(scope)), x.shape)
        y = _affine(x, self.scale, self.shift)
        if self.power == 2:
            return ops.mul(y, y)
        return ops.pow_(y, self.power) if self.power != 1 else y

    def _constant(self, scope: Scope) -> float:
        try:
            return math.pow(self.shift, self.power)
        except (ValueError, OverflowError):
            scope.error(f"{self.shift:g} ** {self.power:g} is not a number", "power")


@layer("Exp")
@dataclass(frozen=True)
class Exp:
    """base ** (shift + scale * x)."""

    base: float = option("-1 for e, or more than 0", -1.0)
    scale: float = option("factor of x", 1.0)
    shift: float = option("what is added to it", 0.0)

    def build(self, scope: Scope, x: Node) -> Node:
        log = _log_base(scope, self.base)
        return ops.exp(_affine(x, self.scale * log, self.shift * log))


@layer("Log")
@dataclass(frozen=True)
class Log:
    """The logarithm of shift + scale * x to a base."""

    base: float = option("-1 for e, or more than 0", -1.0)
    scale: float = option("factor of x", 1.0)
    shift: float = option("what is added to it", 0.0)

    def build(self, scope: Scope, x: Node) -> Node:
        log = _log_base(scope, self.base)
        if log == 0:
            scope.error("there is no logarithm to base 1", "base")
        y = ops.log(_affine(x, self.scale, self.shift))
        return y if log == 1 else ops.mul(y, 1 / log)


@layer("BNLL")
@dataclass(frozen=True)
class BNLL:
    """log(1 + exp(x))."""

    def build(self, scope: Scope, x: Node) -> Node:
        # max(x, 0) + log(1 + exp(-|x|)): the maximum as (x + |x|) / 2, whose slope at 0 is 1/2.
        size = ops.abs_(x)
        right = ops.mul(ops.add(x, size), 0.5)
        return ops.add(right, ops.log(ops.add(ops.exp(ops.neg(size)), 1.0)))


@layer("Threshold")
@dataclass(frozen=True)
class Threshold:
    """1 where x > threshold, else 0; there is no gradient."""

    threshold: float = option("what x must be more than", 0.0)

    def build(self, scope: Scope, x: Node) -> Node:
        return ops.select(ops.less(self.threshold, x), 1.0, 0.0)


@layer("Clip")
@dataclass(frozen=True)
class Clip:
    """x held between min and max."""

    min: float = option("the least value")
    max: float = option("the greatest value")

    def build(self, scope: Scope, x: Node) -> Node:
        if self.max < self.min:
            scope.error(f"max {self.max:g} is less than min {self.min:g}", "max")
        # Of equals the second source gets the gradient: x at both ends, as in Caffe.
        return ops.minimum(self.max, ops.maximum(self.min, x))


@layer("Swish")
@dataclass(frozen=True)
class Swish:
    """x * sigmoid(beta * x)."""

    beta: float = option("how steep it is", 1.0)

    def build(self, scope: Scope, x: Node) -> Node:
        return ops.mul(x, ops.sigmoid(ops.mul(x, self.beta) if self.beta != 1 else x))


@layer("GELU")
@dataclass(frozen=True)
class GELU:
    """x * (1 + erf(x / sqrt(2))) / 2 (Hendrycks and Gimpel 2016): x times the normal CDF of x."""

    def build(self, scope: Scope, x: Node) -> Node:
        cdf = ops.mul(ops.add(ops.erf(ops.mul(x, math.sqrt(0.5))), 1.0), 0.5)
        return ops.mul(x, cdf)


def _affine(x: Node, scale: float, shift: float) -> Node:
    x = ops.mul(x, scale) if scale != 1 else x
    return ops.add(x, shift) if shift else x


def _log_base(scope: Scope, base: float) -> float:
    """Returns the natural logarithm of a base; -1 stands for e."""
    if base != -1 and base <= 0:
        scope.error(f"base {base:g} must be -1 (for e) or more than 0", "base")
    return 1.0 if base == -1 else math.log(base)
