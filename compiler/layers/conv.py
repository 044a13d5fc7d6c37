"""Convolution: one kernel slid over the spatial axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler import ops
from compiler.ir import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from compiler.layers.sliding import Axis, check_fit, spread
from schemas.params import Filler

# Labels of the spatial axes in the bottom, the top and the kernel: 3-D, 2-D, 1-D are the tails.
PLACES, OUTS, TAPS = "dhw", "zyx", "kij"


@layer("Convolution")
@dataclass(frozen=True)
class Convolution:
    """Cross-correlation over the axes after `axis`, out = (in + 2 pad - reach) // stride + 1.

    The weight is (num_output, channels / group, kernel...). Several bottoms share it.
    """

    num_output: int = option("number of filters", low=1)
    kernel_size: tuple[int, ...] = option("size of the kernel: one, or one an axis", (), low=1)
    stride: tuple[int, ...] = option("step of the kernel (1)", (), low=1)
    pad: tuple[int, ...] = option("zeros around the bottom, on each side (0)", (), low=0)
    dilation: tuple[int, ...] = option("distance between the taps of the kernel (1)", (), low=1)
    group: int = option("channels fall into this many groups that do not mix", 1, low=1)
    bias_term: bool = option("whether a bias is added", True)
    weight_filler: Filler = option("first values of the weights", Filler())
    bias_filler: Filler = option("first values of the bias", Filler())
    axis: int = option("the channel axis; the ones after it are spatial", 1)
    kernel_h: int | None = option("height of the kernel, with kernel_w", None, low=1)
    kernel_w: int | None = option("width of the kernel, with kernel_h", None, low=1)
    stride_h: int | None = option("step along the height", None, low=1)
    stride_w: int | None = option("step along the width", None, low=1)
    pad_h: int | None = option("zeros above and below", None, low=0)
    pad_w: int | None = option("zeros left and right", None, low=0)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")
    force_nd_im2col: bool = option(ENGINE_DOC, False)

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        axis = scope.axis(self.axis, x.type.rank)
        for source, other in zip(scope.bottoms[1:], more, strict=True):
            scope.need(
                other.type.rank == x.type.rank and other.shape[axis] == x.shape[axis],
                f"its bottoms share weights and need the same channels; {source}",
            )
        channels, spatial = x.shape[axis], x.type.rank - axis - 1
        scope.need(spatial <= len(PLACES), f"slides over at most {len(PLACES)} axes")
        if channels % self.group:
            scope.error(f"group {self.group} does not divide {scope.bottoms[0]}", "group")
        if self.num_output % self.group:
            scope.error(f"group {self.group} does not divide num_output", "group")
        kernel = spread(scope, self, "kernel_size", spatial, None)
        shape = (self.num_output, channels // self.group, *kernel)
        weight = scope.param("weight", shape, self.weight_filler)
        bias = scope.param("bias", shape[:1], self.bias_filler) if self.bias_term else None
        return tuple(self._apply(scope, one, weight, bias, axis) for one in (x, *more))

    def _apply(self, scope: Scope, x: Node, weight: Node, bias: Node | None, axis: int) -> Node:
        batch, channels, extent = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        kernel, g, o, n = weight.shape[2:], self.group, self.num_output, math.prod(batch)
        slid = self._axes(scope, extent, kernel)
        out = tuple(a.floor for a in slid)
        places, outs, taps = (s[len(s) - len(slid) :] for s in (PLACES, OUTS, TAPS))
        slides = tuple(
            ops.Slide(h, y, i, a.stride, a.dilation, a.pad)
            for h, y, i, a in zip(places, outs, taps, slid, strict=True)
        )
        sizes = dict(zip(outs, out, strict=True))
        if g == 1:
            x = ops.reshape(x, (n, channels, *extent))
            spec = f"nc{places},oc{taps}->no{outs}"
        else:
            x = ops.reshape(x, (n, g, channels // g, *extent))
            weight = ops.reshape(weight, (g, o // g, channels // g, *kernel))
            spec = f"ngc{places},goc{taps}->ngo{outs}"
        y = ops.reshape(ops.contract(x, weight, spec, slides, **sizes), (*batch, o, *out))
        scope.macs += y.type.size * (channels // g) * math.prod(kernel)
        return y if bias is None else ops.add(y, ops.expand_like(bias, y, axis))

    def _axes(self, scope: Scope, extent: tuple[int, ...], kernel: tuple[int, ...]) -> list[Axis]:
        stride = spread(scope, self, "stride", len(extent), 1)
        pad = spread(scope, self, "pad", len(extent), 0)
        dilation = self.dilation or (1,)
        if len(dilation) not in (1, len(extent)):
            scope.error(f"dilation has {len(dilation)} values for {len(extent)} axes", "dilation")
        dilation = dilation if len(dilation) == len(extent) else dilation[:1] * len(extent)
        axes = list(map(Axis, extent, kernel, stride, pad, dilation))
        check_fit(scope, axes)
        return axes
