"""What is computed where it is read rather than stored, and what that costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from math import ceil, prod

from compiler.ir.node import Node
from compiler.prims.contract import Labels
from compiler.prims.maps import SCALARS as MAPS

LEAVES = {"input", "param", "state", "delayed"}
# What is made of these alone changes with the weights, not with the inputs.
FIXED = {"param", "state", "const", "iota"}
VIEWS = {"reshape", "transpose"}
ANCHORS = {
    "sum", "max", "pool_max", "pool_argmax", "pool_sum", "pool_at", "unpool_max", "unpool_sum",
    "contract", "to_tiles", "from_tiles", "gather", "scatter", "host",
}  # fmt: skip
JOINS = {"concat", "pack"}
SLID = VIEWS | {"slice", "broadcast", "pad"}  # what an address can express
# A map that costs more than this is stored rather than computed again under every window tap.
WINDOW_MAP_COST = 4
# So is one that is read at many times as many places as it has elements (the root of a variance);
# and, outside of training, one of weights alone that costs more than this.
MANY = 16
FIXED_MAP_COST = 2
# So many results of a contraction are made of a number of a factor when it is read.
COLUMNS = 128


def stripped(node: Node, through: Set[str] = SLID) -> Node:
    """Returns the node under views that a contraction's loads can see through."""
    while node.prim in through:
        node = node.src[0]
    return node


def map_cost(node: Node, stored: Set[Node], most: int = WINDOW_MAP_COST) -> int:
    """Returns the plain operations that computing one element in place takes, if at `most` such."""
    total, stack = 0, [node]
    while stack and total <= most:
        node = stack.pop()
        if node in stored or node.prim in LEAVES | ANCHORS | JOINS:
            continue
        total += MAPS[node.prim].cost if node.prim in MAPS else 0
        stack.extend(node.src)
    return total


def cheap(node: Node, stored: Set[Node]) -> bool:
    """Says whether a few maps of loads give an element, the same ones in every time step."""
    stack = [node]
    while stack:
        part = stack.pop()
        if part in stored or part.prim in LEAVES | ANCHORS | JOINS:
            continue
        if part.prim not in MAPS.keys() | VIEWS | {"slice", "broadcast", "const", "scalar"}:
            return False
        stack.extend(part.src)
    return map_cost(node, stored) <= WINDOW_MAP_COST


def on_the_way(node: Node, stored: Set[Node], most: int) -> bool:
    """Says whether a node is a map of one blob, and of vectors, of at most so many operations."""
    blobs, stack = set[Node](), [node]
    while stack:
        part = stack.pop()
        if part.type.size * MANY <= node.type.size:
            continue
        if part in stored or part.prim in LEAVES | ANCHORS | JOINS:
            blobs.add(part)
        elif part.prim in MAPS.keys() | VIEWS | {"broadcast"}:
            stack.extend(part.src)
        else:
            return False
    return len(blobs) == 1 and map_cost(node, stored, most) <= most


def readings(nodes: Iterable[Node]) -> dict[Node, float]:
    """Returns how often a contraction reads each number of what it multiplies: the most of all.

    That is once for each tap, and for each tile of the results beside each other. A single result,
    as of a depthwise convolution, does not count: it is no product of matrices, and what it reads
    does not pass through shared memory, so that making it costs half as much.
    """
    found = defaultdict[Node, float](float)
    for node in nodes:
        if node.prim == "contract":
            labels: Labels = node.attr("labels")
            places = {s.place for s in labels.slides}
            slid = places.union(*((s.out, s.tap) for s in labels.slides))
            products = prod(size for label, size in labels.sizes if label not in places)
            for factor, own in zip(node.src, (labels.a, labels.b), strict=True):
                beside = set(labels.out) - set(own) - slid
                columns = prod(labels.size(label) for label in beside)
                if columns > 1 and products:
                    often = products / factor.type.size / columns * ceil(columns / COLUMNS)
                    found[stripped(factor)] = max(found[stripped(factor)], often)
    return found
