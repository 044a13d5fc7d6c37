"""Convolutions of stride 1 by Winograd's minimal filtering F(m x m, r x r): fewer products.

A tile of m x m results needs m + r - 1 points an axis instead of m * r products. In two
dimensions, with the matrices A, B and G of Toom and Cook's evaluation at those points,

    y = A' [(G w G') * (B' x B)] A

where * goes point by point and sums over channels: one matrix product a point, which all tiles of
all pictures share. The data gradient is a convolution as well, with the kernel turned. So is the
weight gradient: its results are the r x r taps, its kernel the m x m tiles of x, and it reads the
same transform of the upper gradient as the data gradient does, so that nothing has to be kept from
the forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.ir.recurrence import loops
from compiler.prims.contract import Labels, contract
from compiler.prims.moves import reshape, transpose
from compiler.prims.registry import make
from compiler.prims.winograd import Matrix, Tiling, from_tiles, to_tiles

# The points beside infinity for tiles of so many. Small and near 1, so that no power of them is
# far from it: with 3/4 and 3/2 the results are four times as exact as with the usual 1 and 2.
_POINTS = {
    4: (Fraction(0), Fraction(1), Fraction(-1)),
    6: (Fraction(0), *(Fraction(n, 4) for n in (3, -3, 6, -6))),
}
# Measured (Ice Lake, 2 threads): products of matrices go at 300 GFLOP/s, convolutions as they are
# written at 225, what the transforms read and write at 17 GB/s.
_DIRECT = 225 / 300
_BYTE = 300 / 17  # operations in the time of a byte
_PANELS = (64, 48, 32)


@dataclass(frozen=True)
class Filtering:
    """The matrices of F(m, r): B' of the data, G of the kernel, A' of the result."""

    data: Matrix
    kernel: Matrix
    result: Matrix


@lru_cache
def filtering(m: int, r: int) -> Filtering:
    """Returns the matrices of m results and r taps, exact before they are rounded."""
    points = _POINTS[m + r - 1]
    scales = [prod(a - b for b in points if b != a) for a in points]
    data = [_polynomial([b for b in points if b != a]) for a in points]
    kernel = [[a**k / s for k in range(r)] for a, s in zip(points, scales, strict=True)]
    return Filtering(
        _floats([[*row, Fraction(0)] for row in data] + [_polynomial(points)]),
        _floats([*kernel, [Fraction(k == r - 1) for k in range(r)]]),
        _floats([[*(a**i for a in points), Fraction(i == m - 1)] for i in range(m)]),
    )


def _polynomial(roots: list[Fraction] | tuple[Fraction, ...]) -> list[Fraction]:
    """Returns the coefficients of the product of (x - root), the lowest first."""
    found = [Fraction(1)]
    for root in roots:
        times_x = [Fraction(0), *found]
        found = [a - root * b for a, b in zip(times_x, [*found, Fraction(0)], strict=True)]
    return found


def _floats(rows: list[list[Fraction]]) -> Matrix:
    return tuple(tuple(map(float, row)) for row in rows)


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1 with a square kernel, or one of its gradients."""

    sizes: Mapping[str, int]  # by label; g: groups, which do not mix
    taps: int
    pad: tuple[int, int]

    @property
    def turned(self) -> tuple[int, int]:
        """The padding of the data gradient, which slides the turned kernel over the result."""
        return self.taps - 1 - self.pad[0], self.taps - 1 - self.pad[1]

    @property
    def weight(self) -> tuple[int, ...]:
        n = self.sizes
        return n["g"], n["o"], n["c"], self.taps, self.taps

    def cost(self) -> float:
        """Returns its time as it is written, in operations of a product of matrices."""
        n = self.sizes
        return 2 * prod(self.weight) * n["n"] * n["y"] * n["x"] / _DIRECT

    def cost_by_tiles(self, m: int) -> float:
        """Returns its time by tiles of m x m: the same for it and for its gradients.

        Each of the three tensors is read or written once, its transform written and read again.
        """
        n, points = self.sizes, (m + self.taps - 1) ** 2
        rows, columns = _count((n["y"], n["x"]), m)
        tiles, (groups, o, c, *_) = n["n"] * rows * columns, self.weight
        moved = prod(self.weight) + n["n"] * groups * (c * n["h"] * n["w"] + o * n["y"] * n["x"])
        moved += 2 * points * groups * (tiles * c + tiles * o + c * o)
        return 2 * points * groups * tiles * c * o + 4 * moved * _BYTE

    def tile(self) -> int | None:
        """Returns the size of the tiles by which it is fastest, None: as it is written."""
        known = [m for m in (4, 2) if m + self.taps - 1 in _POINTS]
        best = min(known, key=self.cost_by_tiles)
        return best if self.cost_by_tiles(best) < self.cost() else None


def convolution(node: Node) -> Convolution | None:
    """Returns what a node is if it is a contraction that Winograd's form suits."""
    if node.prim != "contract":
        return None
    labels: Labels = node.attr("labels")
    if (labels.a, labels.b, labels.out) not in _MAKE:
        return None
    sizes = {"g": 1, **dict(labels.sizes)}
    taps = sizes[labels.slides[0].tap]
    plain = all(
        s.stride == s.dilation == 1 and sizes[s.tap] == taps and s.pad < taps for s in labels.slides
    )
    if not plain or taps not in (3, 5):
        return None
    rows, columns = labels.slides
    return Convolution(sizes, taps, (rows.pad, columns.pad))


