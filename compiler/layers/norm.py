"""Normalisation: local response normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compiler import ops
from compiler.ir import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.scope import Scope


@layer("LRN")
@dataclass(frozen=True)
class LRN:
    """x * (k + alpha / n * sum of squares around x) ** -beta; n is the number of neighbours.

    The neighbours are local_size channels, or a square of that side within one channel, where k is
    always 1 (as in Caffe). Krizhevsky et al. 2012, section 3.3, with alpha divided by n.
    """

    local_size: int = option("number of channels, or side of the square", 5, low=1, odd=True)
    alpha: float = option("weight of the squares, divided by their number", 1.0)
    beta: float = option("exponent", 0.75)
    k: float = option("what is added to the squares", 1.0)
    norm_region: Literal["ACROSS_CHANNELS", "WITHIN_CHANNEL"] = option(
        "where the neighbours are", "ACROSS_CHANNELS"
    )
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        across = self.norm_region == "ACROSS_CHANNELS"
        scope.need(x.type.rank >= 2 + (not across), "needs a bottom with more axes")
        axes = (1,) if across else tuple(range(2, x.type.rank))
        extent = tuple(x.shape[a] for a in axes)
        n, ones = self.local_size, (1,) * len(axes)
        window = ops.Window(axes, (n,) * len(axes), ones, (n // 2,) * len(axes), extent, extent)
        squares = ops.pool_sum(ops.mul(x, x), window)
        k = self.k if across else 1.0
        scale = ops.add(ops.mul(squares, self.alpha / n ** len(axes)), k)
        return ops.mul(x, ops.pow_(scale, -self.beta))
