"""Pooling: maximum, average, root of squares or a random element of sliding windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.conv import OUTS, PLACES, TAPS
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from compiler.layers.sliding import Axis, check_fit, spread
from schemas.errors import SpecError

FLT_MIN = 1.17549435e-38

How = Literal["MAX", "AVE", "STOCHASTIC", "L2"]


@layer("Pooling")
@dataclass(frozen=True)
class Pooling:
    """Pools over the spatial axes; sizes round up as in Caffe unless round_mode is FLOOR.

    Padding never wins a MAX. An AVE window divides by its size inside of the padded bottom: padding
    counts, what hangs over beyond it does not. A second top of MAX is the place of each maximum.
    STOCHASTIC takes elements that are not negative: in training one of them, with a probability
    proportional to it, in tests the mean under these probabilities (Zeiler and Fergus 2013).
    """

    pool: How = option("what is taken of a window", "MAX")
    kernel_size: tuple[int, ...] = option("size of the windows: one, or one an axis", (), low=1)
    stride: tuple[int, ...] = option("step of the windows (1)", (), low=1)
    pad: tuple[int, ...] = option("rows around the bottom, on each side (0)", (), low=0)
    global_pooling: bool = option("one window over everything", False)
    round_mode: Literal["CEIL", "FLOOR"] = option("whether a cut-off last window counts", "CEIL")
    kernel_h: int | None = option("height of the windows, with kernel_w", None, low=1)
    kernel_w: int | None = option("width of the windows, with kernel_h", None, low=1)
    stride_h: int | None = option("step along the height", None, low=1)
    stride_w: int | None = option("step along the width", None, low=1)
    pad_h: int | None = option("rows above and below", None, low=0)
    pad_w: int | None = option("columns left and right", None, low=0)
    across_channels: bool = option("windows run over the channels, not over space", False)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> tuple[Node, ...]:
        if self.across_channels:
            scope.need(x.type.rank >= 2, "needs a bottom with channels")
            over: tuple[int, ...] = (1,)
        else:
            scope.need(x.type.rank >= 3, "needs a bottom with spatial axes (N, C, spatial...)")
            over = tuple(range(2, x.type.rank))
        axes = self._axes(scope, tuple(x.shape[a] for a in over))
        padded = any(a.pad for a in axes)
        sizes = tuple(a.ceil(padded) if self.round_mode == "CEIL" else a.floor for a in axes)
        return pooled(scope, x, self.pool, over, axes, sizes)

    def _axes(self, scope: Scope, extent: tuple[int, ...]) -> list[Axis]:
        if self.global_pooling:
            for name in ("kernel_size", "kernel_h", "kernel_w", "stride", "pad", "pad_h", "pad_w"):
                written = getattr(self, name)
                # Caffe allows what changes nothing: pad 0 and stride 1.
                if written not in ((), None, 0, (0,)) and (name, written) != ("stride", (1,)):
                    message = f"global_pooling takes the whole bottom: it has no {name}"
                    scope.error(message, name, f"leave {name} out", kind=SpecError)
            return [Axis(n, n) for n in extent]
        kernel = spread(scope, self, "kernel_size", len(extent), None)
        stride = spread(scope, self, "stride", len(extent), 1)
        pad = spread(scope, self, "pad", len(extent), 0)
        axes = list(map(Axis, extent, kernel, stride, pad))
        for axis in axes:
            if axis.pad >= axis.kernel:
                message = f"pad {axis.pad} must be less than the kernel {axis.kernel}"
                scope.error(message, "pad", "a window could lie in the padding altogether")
        check_fit(scope, axes, partial=self.round_mode == "CEIL")
        return axes


def pooled(
    scope: Scope, x: Node, how: How, over: tuple[int, ...], axes: list[Axis], out: tuple[int, ...]
) -> tuple[Node, ...]:
    """Returns the top of pooling over the axes `over`; for MAX with two tops the mask, too."""
    window = ops.Window(
        over,
        tuple(a.kernel for a in axes),
        tuple(a.stride for a in axes),
        tuple(a.pad for a in axes),
        tuple(a.size for a in axes),
        out,
    )
    if how == "MAX":
        y = ops.pool_max(x, window)
        return (y, mask(ops.pool_argmax(x, window))) if len(scope.tops) > 1 else (y,)
    if how == "AVE":
        return (_average(ops.pool_sum(x, window), window),)
    if how == "STOCHASTIC":
        if any(window.pad):
            scope.error("STOCHASTIC pooling has no padding", "pad")
        return (_drawn(scope, x, window) if scope.training else _expected(x, window),)
    # Kept off zero, where the root has no slope.
    return (ops.sqrt(ops.maximum(ops.pool_sum(ops.mul(x, x), window), FLT_MIN)),)


def mask(where: Node) -> Node:
    """Returns Caffe's second top of MAX: the index of each maximum in its plane, -1 of nothing."""
    window: ops.Window = where.attr("window")
    shape, after = where.src[0].shape, where.type.rank - window.axes[-1] - 1
    count = ops.cast(ops.iota((math.prod(window.full),), 0), "f32")
    plane = ops.reshape(ops.add(count, 1.0), (*window.full, *[1] * after))
    return ops.sub(ops.pool_at(ops.broadcast(plane, shape), where, window), 1.0)


