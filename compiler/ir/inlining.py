"""What is computed where it is read rather than stored, and what that costs."""

from __future__ import annotations

from collections.abc import Set

from compiler.ir.node import Node
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
