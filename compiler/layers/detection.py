"""Layers of object detectors: ROIPooling (Fast R-CNN) and PriorBox (SSD)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope

LEAST = -3.4028234663852886e38
FAR = float(1 << 24)


@layer("ROIPooling")
@dataclass(frozen=True)
class ROIPooling:
    """Maxima over pooled_h x pooled_w bins of each region: (R, C, pooled_h, pooled_w).

    The second bottom has a row (image, x1, y1, x2, y2) for each of R regions, in pixels of the
    input; spatial_scale leads from there to the first bottom. Edges are rounded, bins overlap where
    they do not divide a region, and empty bins are 0 (Girshick 2015).
    """

    pooled_h: int = option("number of bins from top to bottom", low=1)
    pooled_w: int = option("number of bins from left to right", low=1)
    spatial_scale: float = option("size of the first bottom over that of the input", 1.0, above=0)

    def build(self, scope: Scope, x: Node, rois: Node) -> Node:
        scope.need(x.type.rank == 4, "needs a first bottom (N, C, H, W)")
        regions = rois.shape[0] if rois.shape else 0
        five = rois.type.rank >= 2 and rois.type.size == 5 * regions
        scope.need(five, "needs a second bottom (regions, 5)")
        (n, c, h, w), ph, pw = x.shape, self.pooled_h, self.pooled_w
        image, x1, y1, x2, y2 = _columns(ops.stop(ops.reshape(rois, (regions, 5))))
        # First along the width, then along the height: axes (R, N, C, H, pooled_w, W).
        wide = (regions, n, c, h, pw, w)
        here = _in_bin(wide, 4, 5, *self._edges(x1, x2))
        here = ops.and_(here, ops.equal(_as(image, wide), ops.cast(ops.iota(wide, 1), "f32")))
        rows = _first_maximum(ops.reshape(x, (1, n, c, h, 1, w)), here, (1, 5))
        high = (regions, c, ph, pw, h)
        rows = ops.transpose(ops.reshape(rows, (regions, c, 1, h, pw)), (0, 1, 2, 4, 3))
        here = _in_bin(high, 2, 4, *self._edges(y1, y2))
        return ops.reshape(_first_maximum(rows, here, (4,)), (regions, c, ph, pw))

    def _edges(self, low: Node, high: Node) -> tuple[Node, Node]:
        """Returns the first row or column of each region, and how many there are."""
        first, last = (ops.floor(ops.add(ops.mul(v, self.spatial_scale), 0.5)) for v in (low, high))
        return first, ops.maximum(ops.add(ops.sub(last, first), 1.0), 1.0)


def _columns(table: Node) -> list[Node]:
    return [ops.reshape(ops.slice_axis(table, 1, i, i + 1), table.shape[:1]) for i in range(5)]


def _as(column: Node, shape: tuple[int, ...]) -> Node:
    """Broadcasts one number a region over `shape`."""
    return ops.broadcast(ops.reshape(column, (shape[0], *(1,) * (len(shape) - 1))), shape)


def _in_bin(shape: tuple[int, ...], bins: int, places: int, first: Node, extent: Node) -> Node:
    """Returns whether a place (index along axis `places`) is in a bin (along axis `bins`)."""
    small, count = tuple(n if i in (0, bins) else 1 for i, n in enumerate(shape)), shape[bins]
    extent, first = (_as(v, small) for v in (extent, first))
    edge = ops.mul(ops.cast(ops.iota(small, bins), "f32"), extent)
    # floor(edge / count) and ceil(next edge / count) of whole numbers: half a unit inside of the
    # step, so that no rounding of the division moves it.
    begin = ops.add(ops.floor(ops.div(ops.add(edge, 0.5), float(count))), first)
    following = ops.add(ops.add(edge, extent), count - 0.5)
    end = ops.add(ops.floor(ops.div(following, float(count))), first)
    place = ops.cast(ops.iota(shape, places), "f32")
    return ops.and_(ops.lesseq(begin, place), ops.less(place, end))


def _first_maximum(x: Node, here: Node, axes: tuple[int, ...]) -> Node:
    """The maximum along `axes` where `here` holds, 0 where it never does.

    The gradient goes to one element: the first along the last of the axes, as in Caffe.
    """
    x = ops.broadcast(x, here.shape)
    best = ops.max_(ops.select(here, ops.stop(x), LEAST), axes)
    place = ops.cast(ops.iota(here.shape, axes[-1]), "f32")
    wins = ops.and_(here, ops.equal(ops.stop(x), ops.broadcast(best, here.shape)))
    first = ops.neg(ops.max_(ops.select(wins, ops.neg(place), -FAR), axes))
    chosen = ops.and_(wins, ops.equal(place, ops.broadcast(first, here.shape)))
    return ops.sum_(ops.select(chosen, x, 0.0), axes)


@layer("PriorBox")
@dataclass(frozen=True)
class PriorBox:
    """Boxes of several sizes and shapes around each place of a map: (1, 2, H * W * boxes * 4).

    The first row holds (xmin, ymin, xmax, ymax) as shares of the image, which is the second bottom;
    the second row the variances. Each min_size gives a square, one of side sqrt(min * max) if there
    are max_sizes, and a box for each aspect ratio (Liu et al. 2016).
    """

    min_size: tuple[float, ...] = option("sides of the small squares, in pixels", above=0)
    max_size: tuple[float, ...] = option("one for each min_size, if any", (), above=0)
    aspect_ratio: tuple[float, ...] = option("width / height of further boxes", (), above=0)
    flip: bool = option("a box of 1 / aspect_ratio, too", True)
    clip: bool = option("hold the boxes inside of the image", False)
    variance: tuple[float, ...] = option("one value or four (0.1)", (), above=0)
    img_size: int | None = option("side of the image, over the second bottom's", None, low=1)
    img_h: int | None = option("height of the image, with img_w", None, low=1)
    img_w: int | None = option("width of the image, with img_h", None, low=1)
    step: float | None = option("pixels between places (image / map)", None, above=0)
    step_h: float | None = option("pixels between rows, with step_w", None, above=0)
    step_w: float | None = option("pixels between columns, with step_h", None, above=0)
    offset: float = option("where in its step a place has its centre", 0.5)

    def build(self, scope: Scope, x: Node, data: Node) -> Node:
        scope.need(x.type.rank == data.type.rank == 4, "needs bottoms (N, C, H, W)")
        self._check(scope)
        sizes = self._boxes()
        shape = (*x.shape[2:], len(sizes), 4)
        box, side = ops.iota(shape, 2), ops.iota(shape, 3)
        along_x = ops.equal(_lookup(side, (0, 1, 0, 1)), 0.0)
        images = self.img_h or self.img_size, self.img_w or self.img_size
        image = [float(a or b) for a, b in zip(images, data.shape[2:], strict=True)]
        given = self.step_h or self.step, self.step_w or self.step
        steps = [a or n / m for a, n, m in zip(given, image, shape, strict=False)]
        y, x_ = (
            ops.mul(ops.add(ops.cast(ops.iota(shape, axis), "f32"), self.offset), steps[axis])
            for axis in (0, 1)
        )
        widths, heights = zip(*sizes, strict=True)
        half = ops.select(along_x, _lookup(box, widths), _lookup(box, heights))
        half = ops.mul(half, _lookup(side, (-0.5, -0.5, 0.5, 0.5)))
        boxes = ops.add(ops.select(along_x, x_, y), half)
        boxes = ops.div(boxes, ops.select(along_x, image[1], image[0]))
        if self.clip:
            boxes = ops.minimum(ops.maximum(boxes, 0.0), 1.0)
        variance = self.variance or (0.1,)
        variances = _lookup(side, variance * 4 if len(variance) == 1 else variance)
        rows = (ops.reshape(row, (1, 1, math.prod(shape))) for row in (boxes, variances))
        return ops.concat(tuple(rows), 1)

    def _check(self, scope: Scope) -> None:
        if not self.min_size:
            scope.error("min_size is empty", "min_size")
        if len(self.max_size) not in (0, len(self.min_size)):
            message = f"{len(self.max_size)} max_sizes for {len(self.min_size)} min_sizes"
            scope.error(message, "max_size")
        if any(b <= a for a, b in zip(self.min_size, self.max_size, strict=False)):
            scope.error("a max_size must be more than its min_size", "max_size")
        if len(self.variance) not in (0, 1, 4):
            scope.error(f"{len(self.variance)} variances: give one or four", "variance")

    def _boxes(self) -> list[tuple[float, float]]:
        """Returns the (width, height) of all boxes of one place."""
        ratios: list[float] = [1.0]
        for ratio in self.aspect_ratio:
            if all(abs(ratio - known) >= 1e-6 for known in ratios):
                ratios += [ratio, 1 / ratio] if self.flip else [ratio]
        boxes = []
        for i, side in enumerate(self.min_size):
            boxes.append((side, side))
            if self.max_size:
                boxes.append((math.sqrt(side * self.max_size[i]),) * 2)
            boxes += [(side * math.sqrt(r), side / math.sqrt(r)) for r in ratios[1:]]
        return boxes


def _lookup(index: Node, values: Sequence[float]) -> Node:
    """Returns values[index], element by element."""
    found = ops.broadcast(ops.const(values[-1]), index.shape)
    for i, value in enumerate(values[:-1]):
        found = ops.select(ops.equal(index, i), value, found)
    return found
