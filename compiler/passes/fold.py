"""Folds sums and products with weights into one product and one sum a channel.

What BatchNorm, Scale and Bias do to a blob outside of training is x * m + c, with an m and a c that
only weights make. Computed where it is read, it takes a root and a division for each element. Here
m and c become vectors (`storage` keeps them) that are made anew in every step: a few thousand
numbers beside millions, and whoever changes a weight need not tell anybody. Behind a contraction
the product and the sum are its epilogue; to multiply m into the weights would save nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from compiler.ir.graph import Graph
from compiler.ir.inlining import FIXED, map_cost
from compiler.ir.node import Node, made_of, users_of
from compiler.prims.maps import SCALARS, add, div, mul, neg
from compiler.prims.registry import make

# A chain that costs no more than this stays as it is: a bias, a slope and another bias.
CHEAP = 4


@dataclass(frozen=True)
class Affine:
    """A value as (x + shift) * factor + offset, in which only weights make all but x.

    None is left out. The operands have unit axes where they are broadcast. `cost` is what the chain
    of maps takes for each element, up to CHEAP or beyond it.
    """

    x: Node
    shift: Node | None = None
    factor: Node | None = None
    offset: Node | None = None
    cost: int = 0

    def plus(self, operand: Node) -> Affine:
        if self.factor is None:
            return replace(self, shift=_both(add, self.shift, operand))
        return replace(self, offset=_both(add, self.offset, operand))

    def times(self, operand: Node) -> Affine:
        offset = None if self.offset is None else mul(self.offset, operand)
        return replace(self, factor=_both(mul, self.factor, operand), offset=offset)

    @property
    def constant(self) -> Node | None:
        """Returns c of x * m + c; it reads m, so that one kernel makes both."""
        moved = self.shift
        if self.shift is not None and self.factor is not None:
            moved = mul(self.shift, self.factor)
        return moved if self.offset is None else _both(add, moved, self.offset)

    @property
    def value(self) -> Node:
        """Returns x * m + c."""
        scaled = self.x if self.factor is None else mul(self.x, self.factor)
        return scaled if self.constant is None else add(scaled, self.constant)

    @property
    def operands(self) -> list[Node]:
        return [o for o in (self.shift, self.factor, self.offset) if o is not None]


def _both(op: Callable[[Node, Node], Node], a: Node | None, b: Node) -> Node:
    return b if a is None else op(a, b)


def affine(order: Sequence[Node]) -> dict[Node, Affine]:
    """Returns the nodes (given sources first) that are an affine map of another by weights.

    A chain begins anew where its operands would grow: at a Scale over another axis.
    """
    fixed = made_of(FIXED, order)
    found: dict[Node, Affine] = {}
    for node in order:
        if node.prim not in ("add", "sub", "mul", "div") or node in fixed:
            continue
        value, operand = node.src
        if value in fixed and node.prim in ("add", "mul"):
            value, operand = operand, value
        if operand not in fixed:
            continue
        if operand.prim == "broadcast":
            (operand,) = operand.src
        before = found.get(value, Affine(value))
        if _grows(before.operands, operand):
            before = Affine(value)
        after = _step(node.prim, before, operand)
        cost = before.cost + SCALARS[node.prim].cost + map_cost(operand, set())
        found[node] = replace(after, cost=cost)
    return found


def _grows(operands: Sequence[Node], more: Node) -> bool:
    """Returns whether the operands broadcast to more elements than any of them has."""
    shapes = [o.shape for o in (*operands, more)]
    return prod(np.broadcast_shapes(*shapes)) > max(map(prod, shapes))


def _step(prim: str, before: Affine, operand: Node) -> Affine:
    if prim in ("add", "sub"):
        return before.plus(operand if prim == "add" else neg(operand))
    return before.times(operand if prim == "mul" else div(1.0, operand))


def fold_weights(graph: Graph) -> dict[Node, Node]:
    """Returns what each node becomes, each costly chain of affine maps one product and one sum."""
    order = graph.nodes()
    users, found = users_of(order), affine(order)
    results = set(graph.roots())
    new: dict[Node, Node] = {}
    for node in order:
        sources = tuple(new[s] for s in node.src)
        new[node] = node if sources == node.src else make(node.prim, *sources, **dict(node.attrs))
        chain = found.get(node)
        if chain is None or chain.cost <= CHEAP or _small(chain):
            continue
        inner = node not in results and all(_goes_on(chain, found.get(u)) for u in users[node])
        if not inner:  # what is only on the way to the end of the chain falls away
            new[node] = replace(chain, x=new[chain.x]).value
    return new


def _goes_on(chain: Affine, reader: Affine | None) -> bool:
    return reader is not None and reader.x is chain.x


def _small(chain: Affine) -> bool:
    """Returns whether the operands are as large as what they are for: nothing is saved."""
    return max(o.type.size for o in chain.operands) >= chain.x.type.size
