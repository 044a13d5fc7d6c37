"""Layers that rearrange blobs or join several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from compiler import ops
from compiler.ir import Node
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


@layer("Concat")
@dataclass(frozen=True)
class Concat:
    """The bottoms one after the other along an axis."""

    axis: int = option("the axis along which the bottoms are joined", 1)
    concat_dim: int | None = option("old name of axis", None, low=0)

    def build(self, scope: Scope, x: Node, *more: Node) -> Node:
        axis = scope.axis(self.axis if self.concat_dim is None else self.concat_dim, x.type.rank)
        for source, other in zip(scope.bottoms[1:], more, strict=True):
            same = x.type.rank == other.type.rank and all(
                a == b or i == axis
                for i, (a, b) in enumerate(zip(x.shape, other.shape, strict=True))
            )
            if not same:
                message = f"cannot join {scope.bottoms[0]} and {source}"
                scope.error(message, hint=f"only axis {axis} may differ")
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
        for source, part in zip(scope.bottoms, parts, strict=True):
            if part.shape != a.shape:
                scope.error(
                    f"cannot join {scope.bottoms[0]} and {source}", hint="equal shapes only"
                )
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
