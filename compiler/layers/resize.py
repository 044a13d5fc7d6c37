"""Layers that make images larger or smaller: Interp (bilinear) and Upsample (by a mask)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node, toposort
from compiler.layers import layer
from compiler.layers import pool as pooling
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.errors import SpecError


@layer("Interp")
@dataclass(frozen=True)
class Interp:
    """Bilinear resizing; the corners of the top are those of the bottom (DeepLab's layer).

    The size is that of a second bottom, or height x width, or comes from shrink_factor, then
    zoom_factor: (in - 1) / shrink + 1, and out = (in - 1) * zoom + 1. Pads are negative: they cut
    rows off.
    """

    height: int | None = option("height of the top", None, low=1)
    width: int | None = option("width of the top", None, low=1)
    zoom_factor: int | None = option("the distance between elements grows this often", None, low=1)
    shrink_factor: int | None = option("every n-th row and column stays", None, low=1)
    pad_beg: int = option("0, or minus the rows and columns cut off at the beginning", 0, below=1)
    pad_end: int = option("0, or minus the rows and columns cut off at the end", 0, below=1)

    def build(self, scope: Scope, x: Node, like: Node | None = None) -> Node:
        scope.need(x.type.rank == 4, "needs a bottom (N, C, H, W)")
        if like is not None:
            scope.need(like.type.rank == 4, "needs a second bottom (N, C, H, W)")
        for axis in (2, 3):
            size = x.shape[axis]
            left = size + self.pad_beg + self.pad_end
            scope.need(left > 0, "its pads leave nothing", "pad_beg")
            x = ops.slice_axis(x, axis, -self.pad_beg, size + self.pad_end)
        height, width = like.shape[2:] if like is not None else self._size(scope, *x.shape[2:])
        x = ops.contract(_hats(height, x.shape[2]), x, "yh,nchw->ncyw")
        return ops.contract(x, _hats(width, x.shape[3]), "ncyw,zw->ncyz")

    def _size(self, scope: Scope, *extent: int) -> tuple[int, ...]:
        factors = self.shrink_factor, self.zoom_factor
        both = None not in factors
        if self.height is not None and self.width is not None and (both or factors == (None, None)):
            return self.height, self.width
        if factors == (None, None):
            message = "does not say how large its top is"
            scope.error(message, hint="give height and width, or a factor", kind=SpecError)
        shrink, zoom = self.shrink_factor or 1, self.zoom_factor or 1
        return tuple(((n - 1) // shrink) * zoom + 1 for n in extent)


def _hats(out: int, size: int) -> Node:
    """Returns the weights (out, size) of linear interpolation, the ends of both on each other.

    Row y is a hat of width 1 around y (size - 1) / (out - 1): 1 - distance where that is positive.
    """
    step = (size - 1) / (out - 1) if out > 1 else 0.0
    at = ops.mul(ops.cast(ops.iota((out, size), 0), "f32"), step)
    distance = ops.abs_(ops.sub(at, ops.cast(ops.iota((out, size), 1), "f32")))
    return ops.maximum(ops.sub(1.0, distance), 0.0)


@layer("Upsample")
@dataclass(frozen=True)
class Upsample:
    """Puts each element where the mask says, zeros elsewhere: the way back of a MAX Pooling.

    The mask is the second top of that Pooling (SegNet, Badrinarayanan et al. 2015). Where windows
    overlap and meet in one maximum, their elements are added. Without a mask each element is
    repeated scale times along both axes.
    """

    scale: int = option("how much larger the top is", 2, low=1)
    scale_h: int | None = option("how much higher, with scale_w", None, low=1)
    scale_w: int | None = option("how much wider, with scale_h", None, low=1)
    pad_out_h: bool = option("one row less: the pooled image had an odd height", False)
    pad_out_w: bool = option("one column less: the pooled image had an odd width", False)
    upsample_h: int | None = option("height of the top, with upsample_w, over scale", None, low=1)
    upsample_w: int | None = option("width of the top, with upsample_h", None, low=1)

    def build(self, scope: Scope, x: Node, mask: Node | None = None) -> Node:
        scope.need(x.type.rank == 4, "needs a bottom (N, C, H, W)")
        scale_h, scale_w = self.scale_h or self.scale, self.scale_w or self.scale
        n, c, h, w = x.shape
        height, width = h * scale_h - self.pad_out_h, w * scale_w - self.pad_out_w
        if self.upsample_h is not None and self.upsample_w is not None:
            height, width = self.upsample_h, self.upsample_w
        if mask is None:
            if (height, width) != (h * scale_h, w * scale_w):
                scope.error("needs a mask for a size that is no multiple of its bottom's")
            tall = ops.reshape(x, (n, c, h, 1, w, 1))
            tall = ops.broadcast(tall, (n, c, h, scale_h, w, scale_w))
            return ops.reshape(tall, (n, c, height, width))
        scope.need(mask.shape == x.shape, "needs a mask of its bottom's shape")
        where = _pooling_of(mask)
        if where is None or where.attr("window").axes != (2, 3):
            return _spread(x, mask, height, width)
        window = where.attr("window")
        if window.full != (height, width):
            scope.warn(
                f"makes planes of {height} x {width}, but its mask is of {window.full[0]} x "
                f"{window.full[1]}",
                hint=f"upsample_h: {window.full[0]}, upsample_w: {window.full[1]}",
            )
            return _spread(x, mask, height, width)
        return ops.unpool_max(x, where, window)


def _pooling_of(mask: Node) -> Node | None:
    """Returns the argmax of the pooling that a mask is the second top of, if it is one's."""
    while mask.prim == "stop":
        (mask,) = mask.src
    found = (n for n in toposort([mask]) if n.prim == "pool_argmax" and pooling.mask(n) is mask)
    return next(found, None)


def _spread(x: Node, mask: Node, height: int, width: int) -> Node:
    """Does it for any mask: element p of a plane is the sum of the elements whose mask is p.

    Each element of the top looks at its whole bottom, so this is for masks of unknown origin.
    """
    planes, size = math.prod(x.shape[:2]), math.prod(x.shape[2:])
    whole = (planes, height * width, size)
    where = ops.broadcast(ops.reshape(ops.cast(mask, "i32"), (planes, 1, size)), whole)
    here = ops.equal(where, ops.iota(whole, 1))
    chosen = ops.select(here, ops.reshape(x, (planes, 1, size)), 0.0)
    return ops.reshape(ops.sum_(chosen, (2,)), (*x.shape[:2], height, width))
