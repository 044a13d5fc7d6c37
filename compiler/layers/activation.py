"""Activations: one result element from one element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compiler import ops
from compiler.ir import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope

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
