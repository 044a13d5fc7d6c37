"""Long sums over places fall into parts, so that each takes one read of memory, or none.

A mean takes one read of a blob and the squared distances from it another. Here both are taken of
parts that stay in the nearest caches between the two, and joined as Chan, Golub and LeVeque (1979)
do: with m the mean of a part's n numbers and q the sum of their squared distances from m, the mean
of all is M = mean(m), and the sum of squared distances from it is sum(q + n * (m - M) ** 2). To
take both in one read of m and q as well, distances d are those from the first part's mean, which
is near M: the sum is sum(q) + n * (sum(d ** 2) - sum(mean(d) ** 2)).

Where contractions and windows take sums over their tiles' rows (`Traits.rows`), a part is such a
tile, and so are the parts of any other sum over the rows of what they make: `rowsums` merges them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod

from compiler.ir.graph import Graph
from compiler.ir.inlining import SLID
from compiler.ir.node import Node
from compiler.lowering.fuse import ROW_LIMIT
from compiler.lowering.joins import MOST
from compiler.lowering.storage import memory_order
from compiler.passes.simplify import splat
from compiler.prims import moves
from compiler.prims.maps import SCALARS as MAPS
from compiler.prims.maps import add, div, mul, sub
from compiler.prims.reduce import sum_
from compiler.prims.registry import make
from compiler.prims.window import Window

_AT_ONCE = 256  # to read the sums of so many tiles takes as long as to wait once more
_FEW = 32  # a part of fewer numbers is not worth its sums


@dataclass(frozen=True)
class _Parts:
    """How x falls into parts: which axes of its view are within a part, and how parts are joined.

    They are joined over some axes of a shape, what comes of it over some of another, and so on.
    """

    order: tuple[int, ...]  # of the axes of x in the view
    shape: tuple[int, ...]
    within: tuple[int, ...]
    joins: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    def view(self, x: Node) -> Node:
        return moves.reshape(moves.transpose(x, self.order), self.shape)

    def total(self, x: Node, like: Node) -> Node:
        """Returns the sum of x, shaped as `like`."""
        sums = sum_(self.view(x), self.within)
        for shape, across in self.joins:
            sums = sum_(moves.reshape(sums, shape), across)
        return moves.reshape(sums, like.shape)

    def moments(self, x: Node, like: Node) -> tuple[Node, Node]:
        """Returns the mean of x and the sum of squared distances from it, shaped as `like`."""
        x = self.view(x)
        size = float(prod(self.shape[a] for a in self.within))
        means = div(sum_(x, self.within), size)
        away = sub(x, means)
        squares = sum_(mul(away, away), self.within)
        for shape, across in self.joins:
            means, squares = moves.reshape(means, shape), moves.reshape(squares, shape)
            means, squares = _joined(means, squares, across, size)
            size *= prod(shape[a] for a in across)
        return moves.reshape(means, like.shape), moves.reshape(squares, like.shape)


def _joined(means: Node, squares: Node, across: tuple[int, ...], size: float) -> tuple[Node, Node]:
    """Returns mean and squared distances of parts of so many numbers together."""
    first = means
    for axis in across:
        first = moves.slice_axis(first, axis, 0, 1)
    apart, parts = sub(means, first), float(prod(means.shape[a] for a in across))
    mean = add(div(sum_(apart, across), parts), first)
    off = sub(mean, first)
    spread = sub(sum_(mul(apart, apart), across), mul(mul(off, off), parts))
    return mean, add(sum_(squares, across), mul(spread, size))


def part_moments(graph: Graph, longest: int, rows: Sequence[int] = ()) -> dict[Node, Node]:
    """Returns what each node becomes: variances of more numbers than `longest`, and their means.

    With `rows`, also what other sums over the rows of contractions and windows become.
    """
    order = graph.nodes()
    place = {node: i for i, node in enumerate(order)}
    found: dict[Node, tuple[Node, _Parts]] = {}
    plain: dict[Node, _Parts] = {}
    for node in order:
        mean = _mean_of(node)
        if mean is not None:
            parts = _tiles(mean.src[0], rows, place)
            if parts is None and longest:
                parts = _parts(mean.src[0], longest)
            if parts is not None:
                found[node] = found[mean] = mean, parts
        elif node.prim == "sum" and (parts := _tiles(node, rows, place)) is not None:
            plain[node] = parts
    new: dict[Node, Node] = {}
    for node in order:
        sources = tuple(new[s] for s in node.src)
        if node in found:
            mean, parts = found[node]
            new[node] = parts.moments(new[mean.src[0].src[0]], node)[node is not mean]
        elif node in plain:
            new[node] = plain[node].total(sources[0], node)
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
    parts = tuple(1 if i in within else n for i, n in enumerate(shape))
    joins = ((parts, tuple(across)),)
    return _Parts(tuple(range(len(x.shape))), tuple(shape), tuple(within), joins)


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if n % d == 0)


def _tiles(total: Node, rows: Sequence[int], place: Mapping[Node, int]) -> _Parts | None:
    """Returns tiles of rows, if the sum is over all of what a contraction or window makes last."""
    x, order = total.src[0], memory_order(total.src[0].shape)
    count = x.type.size // total.type.size
    size = next((n for n in rows if count % n == 0), 0)
    # A row of fewer numbers is one kernel with all that is made of its sums.
    if not size or count <= ROW_LIMIT or not _over_rows(total, order):
        return None
    last = max(_made_of(x), key=lambda node: place[node], default=x)
    alike = last.type.size == x.type.size and last.type.rank >= x.type.rank
    if not _takes_sums(last) or not alike:
        return None
    columns = total.type.size
    return _Parts(order, (count // size, size, columns), (1,), _joins(count // size, columns))


def _joins(tiles: int, columns: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Returns how sums of tiles are joined: as groups first where they are many.

    A program reads the fewest sums one after the other where the groups are about as many as the
    tiles of each.
    """
    groups = _divisor(tiles, isqrt(tiles))
    if tiles <= _AT_ONCE or tiles // groups > MOST:
        return (((tiles, 1, columns), (0,)),)
    return (((groups, tiles // groups, columns), (1,)), ((groups, 1, columns), (0,)))


def _takes_sums(node: Node) -> bool:
    """Says whether a node is a contraction or a window: see rowsums.py.

    The gradient of windows that do not overlap goes into the product before it, which does not.
    """
    if not node.prim.startswith(("pool_", "unpool_")):
        return node.prim == "contract"
    window: Window = node.attr("window")
    apart = all(s >= k for s, k in zip(window.stride, window.size, strict=True))
    return node.prim.startswith("pool_") or not apart


def _over_rows(total: Node, order: Sequence[int]) -> bool:
    """Says whether a sum keeps the axis that lies innermost in memory, and no other."""
    return all(total.shape[a] == 1 for a in order[:-1]) and total.shape[order[-1]] > 1


def _made_of(x: Node) -> set[Node]:
    """Returns what maps and moves alone make x of, but for leaves."""
    found, stack = set[Node](), [x]
    while stack:
        node = stack.pop()
        if node.prim in MAPS.keys() | SLID:
            stack.extend(node.src)
        elif node.src:
            found.add(node)
    return found
