"""The flat arena of learned blobs: where each lies, and the graph that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from compiler.ir.graph import Graph
from compiler.ir.node import Node, users_of
from compiler.prims import leaves
from compiler.prims.moves import reshape, slice_, transpose
from schemas.params import ParamInfo

ROW = 16  # elements; blobs start on a row, so that a table of one number a row tells them apart
NAME = "params"


@dataclass(frozen=True)
class ArenaSlot:
    """One blob: `view` is the shape it is used in, `perm` its axes in memory order."""

    key: str
    offset: int
    shape: tuple[int, ...]
    view: tuple[int, ...]
    perm: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)

    def strides(self) -> tuple[int, ...]:
        """Returns the stride, in elements, of each axis of `view`."""
        strides, step = [0] * len(self.view), 1
        for axis in reversed(self.perm):
            strides[axis] = step
            step *= self.view[axis]
        return tuple(strides)

    def stored(self, value: Node) -> Node:
        """Returns a value of the blob's shape as it lies in the arena."""
        return transpose(reshape(value, self.view), self.perm)

    def flat(self, leaf: Node) -> Node:
        """Returns the blob as it lies in the arena."""
        flat = reshape(leaf, (prod(leaf.shape),))
        return slice_(flat, (self.offset,), (self.offset + self.size,))

    def read(self, leaf: Node) -> Node:
        """Returns the blob, in its own shape, as a view of the arena."""
        stored = reshape(self.flat(leaf), tuple(self.view[p] for p in self.perm))
        back = tuple(int(i) for i in np.argsort(self.perm))
        return reshape(transpose(stored, back), self.shape)


@dataclass(frozen=True)
class Arena:
    """All learned blobs of a solver's nets in one block of rows."""

    slots: Mapping[str, ArenaSlot]
    rows: int

    @property
    def shape(self) -> tuple[int, int]:
        return (self.rows, ROW)

    @property
    def leaf(self) -> Node:
        return leaves.param(NAME, self.shape)


def plan_arena(*graphs: Graph) -> Arena:
    """Lays out the blobs of all graphs (a solver's training and test nets), each once."""
    slots: dict[str, ArenaSlot] = {}
    at = 0
    for graph in graphs:
        views = _views(graph)
        for key, info in graph.params.items():
            if key in slots:
                continue
            view = views.get(key, info.shape)
            slots[key] = ArenaSlot(key, at, info.shape, view, _weight_order(view))
            at += -(-info.size // ROW) * ROW
    return Arena(slots, max(1, at // ROW))


def _weight_order(view: tuple[int, ...]) -> tuple[int, ...]:
    """Weights (O, I, spatial...) lie as (spatial..., I, O): vectors run along the outputs."""
    rank = len(view)
    return (*range(2, rank), 1, 0) if rank >= 2 else tuple(range(rank))


def _views(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Finds the blobs that are used in one other shape: an inner product's weight over an image."""
    users = users_of(graph.nodes([graph.loss] if graph.loss is not None else []))
    found: dict[str, tuple[int, ...]] = {}
    for key, node in graph.param_nodes.items():
        shapes = {u.shape for u in users.get(node, ()) if u.prim == "reshape"}
        if len(shapes) == 1 and len(users[node]) == 1:
            (view,) = shapes
            if view[:1] == node.shape[:1]:
                found[key] = view
    return found


def on_arena(graph: Graph, arena: Arena, params: Mapping[str, ParamInfo]) -> dict[Node, Node]:
    """Returns what each parameter leaf of a graph becomes: a view of the arena."""
    return {graph.param_nodes[k]: arena.slots[k].read(arena.leaf) for k in params}
