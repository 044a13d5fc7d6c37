"""Pooling: maximum, average or root of squares over sliding windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from compiler import ops
from compiler.ir import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from compiler.layers.sliding import Axis, check_fit, spread
from schemas.errors import SpecError

FLT_MIN = 1.17549435e-38


@layer("Pooling")
@dataclass(frozen=True)
class Pooling:
    """Pools over the spatial axes; sizes round up as in Caffe unless round_mode is FLOOR.

    Padding never wins a MAX. An AVE window divides by its size inside of the padded bottom: padding
    counts, what hangs over beyond it does not. A second top of MAX is the place of each maximum.
    """

    pool: Literal["MAX", "AVE", "STOCHASTIC", "L2"] = option("what is taken of a window", "MAX")
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
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> tuple[Node, ...]:
        scope.need(x.type.rank >= 3, "needs a bottom with spatial axes (N, C, spatial...)")
        if self.pool == "STOCHASTIC":
            scope.error("STOCHASTIC pooling is not built", "pool", "use MAX, AVE or L2")
        axes = self._axes(scope, x.shape[2:])
        sizes = tuple(a.ceil if self.round_mode == "CEIL" else a.floor for a in axes)
        window = ops.Window(
            tuple(range(2, x.type.rank)),
            tuple(a.kernel for a in axes),
            tuple(a.stride for a in axes),
            tuple(a.pad for a in axes),
            x.shape[2:],
            sizes,
        )
        if self.pool == "MAX":
            y = ops.pool_max(x, window)
            return (y, ops.cast(ops.pool_argmax(x, window), "f32")) if len(scope.tops) > 1 else (y,)
        if self.pool == "AVE":
            return (_average(ops.pool_sum(x, window), axes),)
        # Kept off zero, where the root has no slope.
        return (ops.sqrt(ops.maximum(ops.pool_sum(ops.mul(x, x), window), FLT_MIN)),)

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


def _average(total: Node, axes: list[Axis]) -> Node:
    """Divides sums of windows by their sizes (Caffe's AVE divisor, CAFFE.md section 3)."""
    if all((out - 1) * a.stride + a.kernel <= a.size + 2 * a.pad for a, out in _outs(total, axes)):
        return ops.div(total, float(math.prod(a.kernel for a in axes)))
    for i, axis in enumerate(axes, start=2):
        shape = tuple(n if j == i else 1 for j, n in enumerate(total.shape))
        start = ops.mul(ops.iota(shape, i), axis.stride)  # counted from the padding's first row
        end = ops.minimum(ops.add(start, axis.kernel), axis.size + 2 * axis.pad)
        total = ops.div(total, ops.cast(ops.sub(end, start), "f32"))
    return total


def _outs(total: Node, axes: list[Axis]) -> list[tuple[Axis, int]]:
    return list(zip(axes, total.shape[2:], strict=True))
