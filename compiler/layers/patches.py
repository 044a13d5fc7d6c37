"""Relatives of Convolution: its patches alone (Im2col), and a kernel of its own at each place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.conv import Filters, Sliding, labels
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from compiler.layers.sliding import check_fit
from schemas.params import Filler


@layer("Im2col")
@dataclass(frozen=True, kw_only=True)
class Im2col(Sliding):
    """The patches that a convolution would see, as channels: (N, C * kernel..., out...)."""

    num_output: int = option("accepted and ignored: every patch has all its elements", 0, low=0)
    group: int = option("accepted and ignored", 1, low=1)
    bias_term: bool = option("accepted and ignored", True)
    weight_filler: Filler = option("accepted and ignored", Filler())
    bias_filler: Filler = option("accepted and ignored", Filler())

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        return tuple(self._patches(scope, one) for one in (x, *more))

    def _patches(self, scope: Scope, x: Node) -> Node:
        axis = self.channel_axis(scope, x)
        batch, c, extent = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        slid = self.axes(scope, extent)
        check_fit(scope, slid)
        kernel, out = tuple(a.kernel for a in slid), tuple(a.floor for a in slid)
        taps = math.prod(kernel)
        # Tap t of a patch is a convolution with the kernel that is 1 at t.
        one_hot = ops.cast(ops.equal(ops.iota((taps, taps), 0), ops.iota((taps, taps), 1)), "f32")
        places, outs, inner, slides = labels(slid)
        patches = ops.contract(
            ops.reshape(x, (math.prod(batch), c, *extent)),
            ops.reshape(one_hot, (taps, *kernel)),
            f"nc{places},t{inner}->nct{outs}",
            slides,
            **dict(zip(outs, out, strict=True)),
        )
        return ops.reshape(patches, (*batch, c * taps, *out))


@layer("LocallyConnected")
@dataclass(frozen=True, kw_only=True)
class LocallyConnected(Filters):
    """A convolution that does not share its kernel: each place of the top has one of its own.

    The weight is (num_output, channels / group, kernel..., out...), the bias (num_output, out...).
    """

    def build(self, scope: Scope, x: Node) -> Node:
        axis = self.channel_axis(scope, x)
        self.check_bottoms(scope, x, (), axis)
        batch, channels, extent = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        g, o, inputs = self.group, self.num_output, channels // self.group
        slid = self.axes(scope, extent)
        check_fit(scope, slid)
        kernel, out = tuple(a.kernel for a in slid), tuple(a.floor for a in slid)
        weight = scope.param("weight", (o, inputs, *kernel, *out), self.weight_filler)
        places, outs, taps, slides = labels(slid)
        y = ops.contract(
            ops.reshape(x, (math.prod(batch), g, inputs, *extent)),
            ops.reshape(weight, (g, o // g, inputs, *kernel, *out)),
            f"ngc{places},goc{taps}{outs}->ngo{outs}",
            slides,
        )
        y = ops.reshape(y, (*batch, o, *out))
        scope.macs += y.type.size * inputs * math.prod(kernel)
        bias = scope.param("bias", (o, *out), self.bias_filler) if self.bias_term else None
        return self.biased(y, bias, axis)
