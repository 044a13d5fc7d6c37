"""Convolution: one kernel slid over the spatial axes, and what its relatives share with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from compiler.layers.sliding import Axis, check_fit, spread
from schemas.params import Filler

Ints = tuple[int, ...]

# Labels of the spatial axes in the bottom, the top and the kernel: 3-D, 2-D, 1-D are the tails.
PLACES, OUTS, TAPS = "dhw", "zyx", "kij"


@dataclass(frozen=True, kw_only=True)
class Sliding:
    """What every layer that slides a kernel can say about it: Caffe's convolution_param."""

    kernel_size: Ints = option("size of the kernel: one, or one an axis", (), low=1)
    stride: Ints = option("step of the kernel (1)", (), low=1)
    pad: Ints = option("zeros around the bottom, on each side (0)", (), low=0)
    dilation: Ints = option("distance between the taps of the kernel (1)", (), low=1)
    axis: int = option("the channel axis; the ones after it are spatial", 1)
    kernel_h: int | None = option("height of the kernel, with kernel_w", None, low=1)
    kernel_w: int | None = option("width of the kernel, with kernel_h", None, low=1)
    stride_h: int | None = option("step along the height", None, low=1)
    stride_w: int | None = option("step along the width", None, low=1)
    pad_h: int | None = option("zeros above and below", None, low=0)
    pad_w: int | None = option("zeros left and right", None, low=0)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")
    force_nd_im2col: bool = option(ENGINE_DOC, False)

    def channel_axis(self, scope: Scope, x: Node) -> int:
        axis = scope.axis(self.axis, x.type.rank)
        most = len(PLACES)
        scope.need(x.type.rank - axis - 1 <= most, f"slides over at most {most} axes")
        return axis

    def axes(self, scope: Scope, extent: Ints) -> list[Axis]:
        """Returns the geometry along each spatial axis of a bottom."""
        count = len(extent)
        kernel = spread(scope, self, "kernel_size", count, None)
        stride = spread(scope, self, "stride", count, 1)
        pad = spread(scope, self, "pad", count, 0)
        dilation = self.dilation or (1,)
        if len(dilation) not in (1, count):
            scope.error(f"dilation has {len(dilation)} values for {count} axes", "dilation")
        dilation = dilation if len(dilation) == count else dilation[:1] * count
        return list(map(Axis, extent, kernel, stride, pad, dilation))


@dataclass(frozen=True, kw_only=True)
class Filters(Sliding):
    """The fields of a layer with a bank of learned kernels."""

    num_output: int = option("number of filters", low=1)
    group: int = option("channels fall into this many groups that do not mix", 1, low=1)
    bias_term: bool = option("whether a bias is added", True)
    weight_filler: Filler = option("first values of the weights", Filler())
    bias_filler: Filler = option("first values of the bias", Filler())

    def check_bottoms(self, scope: Scope, x: Node, more: tuple[Node, ...], axis: int) -> None:
        """Raises where the bottoms cannot share one weight, or the groups do not come out even."""
        for source, other in zip(scope.bottoms[1:], more, strict=True):
            scope.need(
                other.type.rank == x.type.rank and other.shape[axis] == x.shape[axis],
                f"its bottoms share weights and need the same channels; {source}",
            )
        if x.shape[axis] % self.group:
            message = (
                f"group {self.group} does not divide the {x.shape[axis]} channels of its bottom"
            )
            scope.error(f"{message}: {scope.bottoms[0]}", "group")
        if self.num_output % self.group:
            message = f"group {self.group} does not divide num_output {self.num_output}"
            scope.error(message, "group")

    def biased(self, y: Node, bias: Node | None, axis: int) -> Node:
        return y if bias is None else ops.add(y, ops.expand_like(bias, y, axis))


@layer("Convolution")
@dataclass(frozen=True, kw_only=True)
class Convolution(Filters):
    """Cross-correlation over the axes after `axis`, out = (in + 2 pad - reach) // stride + 1.

    The weight is (num_output, channels / group, kernel...). Several bottoms share it.
    """

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        axis = self.channel_axis(scope, x)
        self.check_bottoms(scope, x, more, axis)
        kernel = spread(scope, self, "kernel_size", x.type.rank - axis - 1, None)
        shape = (self.num_output, x.shape[axis] // self.group, *kernel)
        weight = scope.param("weight", shape, self.weight_filler)
        bias = scope.param("bias", shape[:1], self.bias_filler) if self.bias_term else None
        return tuple(self._apply(scope, one, weight, bias, axis) for one in (x, *more))

    def _apply(self, scope: Scope, x: Node, weight: Node, bias: Node | None, axis: int) -> Node:
        batch, channels, extent = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        kernel, g, o, n = weight.shape[2:], self.group, self.num_output, math.prod(batch)
        slid = self.axes(scope, extent)
        check_fit(scope, slid)
        out = tuple(a.floor for a in slid)
        places, outs, taps, slides = labels(slid)
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
        return self.biased(y, bias, axis)


def labels(slid: list[Axis]) -> tuple[str, str, str, tuple[ops.Slide, ...]]:
    """Returns the labels of bottom, top and kernel along the axes, and the slides that tie them."""
    places, outs, taps = (s[len(s) - len(slid) :] for s in (PLACES, OUTS, TAPS))
    slides = tuple(
        ops.Slide(h, y, i, a.stride, a.dilation, a.pad)
        for h, y, i, a in zip(places, outs, taps, slid, strict=True)
    )
    return places, outs, taps, slides
