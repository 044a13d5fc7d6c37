"""Dense layers: every output sees every input."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.params import Filler

BATCH, INNER = "nmpqrst", "chwdefgab"


@layer("InnerProduct")
@dataclass(frozen=True)
class InnerProduct:
    """x @ weight.T + bias over all axes from `axis` on; weight is (num_output, inputs)."""

    num_output: int = option("number of outputs", low=1)
    bias_term: bool = option("whether a bias is added", True)
    weight_filler: Filler = option("first values of the weights", Filler())
    bias_filler: Filler = option("first values of the bias", Filler())
    axis: int = option("first axis that is summed over; the ones before it stay", 1)
    transpose: bool = option("store the weights as (inputs, num_output)", False)

    def build(self, scope: Scope, x: Node) -> Node:
        axis = scope.axis(self.axis, x.type.rank)
        scope.need(x.type.rank <= len(BATCH), "has a bottom of too many axes")
        batch, inner = BATCH[:axis], INNER[: x.type.rank - axis]
        count, o = math.prod(x.shape[axis:]), self.num_output
        # The weight is viewed with the bottom's own axes, so that no flatten stands between.
        if self.transpose:
            shape, view, labels = (count, o), (*x.shape[axis:], o), f"{inner}o"
        else:
            shape, view, labels = (o, count), (o, *x.shape[axis:]), f"o{inner}"
        weight = scope.param("weight", shape, self.weight_filler, view)
        scope.macs += x.type.size * o
        y = ops.contract(x, weight, f"{batch}{inner},{labels}->{batch}o")
        if not self.bias_term:
            return y
        return ops.add(y, ops.expand_like(scope.param("bias", (o,), self.bias_filler), y, axis))
