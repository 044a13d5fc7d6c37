"""Cuts the update of the arena, so that a large blob takes its step where its gradient is made.

One update of the whole arena reads back every gradient that the step has stored. A large blob gets
leaves and an update of its own instead; `fuse.py` makes that the epilogue of the contraction that
sums the gradient up, which then is never stored. The small blobs between two large ones keep one
update together, and their gradients and tables lie in blocks that leave the large ones out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from compiler.ir.graph import Graph
from compiler.ir.inlining import VIEWS, stripped
from compiler.ir.node import Node, users_of
from compiler.ir.rewrite import mapped, rewrite
from compiler.passes.arena import ROW, Arena, ArenaSlot
from compiler.prims import leaves
from compiler.prims.maps import SCALARS as MAPS
from compiler.prims.moves import broadcast, pack, reshape, slice_
from compiler.prims.registry import make
from schemas.program import Runs, written_out


@dataclass
class Cut:
    """The graph, the tables that it reads now, and what its nodes became."""

    graph: Graph
    tables: Mapping[str, Runs]
    new: dict[Node, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """Neighbours in the arena that are updated together: a large blob, or small ones."""

    slots: tuple[ArenaSlot, ...]
    large: bool
    at: int  # its first row where large blobs are left out

    @property
    def first(self) -> int:
        return self.slots[0].offset // ROW

    @property
    def rows(self) -> int:
        last = self.slots[-1]
        return -(-(last.offset + last.size) // ROW) - self.first

    @property
    def shape(self) -> tuple[int, ...]:
        """A large blob lies flat, as its gradient does; small ones in rows, as in the tables."""
        return (self.slots[0].size,) if self.large else (self.rows, ROW)

    def of(self, whole: Node) -> Node:
        """Returns this part of a leaf that is laid out like the arena."""
        return leaves.part(whole, self.first * ROW, self.shape)


def cut(graph: Graph, arena: Arena, tables: Mapping[str, Runs], least: int) -> Cut:
    """Gives blobs of `least` numbers and more updates of their own, if products make the gradient.

    Those of a weight that several layers share are added up first. The graph stays as it is where
    something else reads the gradients: a norm of all of them, or the caller.
    """
    nodes = graph.nodes()
    packed = next((n for n in nodes if n.prim == "pack" and n.shape == arena.shape), None)
    if packed is None:
        return Cut(graph, tables)
    whole = {leaf: v for leaf, v in graph.updates.items() if packed in _maps([v])}
    elsewhere = {*users_of(nodes)[packed]} - _maps(whole.values())
    cutter = _Cutter(arena, packed, tables, least)
    if elsewhere or packed in graph.fetched.values() or cutter.rows == arena.rows:
        return Cut(graph, tables)
    updates = {leaf: v for leaf, v in graph.updates.items() if leaf not in whole}
    for part in cutter.parts:
        known = {leaf: part.of(leaf) for leaf in whole}
        known[packed] = cutter.gradient(part)
        updates |= {part.of(leaf): cutter.within(part, v, known) for leaf, v in whole.items()}
    graph = replace(graph, updates=updates)
    new = rewrite([*graph.roots(), *graph.param_nodes.values()], (), cutter.views())
    if cutter.gradients is not None:
        new[packed] = new[cutter.gradients]
    return Cut(mapped(graph, new), cutter.tables, new)


def _maps(values: Iterable[Node]) -> set[Node]:
    """Returns the maps that values are made of, and what these read."""
    found: set[Node] = set()
    stack = list(values)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.src if node.prim in MAPS else ())
    return found


class _Cutter:
    """The parts of an arena, and what values of the whole are in each of them."""

    def __init__(self, arena: Arena, packed: Node, tables: Mapping[str, Runs], least: int) -> None:
        self.arena = arena
        self.given = dict(zip(packed.attr("offsets"), packed.src, strict=True))
        self.parts: list[_Part] = []
        self.rows = 0  # of small blobs
        for large, slots in groupby(arena.slots.values(), lambda slot: self._suits(slot, least)):
            if large:
                self.parts += [_Part((slot,), True, self.rows) for slot in slots]
            else:
                self.parts.append(_Part(tuple(slots), False, self.rows))
                self.rows += self.parts[-1].rows
        self.gradients = self._small_gradients()
        self.numbers = {name: written_out(table) for name, table in tables.items()}
        self.tables = {name: self._small_rows(table) for name, table in self.numbers.items()}

    def _suits(self, slot: ArenaSlot, least: int) -> bool:
        made = self.given.get(slot.offset)
        return made is not None and slot.size >= least and stripped(made, VIEWS).prim == "contract"

    def _small(self) -> list[_Part]:
        return [part for part in self.parts if not part.large]

    def _small_gradients(self) -> Node | None:
        """Returns the gradients of all small blobs in one block, None if there are none."""
        found = {
            slot.offset + (part.at - part.first) * ROW: self.given[slot.offset]
            for part in self._small()
            for slot in part.slots
            if slot.offset in self.given
        }
        return pack(tuple(found.values()), tuple(found), (self.rows, ROW)) if found else None

    def _small_rows(self, numbers: np.ndarray[Any, np.dtype[np.float32]]) -> Runs:
        kept = [x for p in self._small() for x in numbers[p.first : p.first + p.rows].tolist()]
        return tuple((number, len(list(same))) for number, same in groupby(kept))

    def gradient(self, part: _Part) -> Node:
        if part.large:
            return reshape(self.given[part.slots[0].offset], part.shape)
        if self.gradients is None:  # nothing in it learns
            return broadcast(leaves.const(0.0), part.shape)
        return slice_(self.gradients, (part.at, 0), (part.at + part.rows, ROW))

    def within(self, part: _Part, value: Node, known: dict[Node, Node]) -> Node:
        """Returns what a map of `known` values is in a part; `known` grows."""
        if value not in known:
            if value.prim in MAPS:
                sources = [self.within(part, source, known) for source in value.src]
                known[value] = make(value.prim, *sources, **dict(value.attrs))
            else:
                assert value.prim == "broadcast", value
                known[value] = broadcast(self._row(part, value.src[0]), part.shape)
        return known[value]

    def _row(self, part: _Part, source: Node) -> Node:
        """Returns what a part's rows repeat: a number of all rows, or one each from a table."""
        if source.type.size == 1:
            return reshape(source, ())
        name = source.attr("name")
        if part.large:
            return leaves.const(float(self.numbers[name][part.first]))
        table = leaves.state(name, (self.rows, 1))
        return slice_(table, (part.at, 0), (part.at + part.rows, 1))

    def views(self) -> dict[Node, Node]:
        """Returns what the flat view of each blob becomes."""
        found = {}
        for part in self.parts:
            own = part.of(self.arena.leaf)
            flat = reshape(own, (own.type.size,))
            for slot in part.slots:
                start = slot.offset - part.first * ROW
                found[slot.flat(self.arena.leaf)] = slice_(flat, (start,), (start + slot.size,))
        return found