def _average(total: Node, window: ops.Window) -> Node:
    """Divides sums of windows by their sizes (Caffe's AVE divisor, CAFFE.md section 3)."""
    ends = zip(window.full, window.pad, strict=True)
    padded = tuple(n + 2 * p for n, p in ends)
    lasts = zip(window.out, window.stride, window.size, strict=True)
    if all((o - 1) * s + k <= n for n, (o, s, k) in zip(padded, lasts, strict=True)):
        return ops.div(total, float(math.prod(window.size)))
    for i, axis in enumerate(window.axes):
        shape = tuple(n if j == axis else 1 for j, n in enumerate(total.shape))
        # Counted from the first row of the padding.
        start = ops.mul(ops.iota(shape, axis), window.stride[i])
        end = ops.minimum(ops.add(start, window.size[i]), padded[i])
        total = ops.div(total, ops.cast(ops.sub(end, start), "f32"))
    return total


def _expected(x: Node, window: ops.Window) -> Node:
    """sum(x^2) / sum(x): the mean of elements that are drawn by their size; 0 where all are 0."""
    total = ops.pool_sum(x, window)
    some = ops.less(0.0, total)
    mean = ops.div(ops.pool_sum(ops.mul(x, x), window), ops.select(some, total, 1.0))
    return ops.select(some, mean, 0.0)


def _drawn(scope: Scope, x: Node, window: ops.Window) -> Node:
    """The first element of each window at which the running sum reaches a random share of all."""
    sums = ops.stop(_running_sums(x, window))  # (before, taps, after), as the one of `over`
    at, taps = window.axes[0], math.prod(window.size)
    total = ops.slice_axis(sums, at, taps - 1, taps)
    share = ops.mul(ops.random(scope.stream(), total.shape), total)
    passed = ops.sum_(ops.select(ops.less(sums, share), 1.0, 0.0), (at,))
    where = ops.reshape(ops.cast(passed, "i32"), window.pooled(x.shape))
    return ops.pool_at(x, where, window)


def _running_sums(x: Node, window: ops.Window) -> Node:
    """Returns, before the axes of the windows, one of taps: the sum of taps 0 ... t of a window."""
    first, count, taps = window.axes[0], len(window.axes), math.prod(window.size)
    up_to = ops.cast(ops.lesseq(ops.iota((taps, taps), 1), ops.iota((taps, taps), 0)), "f32")
    places, outs, inner = (s[len(s) - count :] for s in (PLACES, OUTS, TAPS))
    ties = zip(places, outs, inner, window.stride, strict=True)
    before, after = "nc"[:first], "pqr"[: x.type.rank - first - count]
    return ops.contract(
        x,
        ops.reshape(up_to, (taps, *window.size)),
        f"{before}{places}{after},t{inner}->{before}t{outs}{after}",
        tuple(ops.Slide(h, y, i, stride) for h, y, i, stride in ties),
        **dict(zip(outs, window.out, strict=True)),
    )
