"""Spatial pyramid pooling: a vector of one length from images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.pool import pooled
from compiler.layers.scope import Scope
from compiler.layers.sliding import Axis


@layer("SPP")
@dataclass(frozen=True)
class SPP:
    """Pools into 1, 2 x 2, 4 x 4, ... bins and joins them flat (He et al. 2014).

    The top is (N, C * (4 ** pyramid_height - 1) / 3); of one level alone it is (N, C, 1, 1).
    """

    pyramid_height: int = option("number of levels", low=1)
    pool: Literal["MAX", "AVE", "STOCHASTIC"] = option("what is taken of a bin", "MAX")
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank == 4, "needs a bottom (N, C, H, W)")
        levels = []
        for level in range(self.pyramid_height):
            bins = 2**level
            axes = [_bins(scope, n, bins) for n in x.shape[2:]]
            (y, *_) = pooled(scope, x, self.pool, (2, 3), axes, (bins, bins))
            levels.append(y)
        if len(levels) == 1:
            return levels[0]
        n, c = x.shape[:2]
        flat = tuple(ops.reshape(y, (n, c * y.shape[2] * y.shape[3])) for y in levels)
        return ops.concat(flat, 1)


def _bins(scope: Scope, size: int, bins: int) -> Axis:
    """Returns windows that divide an axis into bins; what is missing lies in the padding."""
    kernel = -(-size // bins)
    pad = (kernel * bins - size + 1) // 2
    if pad >= kernel:
        message = f"{bins} bins a side are too many for {scope.bottoms[0]}"
        scope.error(message, "pyramid_height", "give fewer levels")
    return Axis(size, kernel, kernel, pad)
