"""Reads a part of a Concat where the Concat has it: then it is stored there alone.

The gradient of a ReLU reads its result again. Where that is a part of a Concat, as at the end of an
inception block, it would be stored for the gradient, and once more in the Concat. What runs after
the Concat anyway reads the part of it; what runs before must not wait for the other parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from compiler.ir.graph import Graph
from compiler.ir.inlining import LEAVES
from compiler.ir.node import Node, users_of
from compiler.prims.maps import SCALARS as MAPS
from compiler.prims.moves import slice_axis
from compiler.prims.registry import make

Reads = set[tuple[Node, Node]]  # a part, or a map of it that is made where it is read; the reader


def read_in_concats(graph: Graph) -> dict[Node, Node]:
    """Returns what each node becomes where parts of concats are read in them."""
    order = graph.nodes()
    users, kept = users_of(order), {*graph.roots()}
    if graph.recurrences:  # a loop reads one step's rows
        return {}
    moved: dict[tuple[Node, Node], tuple[Node, Node]] = {}
    for whole in (node for node in order if node.prim == "concat"):
        after = _after(whole, order)
        for part in whole.src:
            read = _reads(part, whole, users, kept)
            late = all(reader in after and reader.prim != "concat" for _, reader in read)
            if late and part.prim not in LEAVES and part not in kept:
                moved |= dict.fromkeys(read, (part, whole))
    new: dict[Node, Node] = {}
    for node in order:
        sources = []
        for source in node.src:
            found = moved.get((source, node))
            sources.append(_within(*found, source, new) if found is not None else new[source])
        same = tuple(sources) == node.src
        new[node] = node if same else make(node.prim, *sources, **dict(node.attrs))
    return new


def _after(whole: Node, order: Sequence[Node]) -> set[Node]:
    """Returns the nodes that depend on one."""
    found = {whole}
    for node in order:
        if not found.isdisjoint(node.src):
            found.add(node)
    return found - {whole}


def _reads(part: Node, whole: Node, users: Mapping[Node, Sequence[Node]], kept: Set[Node]) -> Reads:
    """Returns who reads a part besides the concat."""
    read: Reads = set()
    for user in {*users[part]} - {whole}:
        mask = user.prim in MAPS and user.dtype == "bool" and user not in kept
        read |= {(user, reader) for reader in users[user]} if mask else {(part, user)}
    return read


def _within(part: Node, whole: Node, source: Node, new: Mapping[Node, Node]) -> Node:
    """Returns a part, or a map of it, as what the concat has of it."""
    axis = whole.attr("axis")
    at = sum(before.shape[axis] for before in whole.src[: whole.src.index(part)])
    there = slice_axis(new[whole], axis, at, at + part.shape[axis])
    if source is part:
        return there
    sources = (there if s is part else new[s] for s in source.src)
    return make(source.prim, *sources, **dict(source.attrs))
