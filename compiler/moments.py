"""Mean and variance of long runs take one read of memory, part by part.

A mean takes one read of a blob and the squared distances from it another. Here both are taken of
parts that stay in the nearest caches between the two, and joined as Chan, Golub and LeVeque (1979)
do: with m the mean of a part's n numbers and q the sum of their squared distances from m, the mean
of all is M = mean(m), and the sum of squared distances from it is sum(q + n * (m - M) ** 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from compiler.graph import Graph
from compiler.ir import Node
from compiler.prims import moves
from compiler.prims.maps import add, div, mul, sub
from compiler.prims.reduce import sum_
from compiler.prims.registry import make
from compiler.simplify import splat

_FEW = 32  # a part of fewer numbers is not worth its sums


@dataclass(frozen=True)
class _Parts:
    """How x falls into parts: its shape then, which axes number the parts, which are within."""

    shape: tuple[int, ...]
    across: tuple[int, ...]
    within: tuple[int, ...]

    def joined(self, x: Node, like: Node) -> tuple[Node, Node]:
        """Returns the mean of x and the sum of squared distances from it, shaped as `like`."""
        x = moves.reshape(x, self.shape)
        size = float(prod(self.shape[a] for a in self.within))
        means = div(sum_(x, self.within), size)
        away = sub(x, means)
        squares = sum_(mul(away, away), self.within)
        mean = div(sum_(means, self.across), float(prod(self.shape[a] for a in self.across)))
        apart = sub(means, mean)
        squares = sum_(add(squares, mul(mul(apart, apart), size)), self.across)
        return moves.reshape(mean, like.shape), moves.reshape(squares, like.shape)


def part_moments(graph: Graph, longest: int) -> dict[Node, Node]:
    """Returns what each node becomes: variances of more numbers than `longest`, and their means."""
    order = graph.nodes()
    found: dict[Node, tuple[Node, _Parts]] = {}
    for node in order:
        mean = _mean_of(node)
        parts = _parts(mean.src[0], longest) if mean is not None else None
        if mean is not None and parts is not None:
            found[node] = found[mean] = mean, parts
    new: dict[Node, Node] = {}
    for node in order:
        sources = tuple(new[s] for s in node.src)
        if node in found:
            mean, parts = found[node]
            new[node] = parts.joined(new[mean.src[0].src[0]], node)[node is not mean]
        elif sources == node.src:
            new[node] = node
        else:
            new[node] = make(node.prim, *sources, **dict(node.attrs))
    return new


def _mean_of(squares: Node) -> Node | None:
    """Returns sum(x) / n if the node is sum((x - sum(x) / n) ** 2) over the same n numbers."""
    if squares.prim != "sum" or squares.src[0].prim != "mul":
        return None
    away, again = squares.src[0].src
    if away is not again or away.prim != "sub" or away.src[1].prim != "broadcast":
        return None
    x, mean = away.src[0], away.src[1].src[0]
    if mean.prim not in ("div", "mul"):
        return None
    total, by = mean.src[0], splat(mean.src[1])
    count = x.type.size // squares.type.size
    whole = total.prim == "sum" and total.src[0] is x and total.attrs == squares.attrs
    return mean if whole and by == (count if mean.prim == "div" else 1 / count) else None


def _parts(total: Node, longest: int) -> _Parts | None:
    """Splits the axes of a sum so that the inner ones have `longest` places at most."""
    x, axes = total.src[0], total.attr("axes")
    size, sizes = 1, dict.fromkeys(axes, 1)
    for axis in reversed(axes):
        sizes[axis] = _divisor(x.shape[axis], longest // size)
        size *= sizes[axis]
        if sizes[axis] < x.shape[axis]:
            break
    if size < _FEW or size == prod(x.shape[a] for a in axes):
        return None
    shape: list[int] = []
    across: list[int] = []
    within: list[int] = []
    for axis, n in enumerate(x.shape):
        pieces = [(n // sizes[axis], across), (sizes[axis], within)] if axis in axes else [(n, [])]
        for length, kind in pieces:
            if length > 1 or axis not in axes:
                kind.append(len(shape))
                shape.append(length)
    return _Parts(tuple(shape), tuple(across), tuple(within))


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if n % d == 0)
