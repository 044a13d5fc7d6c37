"""Small layers: Reduction, Silence, Parameter, HDF5Output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.params import Filler


@layer("Reduction")
@dataclass(frozen=True)
class Reduction:
    """The sum, sum of absolute values, sum of squares or mean over all axes from `axis` on."""

    operation: Literal["SUM", "ASUM", "SUMSQ", "MEAN"] = option("what is computed", "SUM", first=1)
    axis: int = option("the first axis that is summed over; the ones before it stay", 0)
    coeff: float = option("the result is multiplied by this", 1.0)

    def build(self, scope: Scope, x: Node) -> Node:
        axis = scope.axis(self.axis, x.type.rank)
        if self.operation == "ASUM":
            x = ops.abs_(x)
        elif self.operation == "SUMSQ":
            x = ops.mul(x, x)
        mean = self.operation == "MEAN"
        factor = self.coeff / (math.prod(x.shape[axis:]) if mean else 1)
        y = ops.reshape(ops.sum_(x, tuple(range(axis, x.type.rank))), x.shape[:axis])
        return y if factor == 1 else ops.mul(y, factor)


@layer("Silence")
@dataclass(frozen=True)
class Silence:
    """Reads blobs that nothing else reads, so that they are no outputs of the net."""

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        return ()


@layer("HDF5Output")
@dataclass(frozen=True)
class HDF5Output:
    """Writes two blobs to a file, as its datasets data and label: the rows of all runs."""

    file_name: str = option("the .h5 file, written whole at the end of a run or a test")

    def build(self, scope: Scope, data: Node, label: Node) -> tuple[Node, ...]:
        if not data.shape or not label.shape or data.shape[0] != label.shape[0]:
            scope.error(f"writes rows in pairs: {scope.bottoms[0]} and {scope.bottoms[1]}")
        scope.sink(self.file_name, data=data, label=label)
        return ()


@layer("Parameter")
@dataclass(frozen=True)
class Parameter:
    """A learned blob as a top; its first values are 0."""

    shape: tuple[tuple[int, ...], ...] = option("shape of the blob")

    def build(self, scope: Scope) -> Node:
        if len(self.shape) != 1:
            scope.error(f"{len(self.shape)} shapes for one top", "shape")
        return scope.param("weight", self.shape[0], Filler())
