"""Batch normalisation: Caffe's BatchNorm, and BN with a slope and a bias of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.params import Filler


def moments(x: Node, axes: tuple[int, ...]) -> tuple[Node, Node, int]:
    """Returns the mean over `axes`, the squared distance from it, and how many numbers it is of."""
    count = math.prod(x.shape[i] for i in axes)
    mean = ops.div(ops.sum_(x, axes), float(count))
    # The mean moves the sum of squared distances from it by nothing: its gradient is 0.
    away = ops.sub(x, ops.stop(mean))
    return mean, ops.div(ops.sum_(ops.mul(away, away), axes), float(count)), count


def normalized(x: Node, mean: Node, variance: Node, eps: float) -> Node:
    """Returns (x - mean) / sqrt(variance + eps), with one root and one division for each mean."""
    return ops.mul(ops.sub(x, mean), ops.div(1.0, ops.sqrt(ops.add(variance, eps))))


@layer("BatchNorm")
@dataclass(frozen=True)
class BatchNorm:
    """(x - mean) / sqrt(variance + eps) of each channel, with no slope and bias: Scale has those.

    In training the mean and variance are the batch's; else (use_global_stats) they are mean and
    variance of the weights divided by scale_factor, all three of which are sums that a training
    step updates: sum = moving_average_fraction * sum + the batch's, the variance's times m/(m-1).
    """

    use_global_stats: bool | None = option("use the running sums (true but in TRAIN)", None)
    moving_average_fraction: float = option("how much of a running sum stays", 0.999)
    eps: float = option("what is added to the variance", 1e-5)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank >= 1, "needs a bottom with axes")
        # A bottom of one axis is one channel.
        over = tuple(i for i in range(x.type.rank) if i != 1)
        channels = x.shape[1] if x.type.rank > 1 else 1
        # Caffe sets the multipliers of three entries to 0 itself, and refuses fewer.
        forgiving = len(scope.spec.param) == 3
        sums = [
            scope.running(name, (n,), forgiving=forgiving)
            for name, n in (("mean", channels), ("variance", channels), ("scale_factor", 1))
        ]
        shape = tuple(1 if i in over else n for i, n in enumerate(x.shape))
        stored = self.use_global_stats
        if not (stored if stored is not None else not scope.training):
            mean, variance, count = moments(x, over)
            self._keep(scope, sums, mean, variance, count)
        else:
            known = ops.less(0.0, ops.abs_(sums[2]))
            factor = ops.select(known, ops.div(1.0, ops.select(known, sums[2], 1.0)), 0.0)
            mean, variance = (ops.reshape(ops.mul(s, factor), shape) for s in sums[:2])
        return normalized(x, mean, variance, self.eps)

    def _keep(self, scope: Scope, sums: list[Node], mean: Node, variance: Node, count: int) -> None:
        """Updates the running sums, in any phase; the variance's as that of a sample."""
        unbiased = ops.mul(variance, count / (count - 1) if count > 1 else 1.0)
        batch: tuple[Node | float, ...] = (
            ops.reshape(mean, sums[0].shape),
            ops.reshape(unbiased, sums[1].shape),
            1.0,
        )
        for running, new in zip(sums, batch, strict=True):
            old = ops.mul(scope.latest(running), self.moving_average_fraction)
            scope.update(running, ops.add(old, new))


@layer("BN")
@dataclass(frozen=True)
class BN:
    """slope * (x - mean) / sqrt(variance + eps) + bias, for each channel.

    In training mean and variance are the batch's, and running ones follow them; else they are the
    running ones. With bn_mode INFERENCE they are taken to be in slope and bias already.
    """

    slope_filler: Filler = option("first values of the slope", Filler(value=1.0))
    bias_filler: Filler = option("first values of the bias", Filler())
    scale_filler: Filler | None = option("SegNet's name of slope_filler", None)
    shift_filler: Filler | None = option("SegNet's name of bias_filler", None)
    bn_mode: Literal["LEARN", "INFERENCE"] = option("whether there are mean and variance", "LEARN")
    momentum: float = option("how much of a running value stays", 0.9)
    eps: float = option("what is added to the variance", 1e-5)
    frozen: bool = option("use the running values in training too", False)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        scope.need(x.type.rank >= 2, "needs a bottom with channels")
        channels = (x.shape[1],)
        slope = scope.param("slope", channels, self.scale_filler or self.slope_filler)
        bias = scope.param("bias", channels, self.shift_filler or self.bias_filler)
        if self.bn_mode == "LEARN":
            x = self._normalized(scope, x)
        return ops.add(ops.mul(x, ops.expand_like(slope, x, 1)), ops.expand_like(bias, x, 1))

    def _normalized(self, scope: Scope, x: Node) -> Node:
        over = tuple(i for i in range(x.type.rank) if i != 1)
        kept = [
            scope.running("mean", (x.shape[1],)),
            scope.running("variance", (x.shape[1],), 1.0),
        ]
        if scope.training and not self.frozen:
            mean, variance, _ = moments(x, over)
            for running, batch in zip(kept, (mean, variance), strict=True):
                new = ops.mul(ops.reshape(batch, running.shape), 1 - self.momentum)
                scope.update(running, ops.add(ops.mul(scope.latest(running), self.momentum), new))
        else:
            shape = tuple(1 if i in over else n for i, n in enumerate(x.shape))
            mean, variance = (ops.reshape(running, shape) for running in kept)
        return normalized(x, mean, variance, self.eps)
