"""Normalisation within an item: LRN, MVN, LayerNorm, GroupNorm, Normalize, LCN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.batch_norm import moments, normalized
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.params import Filler

FLT_MIN = 1.17549435e-38


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


@layer("MVN")
@dataclass(frozen=True)
class MVN:
    """x less its mean, divided by its standard deviation plus eps, within each plane or item."""

    normalize_variance: bool = option("divide by the standard deviation", True)
    across_channels: bool = option("over all channels of an item, not within each", False)
    eps: float = option("what is added to the standard deviation", 1e-9)

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank >= 2, "needs a bottom with channels")
        mean, variance, _ = moments(x, tuple(range(1 if self.across_channels else 2, x.type.rank)))
        y = ops.sub(x, mean)
        return ops.div(y, ops.add(_root(variance), self.eps)) if self.normalize_variance else y


@layer("LayerNorm")
@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + eps) over all axes from `axis` on (Ba et al. 2016).

    Then times a learned weight and plus a learned bias of the shape of those axes.
    """

    axis: int = option("the first axis that is normalised over", -1)
    eps: float = option("what is added to the variance", 1e-5)
    affine: bool = option("whether there are weight and bias", True)
    weight_filler: Filler = option("first values of the weight", Filler(value=1.0))
    bias_filler: Filler = option("first values of the bias", Filler())

    def build(self, scope: Scope, x: Node) -> Node:
        axis = scope.axis(self.axis, x.type.rank)
        mean, variance, _ = moments(x, tuple(range(axis, x.type.rank)))
        y = normalized(x, mean, variance, self.eps)
        return _affine(scope, self, y, axis, x.shape[axis:]) if self.affine else y


@layer("GroupNorm")
@dataclass(frozen=True)
class GroupNorm:
    """(x - mean) / sqrt(variance + eps) over each group of channels of an item (Wu and He 2018).

    Then times a learned weight and plus a learned bias, one of each a channel.
    """

    num_groups: int = option("how many groups the channels fall into", 32, low=1)
    eps: float = option("what is added to the variance", 1e-5)
    affine: bool = option("whether there are weight and bias", True)
    weight_filler: Filler = option("first values of the weight", Filler(value=1.0))
    bias_filler: Filler = option("first values of the bias", Filler())

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank >= 2, "needs a bottom with channels")
        (n, c), g = x.shape[:2], self.num_groups
        if c % g:
            scope.need(False, f"num_groups {g} does not divide the {c} channels", "num_groups")
        grouped = ops.reshape(x, (n, g, c // g, *x.shape[2:]))
        mean, variance, _ = moments(grouped, tuple(range(2, grouped.type.rank)))
        y = normalized(grouped, mean, variance, self.eps)
        y = ops.reshape(y, x.shape)
        return _affine(scope, self, y, 1, (c,)) if self.affine else y


@layer("Normalize")
@dataclass(frozen=True)
class Normalize:
    """weight * x / sqrt(sum of x ** 2 + eps) (Liu et al. 2016, ParseNet).

    The sum is over all of an item, or over the channels at each place.
    """

    across_spatial: bool = option("sum over all of an item, not at each place", True)
    scale_filler: Filler = option("first values of the weight", Filler(value=1.0))
    channel_shared: bool = option("one weight for all channels", True)
    eps: float = option("what is added to the sum of squares", 1e-10)

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank >= 2, "needs a bottom with channels")
        over = tuple(range(1, x.type.rank if self.across_spatial else 2))
        norm = ops.sqrt(ops.add(ops.sum_(ops.mul(x, x), over), self.eps))
        shape = () if self.channel_shared else (x.shape[1],)
        weight = scope.param("weight", shape, self.scale_filler)
        return ops.mul(ops.div(x, norm), ops.expand_like(weight, x, len(shape)))


@layer("LCN")
@dataclass(frozen=True)
class LCN:
    """Local contrast normalisation: v / max(c, s), v = x - mean around (Jarrett et al. 2009).

    "Around" is a Gaussian over a square of side local_size and all channels, cut off at the border
    and scaled so that its weights sum to 1; s = sqrt(mean of v ** 2 around), one for all channels,
    and c is the mean of s over the item.
    """

    local_size: int = option("side of the square", 9, low=1, odd=True)
    sigma: float | None = option("width of the Gaussian (local_size / 4)", None, above=0)

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank == 4, "needs a bottom of shape (N, C, H, W)")
        v = ops.sub(x, self._around(x))
        s = _root(self._around(ops.mul(v, v)))
        c = ops.div(ops.sum_(s, (2, 3)), float(s.shape[2] * s.shape[3]))
        return ops.div(v, ops.maximum(ops.maximum(c, FLT_MIN), s))

    def _around(self, x: Node) -> Node:
        """Returns the weighted mean around each place, over all channels."""
        mean = ops.div(ops.sum_(x, (1,)), float(x.shape[1]))
        for axis in (2, 3):
            mean = self._blur(mean, axis)
        return mean

    def _blur(self, x: Node, axis: int) -> Node:
        """Returns sum over j of x[j] * bell(i - j) / sum over j of bell(i - j) along an axis."""
        n, sigma = x.shape[axis], self.sigma or self.local_size / 4
        away = ops.cast(ops.sub(ops.iota((n, n), 0), ops.iota((n, n), 1)), "f32")
        bell = ops.exp(ops.mul(ops.mul(away, away), -0.5 / sigma**2))
        bell = ops.select(ops.less(self.local_size / 2, ops.abs_(away)), 0.0, bell)
        bell = ops.div(bell, ops.sum_(bell, (1,)))
        labels = "nchw,ih->nciw" if axis == 2 else "nchw,iw->nchi"
        return ops.contract(x, bell, labels)


def _root(x: Node) -> Node:
    """sqrt(x) for x >= 0, kept off zero, where the root has no slope."""
    return ops.sqrt(ops.maximum(FLT_MIN, x))


def _affine(
    scope: Scope, norm: LayerNorm | GroupNorm, y: Node, axis: int, shape: tuple[int, ...]
) -> Node:
    weight = scope.param("weight", shape, norm.weight_filler)
    bias = scope.param("bias", shape, norm.bias_filler)
    return ops.add(ops.mul(y, ops.expand_like(weight, y, axis)), ops.expand_like(bias, y, axis))