def filtered(graph: Graph) -> dict[Node, Node]:
    """Returns what each node becomes, the convolutions for which it pays in Winograd's form."""
    order = graph.nodes()
    inside, _ = loops(order, graph.recurrences)
    new: dict[Node, Node] = {}
    for node in order:
        sources = tuple(new[s] for s in node.src)
        now = node if sources == node.src else make(node.prim, *sources, **dict(node.attrs))
        # A loop goes through time step by step, and so would the transforms.
        found = convolution(node) if node not in inside else None
        m = found.tile() if found is not None else None
        new[node] = by_tiles(now, found, m) if found is not None and m is not None else now
    return new


def by_tiles(node: Node, of: Convolution, m: int) -> Node:
    """Returns a convolution, or one of its gradients, by tiles of m x m."""
    labels: Labels = node.attr("labels")
    a, b = (
        reshape(s, of.weight if "i" in part else _picture(s.shape))
        for s, part in zip(node.src, (labels.a, labels.b), strict=True)
    )
    made = _MAKE[labels.a, labels.b, labels.out](a, b, of, m)
    return reshape(made, node.shape)


def _picture(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape (N, C, H, W) of pictures whose channels may lie in groups."""
    return shape[0], prod(shape[1:-2]), *shape[-2:]


def _forward(x: Node, w: Node, of: Convolution, m: int) -> Node:
    matrices, extent = filtering(m, of.taps), (of.sizes["y"], of.sizes["x"])
    tiles = to_tiles(x, Tiling(matrices.data, m, of.pad, _count(extent, m)))
    products = _products(tiles, w, matrices.kernel)
    return from_tiles(products, Tiling(matrices.result, m, (0, 0), _count(extent, m)), extent)


def _to_data(g: Node, w: Node, of: Convolution, m: int) -> Node:
    matrices, extent = filtering(m, of.taps), (of.sizes["h"], of.sizes["w"])
    tiles = to_tiles(g, Tiling(matrices.data, m, of.turned, _count(extent, m)))
    turned = tuple(row[::-1] for row in matrices.kernel)
    products = _products(tiles, transpose(w, (0, 2, 1, 3, 4)), turned)
    return from_tiles(products, Tiling(matrices.result, m, (0, 0), _count(extent, m)), extent)


def _to_weight(x: Node, g: Node, of: Convolution, m: int) -> Node:
    matrices, count = filtering(of.taps, m), _count((of.sizes["h"], of.sizes["w"]), m)
    groups, outputs, inputs, *taps = of.weight
    tiles = _grouped(to_tiles(g, Tiling(matrices.data, m, of.turned, count)), groups)
    kernel = _grouped(to_tiles(x, Tiling(matrices.kernel, m, (0, 0), count)), groups)
    products = contract(kernel, tiles, "pcgqnyx,pogqnyx->poqgc")
    products = reshape(products, (*products.shape[:3], groups * inputs, 1, 1))
    turned = Tiling(matrices.result[::-1], of.taps, (0, 0), (1, 1))
    made = from_tiles(products, turned, (of.taps, of.taps))
    return transpose(reshape(made, (groups, inputs, outputs, *taps)), (0, 2, 1, 3, 4))


_MAKE = {
    tuple(labels.replace("g", "") if plain else labels for labels in way): make_
    for way, make_ in (
        (("ngchw", "gocij", "ngoyx"), _forward),
        (("ngoyx", "gocij", "ngchw"), _to_data),
        (("ngchw", "ngoyx", "gocij"), _to_weight),
    )
    for plain in (False, True)
}


def _count(extent: tuple[int, int], m: int) -> tuple[int, int]:
    return -(-extent[0] // m), -(-extent[1] // m)


def _grouped(tiles: Node, groups: int) -> Node:
    """Returns tiles as (points, c, g, ...): channels within their group stay last in memory."""
    points, channels, *rest = tiles.shape
    split = reshape(tiles, (points, groups, channels // groups, *rest))
    return transpose(split, (0, 2, 1, *range(3, 3 + len(rest))))


def _products(tiles: Node, w: Node, matrix: Matrix) -> Node:
    """Returns the sums over channels, at each point, of tiles times the kernels w (g, o, c, r, r).

    Kernels lie in panels of results, as wide as a matrix product reads at once: of rows much longer
    than that, each piece would be on a page of its own.
    """
    groups, results, channels, *taps = w.shape
    width = next((n for n in _PANELS if results % n == 0), results)
    panels = results // width
    w = transpose(reshape(w, (groups * panels, width, channels, *taps)), (0, 2, 1, 3, 4))
    w = reshape(w, (groups * panels * channels, width, *taps))
    kernel = to_tiles(w, Tiling(matrix, 1, (0, 0), (1, 1)))
    kernel = reshape(kernel, (*kernel.shape[:3], groups, panels, channels))
    products = contract(_grouped(tiles, groups), kernel, "pcgqnyx,pbqgac->pgabqnyx")
    return reshape(products, (len(matrix), groups * results, *tiles.shape[2:]))
