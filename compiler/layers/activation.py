"""Activations: one result element from one element."""

from __future__ import annotations

from dataclasses import dataclass

from compiler import ops
from compiler.ir import Node
from compiler.layers import layer
from compiler.layers.scope import Scope


@layer("ReLU")
@dataclass(frozen=True)
class ReLU:
    """x where x > 0, else negative_slope * x."""

    negative_slope: float = 0.0

    def build(self, scope: Scope, x: Node) -> Node:
        if self.negative_slope < 0:
            return ops.select(ops.less(0.0, x), x, ops.mul(x, self.negative_slope))
        return ops.relu(x, self.negative_slope)
