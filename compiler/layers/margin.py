"""Losses of margins and distances: hinge, contrastive, smooth L1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.loss import is_label, one_label
from compiler.layers.scope import Scope

# Caffe adds this to a distance before it divides by it.
CLOSE = 1e-4


@layer("HingeLoss")
@dataclass(frozen=True)
class HingeLoss:
    """Sum over all classes of max(0, 1 - t x) (L1), or of its square (L2), over N.

    t is 1 for the class of the label and -1 for the others: one against all.
    """

    norm: Literal["L1", "L2"] = option(
        "whether the distance to the margin is squared", "L1", first=1
    )

    def build(self, scope: Scope, scores: Node, label: Node) -> Node:
        scope.need(scores.type.rank >= 2, "needs a first bottom (N, classes, ...)")
        n = scores.shape[0]
        scores = ops.reshape(scores, (n, math.prod(scores.shape[1:])))
        mine = is_label(scores, one_label(scope, scores, label, 1), 1)
        short = ops.relu(ops.add(ops.select(mine, ops.neg(scores), scores), 1.0))
        loss = ops.mul(short, short) if self.norm == "L2" else short
        return ops.div(ops.sum_all(loss), float(n))


@layer("ContrastiveLoss")
@dataclass(frozen=True)
class ContrastiveLoss:
    """sum(y d^2 + (1 - y) max(margin - d, 0)^2) / (2 N), d the distance of two vectors.

    y is 1 where a pair belongs together (Hadsell et al. 2006). The gradient of d divides by
    d + 1e-4, as Caffe's. The legacy version has max(margin - d^2, 0) for pairs that do not.
    """

    margin: float = option("how far apart a pair should be that does not belong together", 1.0)
    legacy_version: bool = option("the form that Caffe had at first", False)

    def build(self, scope: Scope, a: Node, b: Node, same: Node) -> Node:
        scope.need(a.type.rank >= 1 and a.shape == b.shape, "its vectors must have the same shape")
        n = a.shape[0]
        scope.need(same.type.size == n, f"needs {n} numbers that say which pairs belong together")
        diff = ops.reshape(ops.sub(a, b), (n, math.prod(a.shape[1:])))
        d2 = ops.sum_(ops.mul(diff, diff), (1,))
        if self.legacy_version:
            apart = ops.relu(ops.sub(self.margin, d2))
        else:
            short = ops.relu(ops.sub(self.margin, _root(d2)))
            apart = ops.mul(short, short)
        other = ops.equal(ops.cast(ops.reshape(same, (n, 1)), "i32"), 0)
        return ops.div(ops.sum_all(ops.select(other, apart, d2)), 2.0 * n)


def _root(d2: Node) -> Node:
    """The square root, with the gradient 1 / (2 (d + 1e-4))."""
    d = ops.stop(ops.sqrt(d2))
    slope = ops.div(0.5, ops.add(d, CLOSE))
    return ops.add(d, ops.mul(slope, ops.sub(d2, ops.stop(d2))))


@layer("SmoothL1Loss")
@dataclass(frozen=True)
class SmoothL1Loss:
    """Sum of outside * f(inside * (a - b)) over N: the squared error near 0, its size further out.

    f(x) = (sigma x)^2 / 2 where |x| < 1 / sigma^2, else |x| - 1 / (2 sigma^2) (Girshick 2015). The
    third and fourth bottoms are the inside and outside weights (1).
    """

    sigma: float = option("the square ends at 1 / sigma ** 2", 1.0, above=0)

    def build(
        self,
        scope: Scope,
        a: Node,
        b: Node,
        inside: Node | None = None,
        outside: Node | None = None,
    ) -> Node:
        sizes = {x.type.size for x in (a, b, inside, outside) if x is not None}
        scope.need(len(sizes) == 1, "its bottoms must have the same shape")
        x = ops.sub(a, ops.reshape(b, a.shape))
        if inside is not None:
            x = ops.mul(ops.reshape(inside, a.shape), x)
        square = self.sigma**2
        size = ops.abs_(x)
        near = ops.mul(ops.mul(x, x), 0.5 * square)
        loss = ops.select(ops.less(size, 1 / square), near, ops.sub(size, 0.5 / square))
        if outside is not None:
            loss = ops.mul(ops.reshape(outside, a.shape), loss)
        return ops.div(ops.sum_all(loss), float(a.shape[0] if a.shape else 1))
