"""Deconvolution: a convolution run backwards, from its top to its bottom."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.conv import Filters, labels
from compiler.layers.scope import Scope
from compiler.layers.sliding import Axis, spread


@layer("Deconvolution")
@dataclass(frozen=True, kw_only=True)
class Deconvolution(Filters):
    """The data gradient of a convolution: out = stride (in - 1) + reach - 2 pad.

    The weight is (channels, num_output / group, kernel...): that of the convolution which would
    lead back. Several bottoms share it.
    """

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        axis = self.channel_axis(scope, x)
        self.check_bottoms(scope, x, more, axis)
        kernel = spread(scope, self, "kernel_size", x.type.rank - axis - 1, None)
        shape = (x.shape[axis], self.num_output // self.group, *kernel)
        weight = scope.param("weight", shape, self.weight_filler)
        bias = None
        if self.bias_term:
            bias = scope.param("bias", (self.num_output,), self.bias_filler)
        return tuple(self._apply(scope, one, weight, bias, axis) for one in (x, *more))

    def _apply(self, scope: Scope, x: Node, weight: Node, bias: Node | None, axis: int) -> Node:
        batch, channels, extent = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        kernel, g, o, n = weight.shape[2:], self.group, self.num_output, math.prod(batch)
        slid = [_from_top(scope, a) for a in self.axes(scope, extent)]
        out = tuple(a.size for a in slid)
        places, outs, taps, slides = labels(slid)  # `places` are this layer's top
        sizes = dict(zip(places, out, strict=True))
        if g == 1:
            x = ops.reshape(x, (n, channels, *extent))
            spec = f"nc{outs},co{taps}->no{places}"
        else:
            x = ops.reshape(x, (n, g, channels // g, *extent))
            weight = ops.reshape(weight, (g, channels // g, o // g, *kernel))
            spec = f"ngc{outs},gco{taps}->ngo{places}"
        y = ops.reshape(ops.contract(x, weight, spec, slides, **sizes), (*batch, o, *out))
        scope.macs += x.type.size * (o // g) * math.prod(kernel)
        return self.biased(y, bias, axis)


def _from_top(scope: Scope, axis: Axis) -> Axis:
    """Returns the axis of the convolution whose top has the size that `axis` gives."""
    out = axis.stride * (axis.size - 1) + axis.reach - 2 * axis.pad
    if out < 1:
        message = f"pad {axis.pad} leaves nothing of {axis.size}: stride * (in - 1) + "
        scope.error(f"{message}{axis.reach} - 2 * {axis.pad} = {out}", "pad")
    return replace(axis, size=out)
