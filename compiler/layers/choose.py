"""Layers that choose elements or rows: ArgMax, Filter, BatchReindex, Embed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.params import Filler


@layer("ArgMax")
@dataclass(frozen=True)
class ArgMax:
    """The places of the top_k largest elements of each item; of equals the last. No gradient.

    Without an axis: over all of an item, shape (N, 1, top_k), or (N, 2, top_k) with the values
    behind the places. With one: along it, the places or (out_max_val) the values. Beyond the first,
    each element is compared with each other one, which is slow for more than some thousands.
    """

    out_max_val: bool = option("give the values too, or with an axis instead", False)
    top_k: int = option("how many elements are found", 1, low=1)
    axis: int | None = option("the axis that is searched; none: all but the first", None)

    def build(self, scope: Scope, x: Node) -> Node:
        if self.axis is None:
            scope.need(x.type.rank >= 1, "needs a bottom with axes")
            rows = ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
            places, values = self._best(scope, rows, 1)
            n, k, ones = x.shape[0], self.top_k, (1,) * (x.type.rank - 3)
            places, values = (ops.reshape(v, (n, 1, k, *ones)) for v in (places, values))
            return ops.concat((places, values), 1) if self.out_max_val else places
        places, values = self._best(scope, x, scope.axis(self.axis, x.type.rank))
        return values if self.out_max_val else places

    def _best(self, scope: Scope, x: Node, axis: int) -> tuple[Node, Node]:
        """Returns the places (as f32) and values of the top_k along an axis, best first."""
        if self.top_k > x.shape[axis]:
            scope.need(False, f"top_k {self.top_k} is more than {x.shape[axis]} elements", "top_k")
        x = ops.stop(x)
        place = ops.cast(ops.iota(x.shape, axis), "f32")
        if self.top_k == 1:
            best = ops.max_(x, (axis,))
            return ops.max_(ops.select(ops.equal(x, best), place, -1.0), (axis,)), best
        # One axis more: the k-th best is the one whose rank is k.
        rank = ops.reshape(_rank(x, axis), _insert(x.shape, axis, 1))
        wanted = ops.iota(_insert(x.shape, axis, self.top_k), axis)
        here = ops.equal(ops.broadcast(rank, wanted.shape), ops.cast(wanted, "f32"))
        shape = tuple(self.top_k if i == axis else n for i, n in enumerate(x.shape))
        return tuple(  # type: ignore[return-value]
            ops.reshape(
                ops.sum_(ops.select(here, ops.reshape(v, rank.shape), 0.0), (axis + 1,)), shape
            )
            for v in (place, x)
        )


def _rank(x: Node, axis: int) -> Node:
    """Returns how many elements along an axis beat each one; a later one beats its equal."""
    mine, other = _insert(x.shape, axis + 1, 1), _insert(x.shape, axis, 1)
    both = _insert(x.shape, axis, x.shape[axis])
    a = ops.broadcast(ops.reshape(x, mine), both)
    b = ops.broadcast(ops.reshape(x, other), both)
    later = ops.less(ops.iota(both, axis), ops.iota(both, axis + 1))
    beaten = ops.select(ops.less(a, b), 1.0, ops.select(ops.and_(later, ops.equal(a, b)), 1.0, 0.0))
    return ops.reshape(ops.sum_(beaten, (axis + 1,)), x.shape)


def _insert(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis:])


@layer("Filter")
@dataclass(frozen=True)
class Filter:
    """The items of each bottom but the last whose number in the last bottom is not 0.

    `net.forward` makes tops of as many items as are chosen, as Caffe does. Elsewhere shapes are
    known before a net runs: a top has `count` items, the chosen ones at the front, in their order,
    and zeros behind them. The gradient goes to the chosen items.
    """

    count: int | None = option("number of items in the tops (as many as in the bottoms)", None)

    def build(self, scope: Scope, x: Node, y: Node, *more: Node) -> tuple[Node, ...]:
        bottoms = (x, y, *more)
        data, selector = bottoms[:-1], bottoms[-1]
        n = selector.shape[0] if selector.shape else 0
        scope.need(selector.type.size == n > 0, "the last bottom must have one number an item")
        for source, one in zip(scope.bottoms, data, strict=False):
            scope.need(
                one.shape[:1] == (n,), f"the selector is of {n} items, not as many as {source}"
            )
        count = n if self.count is None else self.count
        if not 0 <= count <= n:
            scope.error(f"count {count} is not from 0 to {n}", "count")
        chosen = ops.reshape(ops.stop(selector), (1, n))
        chosen = ops.select(ops.equal(chosen, 0.0), 0.0, 1.0)
        # At (i, j): whether the chosen item j goes to place i, which as many as i come before.
        before = ops.less(ops.iota((n, n), 1), ops.iota((n, n), 0))
        place = ops.sum_(ops.select(before, ops.broadcast(chosen, (n, n)), 0.0), (1,))
        goes = ops.equal(ops.cast(ops.iota((n, n), 0), "f32"), ops.reshape(place, (1, n)))
        found = ops.mul(ops.add(ops.cast(ops.iota((n, n), 1), "f32"), 1.0), chosen)
        index = ops.sub(ops.sum_(ops.select(goes, found, 0.0), (1,)), 1.0)
        index = ops.slice_axis(ops.cast(ops.reshape(index, (n,)), "i32"), 0, 0, count)
        return tuple(ops.gather(one, index, 0) for one in data)


@layer("BatchReindex")
@dataclass(frozen=True)
class BatchReindex:
    """Item index[i] of the first bottom as item i; the second bottom holds the index."""

    def build(self, scope: Scope, x: Node, index: Node) -> Node:
        scope.need(index.type.rank == 1, "the index must have one axis")
        scope.need(x.type.rank >= 1, "needs a bottom with items")
        return ops.gather(x, ops.cast(index, "i32"), 0)


@layer("Embed")
@dataclass(frozen=True)
class Embed:
    """Row x of the weight (input_dim, num_output) for each number x of the bottom, plus a bias."""

    num_output: int = option("length of a row", low=1)
    input_dim: int = option("number of rows: the bottom is from 0 to input_dim - 1", low=1)
    bias_term: bool = option("whether a bias is added", True)
    weight_filler: Filler = option("first values of the weights", Filler())
    bias_filler: Filler = option("first values of the bias", Filler())

    def build(self, scope: Scope, x: Node) -> Node:
        weight = scope.param("weight", (self.input_dim, self.num_output), self.weight_filler)
        y = ops.gather(weight, ops.cast(x, "i32"), 0)
        if not self.bias_term:
            return y
        bias = scope.param("bias", (self.num_output,), self.bias_filler)
        return ops.add(y, ops.expand_like(bias, y, x.type.rank))
