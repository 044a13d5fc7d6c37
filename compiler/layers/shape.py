"""Layers that join or take apart blobs, or view them in another shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope


@layer("Flatten")
@dataclass(frozen=True)
class Flatten:
    """Makes one axis of the axes from `axis` to `end_axis`, both included."""

    axis: int = option("first axis that is joined", 1)
    end_axis: int = option("last axis that is joined", -1)

    def build(self, scope: Scope, x: Node) -> Node:
        first = scope.axis(self.axis, x.type.rank)
        last = scope.axis(self.end_axis, x.type.rank, "end_axis")
        if last < first:
            scope.error(f"end_axis {self.end_axis} is before axis {self.axis}", "end_axis")
        joined = math.prod(x.shape[first : last + 1])
        return ops.reshape(x, (*x.shape[:first], joined, *x.shape[last + 1 :]))


@layer("Reshape")
@dataclass(frozen=True)
class Reshape:
    """The same elements in another shape: 0 keeps an axis, -1 is worked out from the others.

    `shape` stands for num_axes axes (-1: all) from `axis` on; a negative axis counts from one
    behind the last, so that -1 appends. It cannot work in place.
    """

    shape: tuple[tuple[int, ...], ...] = option("the new axes; 0 keeps, -1 infers", (), low=-1)
    axis: int = option("the first axis that is replaced", 0)
    num_axes: int = option("how many axes are replaced; -1 all the rest", -1, low=-1)

    def build(self, scope: Scope, x: Node) -> Node:
        rank = x.type.rank
        if scope.tops and scope.tops[0] == scope.bottoms[0].blob:
            scope.error("cannot work in place", hint="give its top another name than its bottom's")
        if not -rank - 1 <= self.axis <= rank:
            scope.error(f"axis {self.axis} is outside of {scope.bottoms[0]}", "axis")
        first = self.axis % (rank + 1)
        last = rank if self.num_axes == -1 else first + self.num_axes
        if last > rank:
            scope.error(f"{self.num_axes} axes from axis {first} on are too many", "num_axes")
        if len(self.shape) > 1:
            scope.error(f"{len(self.shape)} shapes for one top", "shape")
        return ops.reshape(
            x, (*x.shape[:first], *self._new(scope, x, first, last), *x.shape[last:])
        )

    def _new(self, scope: Scope, x: Node, first: int, last: int) -> tuple[int, ...]:
        dims = list(self.shape[0]) if self.shape else []
        for i, n in enumerate(dims):
            if n == 0 and first + i >= x.type.rank:
                scope.error(f"dim 0 at {i} keeps an axis that {scope.bottoms[0]} has not", "shape")
            dims[i] = n or x.shape[first + i]
        if dims.count(-1) > 1:
            scope.error("only one dim can be -1", "shape")
        size, known = math.prod(x.shape[first:last]), math.prod(n for n in dims if n != -1)
        if size % known if -1 in dims else size != known:
            scope.error(f"{size} elements do not make {tuple(dims)}: {scope.bottoms[0]}", "shape")
        return tuple(size // known if n == -1 else n for n in dims)


@layer("Permute")
@dataclass(frozen=True)
class Permute:
    """The axes in another order; those that `order` leaves out follow in theirs."""

    order: tuple[int, ...] = option("which axis of the bottom comes first, second, ...", (), low=0)

    def build(self, scope: Scope, x: Node) -> Node:
        if len(set(self.order)) < len(self.order):
            scope.error("order has an axis twice", "order")
        if any(axis >= x.type.rank for axis in self.order):
            scope.error(f"order has an axis outside of {scope.bottoms[0]}", "order")
        rest = (axis for axis in range(x.type.rank) if axis not in self.order)
        return ops.transpose(x, (*self.order, *rest))


@layer("Split")
@dataclass(frozen=True)
class Split:
    """The bottom, once for each top; their gradients are added up."""

    def build(self, scope: Scope, x: Node) -> tuple[Node, ...]:
        return (x,) * len(scope.tops)


@layer("Slice")
@dataclass(frozen=True)
class Slice:
    """Cuts the bottom along an axis at the slice_points, or into equal parts: one a top."""

    axis: int = option("the axis along which the bottom is cut", 1)
    slice_point: tuple[int, ...] = option("where each top but the first begins", (), low=0)
    slice_dim: int | None = option("old name of axis", None, low=0)

    def build(self, scope: Scope, x: Node) -> tuple[Node, ...]:
        axis = scope.axis(self.axis if self.slice_dim is None else self.slice_dim, x.type.rank)
        size, count = x.shape[axis], len(scope.tops)
        scope.need(count > 0, "needs a top")
        points = self.slice_point or tuple(i * size // count for i in range(1, count))
        if not self.slice_point and size % count:
            scope.error(f"{count} tops do not divide axis {axis} of {scope.bottoms[0]} evenly")
        if len(points) != count - 1:
            scope.error(f"{len(points)} slice_points for {count} tops", "slice_point")
        edges = (0, *points, size)
        if any(a >= b for a, b in zip(edges, edges[1:], strict=False)):
            message = f"slice_points must grow, from more than 0 to less than {size}"
            scope.error(f"{message}: {scope.bottoms[0]}", "slice_point")
        parts = zip(edges, edges[1:], strict=False)
        return tuple(ops.slice_axis(x, axis, a, b) for a, b in parts)


@layer("Crop")
@dataclass(frozen=True)
class Crop:
    """A piece of the first bottom, as large as the second along the axes from `axis` on."""

    axis: int = option("the first axis that is cropped", 2)
    offset: tuple[int, ...] = option("where the piece begins: one, or one an axis (0)", (), low=0)

    def build(self, scope: Scope, x: Node, like: Node) -> Node:
        axis, rank = scope.axis(self.axis, x.type.rank), x.type.rank
        scope.need(like.type.rank == rank, "its bottoms must have equally many axes")
        if len(self.offset) not in (0, 1, rank - axis):
            scope.error(f"{len(self.offset)} offsets for {rank - axis} axes", "offset")
        offsets = self.offset or (0,)
        offsets = offsets if len(offsets) == rank - axis else offsets * (rank - axis)
        start = (0,) * axis + offsets
        stop = (*x.shape[:axis], *map(sum, zip(offsets, like.shape[axis:], strict=True)))
        if any(b > n for b, n in zip(stop, x.shape, strict=True)):
            scope.need(False, f"the piece from {start} to {stop} does not fit", "offset")
        return ops.slice_(x, start, stop)


@layer("Tile")
@dataclass(frozen=True)
class Tile:
    """The bottom several times over, one behind the other along an axis."""

    tiles: int = option("how many times", low=1)
    axis: int = option("the axis along which it is repeated", 1)

    def build(self, scope: Scope, x: Node) -> Node:
        axis = scope.axis(self.axis, x.type.rank)
        before, after = x.shape[:axis], x.shape[axis:]
        many = ops.broadcast(ops.reshape(x, (*before, 1, *after)), (*before, self.tiles, *after))
        return ops.reshape(many, (*before, self.tiles * after[0], *after[1:]))


@layer("Concat")
@dataclass(frozen=True)
class Concat:
    """The bottoms one after the other along an axis."""

    axis: int = option("the axis along which the bottoms are joined", 1)
    concat_dim: int | None = option("old name of axis", None, low=0)

    def build(self, scope: Scope, x: Node, *more: Node) -> Node:
        axis = scope.axis(self.axis if self.concat_dim is None else self.concat_dim, x.type.rank)
        for k, (source, other) in enumerate(zip(scope.bottoms[1:], more, strict=True), 1):
            same = x.type.rank == other.type.rank and all(
                a == b or i == axis
                for i, (a, b) in enumerate(zip(x.shape, other.shape, strict=True))
            )
            if not same:
                message = f"cannot join {scope.bottoms[0]} and {source}"
                hint = f"only axis {axis} may differ"
                scope.error(message, hint=hint, span=scope.bottom(k))
        return ops.concat((x, *more), axis)


@layer("Eltwise")
@dataclass(frozen=True)
class Eltwise:
    """The product, (weighted) sum or maximum of the bottoms, element by element."""

    operation: Literal["PROD", "SUM", "MAX"] = option("how the bottoms are joined", "SUM")
    coeff: tuple[float, ...] = option("weights of a SUM, one a bottom", ())
    stable_prod_grad: bool = option("accepted and ignored: the gradient never divides", True)

    def build(self, scope: Scope, a: Node, b: Node, *more: Node) -> Node:
        parts = (a, b, *more)
        verb = {"PROD": "multiply", "MAX": "compare"}.get(self.operation, "add")
        for source, part in zip(scope.bottoms, parts, strict=True):
            if part.shape != a.shape:
                scope.mismatch(verb, scope.bottoms[0], source)
        if self.coeff and self.operation != "SUM":
            scope.error(f"coeff is for SUM, not {self.operation}", "coeff")
        if len(self.coeff) not in (0, len(parts)):
            scope.error(f"{len(self.coeff)} values for {len(parts)} bottoms", "coeff")
        if self.operation == "PROD":
            return reduce(ops.mul, parts)
        if self.operation == "MAX":
            # Of equals the second source gets the gradient: of a and b that is b, after them the
            # earlier one, as in Caffe.
            return reduce(lambda best, x: ops.maximum(x, best), more, ops.maximum(a, b))
        weights = self.coeff or (1.0,) * len(parts)
        terms = [x if w == 1 else ops.mul(x, w) for w, x in zip(weights, parts, strict=True)]
        return reduce(ops.add, terms)
