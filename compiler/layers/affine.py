"""Scale, Bias and Axpy: products and sums with a blob of fewer axes."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope, Shape
from schemas.params import Filler

AXIS_DOC = "the first axis of the bottom that the operand has"
COUNT_DOC = "how many axes a learned operand has: -1 all from axis on, 0 one number for all"


def learned_shape(scope: Scope, x: Node, axis: int, num_axes: int) -> tuple[int, Shape]:
    """Returns the first axis and the shape of an operand that is a learned blob."""
    first = scope.axis(axis, x.type.rank)
    last = x.type.rank if num_axes == -1 else first + num_axes
    if last > x.type.rank:
        scope.error(f"{num_axes} axes from axis {axis} on are more than {scope.bottoms[0]} has")
    return first, x.shape[first:last]


def operand_axis(scope: Scope, x: Node, operand: Node, axis: int) -> int:
    """Returns the first axis of an operand that is a bottom, after checking its shape."""
    first = scope.axis(axis, x.type.rank) if operand.shape else 0
    fits = x.shape[first : first + operand.type.rank] == operand.shape
    scope.need(fits, f"the second bottom must have the shape of the first from axis {first} on")
    return first


@layer("Scale")
@dataclass(frozen=True)
class Scale:
    """x times a learned blob, or times the second bottom, over some axes; a bias if asked for."""

    axis: int = option(AXIS_DOC, 1)
    num_axes: int = option(COUNT_DOC, 1, low=-1)
    filler: Filler = option("first values of the weight", Filler(value=1.0))
    bias_term: bool = option("whether a bias of the same shape is added", False)
    bias_filler: Filler = option("first values of the bias", Filler())

    def build(self, scope: Scope, x: Node, operand: Node | None = None) -> Node:
        if operand is not None:
            axis, shape = operand_axis(scope, x, operand, self.axis), operand.shape
        else:
            axis, shape = learned_shape(scope, x, self.axis, self.num_axes)
            operand = scope.param("weight", shape, self.filler)
        y = ops.mul(x, ops.expand_like(operand, x, axis))
        if not self.bias_term:
            return y
        return ops.add(y, ops.expand_like(scope.param("bias", shape, self.bias_filler), x, axis))


@layer("Bias")
@dataclass(frozen=True)
class Bias:
    """x plus a learned blob, or plus the second bottom, over some axes."""

    axis: int = option(AXIS_DOC, 1)
    num_axes: int = option(COUNT_DOC, 1, low=-1)
    filler: Filler = option("first values of the bias", Filler())

    def build(self, scope: Scope, x: Node, operand: Node | None = None) -> Node:
        if operand is not None:
            axis = operand_axis(scope, x, operand, self.axis)
        else:
            axis, shape = learned_shape(scope, x, self.axis, self.num_axes)
            operand = scope.param("bias", shape, self.filler)
        return ops.add(x, ops.expand_like(operand, x, axis))


@layer("Axpy")
@dataclass(frozen=True)
class Axpy:
    """scale[n, c] * x + y: one factor for each plane (Hu et al. 2018, Squeeze-and-Excitation)."""

    def build(self, scope: Scope, scale: Node, x: Node, y: Node) -> Node:
        scope.need(x.shape == y.shape, "x and y must have the same shape")
        fits = (
            x.type.rank >= 2
            and scale.shape[:2] == x.shape[:2]
            and not any(n != 1 for n in scale.shape[2:])
        )
        scope.need(fits, "the scale must have one number for each item and channel")
        planes = ops.reshape(scale, x.shape[:2])
        return ops.add(ops.mul(ops.expand_like(planes, x, 0), x), y)
