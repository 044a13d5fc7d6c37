"""Decides which nodes are stored, and where each element of them lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compiler.ir.graph import Graph
from compiler.ir.inlining import (
    ANCHORS,
    FIXED,
    FIXED_MAP_COST,
    JOINS,
    LEAVES,
    MANY,
    SLID,
    VIEWS,
    WINDOW_MAP_COST,
    cheap,
    map_cost,
    on_the_way,
    readings,
    stripped,
)
from compiler.ir.node import Node, made_of, users_of
from compiler.ir.recurrence import Recurrence, loops
from compiler.kernels.index import Axis, Index, index, linear, reshape_index
from compiler.kernels.kernel import SCALAR_BUFFER, SCALARS
from compiler.kernels.schedule import Buffer
from compiler.lowering.traits import Traits
from compiler.prims.maps import SCALARS as MAPS
from schemas.program import Role

Position = Sequence[Index]
Offset = Callable[[Position], Index]


@dataclass(frozen=True)
class Storage:
    """A buffer, and the offset in it of each element of a node."""

    buffer: str
    offset: Offset


@dataclass
class Plan:
    """What is stored, and the copies that aliasing could not avoid: (node, where to)."""

    storage: dict[Node, Storage] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    copies: list[tuple[Node, Storage]] = field(default_factory=list)
    order: list[Node] = field(default_factory=list)  # stored nodes that need a kernel
    aliases: set[Node] = field(default_factory=set)  # views that only name part of a storage
    names: dict[Node, str] = field(default_factory=dict)
    updates: dict[Node, Node] = field(default_factory=dict)  # leaf -> its new value
    loops: dict[Node, int] = field(default_factory=dict)  # nodes that go step by step
    written_in: dict[str, int] = field(
        default_factory=dict
    )  # buffers that a loop fills -> the loop
    steps: dict[int, int] = field(default_factory=dict)  # loop -> its steps, negative: backwards


def memory_order(shape: tuple[int, ...], planar: int = 0) -> tuple[int, ...]:
    """Returns the axes of an activation in memory order: channels last from rank 4 on.

    Images (N, C, spatial...) lie as (N, spatial..., C), so that a contraction's vectors and a
    GPU's 16-byte loads run along channels. Matrices and sequences lie as they are written, and so
    do images of no more than `planar` channels.
    """
    rank = len(shape)
    last = rank >= 4 and shape[1] > planar
    return (0, *range(2, rank), 1) if last else tuple(range(rank))


def strides_in(order: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the stride of each axis when the axes lie in `order`, the last fastest."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def through(view: Node, offset: Offset) -> Offset:
    """Returns the offset function of view.src[0], given that of `view` (a reshape or transpose)."""
    old, new = view.src[0].shape, view.shape
    if view.prim == "reshape":
        return lambda position: offset(reshape_index(position, old, new))
    perm = view.attr("perm")
    return lambda position: offset(tuple(position[p] for p in perm))


class Planner:
    """Walks a graph once and gives every node that must be stored its place."""

    def __init__(self, graph: Graph, names: dict[Node, str], traits: Traits) -> None:
        self.graph = graph
        self.traits, self.planar = traits, traits.planar
        self.nodes = graph.nodes()
        self.users = users_of(self.nodes)
        self.plan = Plan(names=dict(names), updates=dict(graph.updates))
        self.fetched = set(graph.fetched.values())
        self.blobs = {node: name for name, node in graph.blobs.items()}
        self.taken: set[str] = set()
        self.given: set[Node] = set()  # nodes whose name is final
        reached = set(self.nodes)
        self.recurrences = [r for r in graph.recurrences if r.leaf in reached]
        self.plan.loops, self.loop_of = loops(self.nodes, self.recurrences)

    def run(self) -> Plan:
        for node in self.nodes:
            if node.prim in LEAVES and node.prim != "delayed":
                self._leaf(node)
        for leaf, value in self.graph.updates.items():
            if leaf not in self.plan.storage:  # written, never read: a history of momentum 0
                self._leaf(leaf)
            old = self.plan.storage[leaf]
            # The new value has a name of its own until the order of kernels is settled.
            fresh = f"{old.buffer}'"
            self.plan.buffers[fresh] = Buffer(
                fresh, leaf.dtype, leaf.type.size, self.plan.buffers[old.buffer].role
            )
            info = self.graph.states.get(str(leaf.attr("name")))
            if info is not None and info.carried:
                # The gradient still reads the old state when the new one is long known.
                self.plan.copies.append((value, Storage(fresh, old.offset)))
            else:
                self._claim(value, Storage(fresh, old.offset))
        wanted = self._wanted()
        sources = {r.source for r in self.recurrences}
        for node in self.nodes:  # forward before backward: the plain name goes to the first
            if node in wanted | sources and node not in self.plan.storage:
                self._name(node)
        # One that is itself delayed has its place within another: it comes after that.
        for source in sorted(sources, key=lambda n: (n.prim == "delayed", self.nodes.index(n))):
            self._recurrent(source, [r for r in self.recurrences if r.source is source])
        for node in self.nodes:
            if node.prim == "host":  # its block lies as the call leaves it, whoever reads it
                role: Role = "output" if node in self.fetched else "inner"
                self._buffer(node, self._name(node), range(1), role)
        # Consumers before producers: a join claims the storage of its parts.
        for node in reversed(self.nodes):
            if node.prim in JOINS:
                self._join(node)
            elif node in wanted and node not in self.plan.storage:
                self._allocate(node)
                if node.prim in VIEWS:  # an output that is a view: its source lies there
                    self.plan.aliases.add(node)
                    whole = self.plan.storage[node]
                    self._claim(node.src[0], Storage(whole.buffer, through(node, whole.offset)))
        silent = self.plan.aliases | {n for n in self.nodes if n.prim in LEAVES | JOINS}
        self.plan.order = [n for n in self.nodes if n in self.plan.storage and n not in silent]
        self._scalars()
        return self.plan

    def _wanted(self) -> set[Node]:
        wanted = {n for n in self.nodes if n.prim in ANCHORS} | {
            n for n in self.fetched if n.prim not in LEAVES
        }
        wanted |= {self._sink(n) for n in self.nodes if n.prim in ANCHORS}
        fixed, testing = made_of(FIXED, self.nodes), self.graph.phase == "TEST"
        traits, often = self.traits, readings(self.nodes)
        for node in self.nodes:
            if node.prim in ("contract", "to_tiles", "from_tiles"):
                made = traits.prologue and node not in self.plan.loops
                for source in map(stripped, node.src):
                    pays = made and source not in fixed and often[source] <= traits.readings
                    if not pays or not on_the_way(source, wanted, traits.prologue):
                        wanted.add(source)
            elif node.prim == "host":
                wanted |= set(node.src)
            elif node.prim.startswith(("pool", "unpool")):
                most = max(WINDOW_MAP_COST, traits.prologue)
                wanted |= {s for s in node.src if map_cost(s, wanted, most) > most}
            elif node.prim == "broadcast" and (source := stripped(node)).prim in MAPS:
                many, limit = node.type.size >= MANY * source.type.size, WINDOW_MAP_COST
                if node in fixed:
                    many = testing and not fixed.issuperset(self.users[node])
                    limit = FIXED_MAP_COST
                if many and map_cost(source, wanted) > limit:
                    wanted.add(source)
        # In a loop, what costs more than a load and is read twice is stored; if its readers are
        # merged with it, that comes to nothing but a register.
        for node in self.plan.loops:
            if node.prim in MAPS and len(set(self.users[node])) > 1:
                if map_cost(node, wanted) > WINDOW_MAP_COST:
                    wanted.add(node)
        # What a loop reads is there before it begins, but for what is cheap and the same each step.
        outside = {s for n in self.plan.loops for s in n.src if s not in self.plan.loops}
        # A pad may be one of time, which is not the same work in each step.
        wanted |= {stripped(s, SLID - {"pad"}) for s in outside if not cheap(s, wanted)}
        return {n for n in wanted if n.prim not in LEAVES}

    def _sink(self, node: Node) -> Node:
        """Follows the maps that are an anchor's only use: the last is stored in its place."""
        last = node
        while len(self.users[node]) == 1 and node not in self.fetched:
            (node,) = self.users[node]
            if node.prim in MAPS and node.type.size == last.type.size:
                last = node
            elif node.prim not in VIEWS:
                break
        return last

    def _leaf(self, node: Node) -> None:
        attrs: dict[str, Any] = dict(node.attrs)
        name = str(attrs["name"])
        roles: dict[str, Role] = {"input": "input", "param": "param", "state": "state"}
        # An input that is fetched as well keeps its memory to the end of the step.
        role = "output" if node.prim == "input" and node in self.fetched else roles[node.prim]
        given = node.prim == "input"
        order = memory_order(node.shape, self.planar) if given else range(node.type.rank)
        self._buffer(node, name, order, role)
        if "whole" in attrs:
            base, size = attrs["whole"]
            part = replace(self.plan.buffers[name], base=base, shift=attrs["start"])
            self.plan.buffers |= {name: part, base: Buffer(base, node.dtype, size, role)}

    def _allocate(self, node: Node) -> None:
        role: Role = "output" if node in self.fetched else "inner"
        last, chain = self._chain(node)
        offset: Offset = _strided(strides_in(memory_order(last.shape), last.shape))
        for view in reversed(chain):
            offset = through(view, offset)
        probe = offset(_probe(node.shape))
        if any(not hasattr(atom, "size") for atom, _ in probe.terms):  # Div or Mod: no plain layout
            offset = _strided(strides_in(memory_order(node.shape), node.shape))
        name = self._name(node)
        self.plan.buffers[name] = Buffer(name, node.dtype, node.type.size, role)
        self.plan.storage[node] = Storage(name, offset)

    def _chain(self, node: Node) -> tuple[Node, list[Node]]:
        """Follows the views that are a node's only use: it takes the layout that suits the last."""
        chain: list[Node] = []
        while len(self.users[node]) == 1 and node not in self.fetched:
            (view,) = self.users[node]
            if view.prim not in VIEWS or view in self.plan.storage:
                break
            if node in self.plan.loops and view.prim != "reshape":  # time stays outermost
                break
            chain.append(view)
            node = view
        return node, chain

    def _recurrent(self, source: Node, delayed: list[Recurrence]) -> None:
        """Gives a sequence its place behind the rows before its first step (before those after).

        A delayed node is then nothing but the same memory some rows on.
        """
        front = max(delayed, key=lambda r: r.delay)
        back = min(delayed, key=lambda r: r.delay)
        before, behind = max(front.delay, 0), max(-back.delay, 0)
        name, row = self._name(source), source.type.size // source.shape[0]
        base = f"{name}~"
        role: Role = "output" if source in self.fetched else "inner"
        size = source.type.size + (before + behind) * row
        self.plan.buffers[base] = Buffer(base, source.dtype, size, role)
        shift = before * row
        self.plan.buffers[name] = Buffer(name, source.dtype, source.type.size, role, base, shift)
        if loop := self.loop_of.get(front.leaf, 0):
            self.plan.written_in[name] = loop
            self.plan.steps[loop] = source.shape[0] * (1 if before else -1)
        plain = _strided(strides_in(memory_order(source.shape), source.shape))
        for r in delayed:
            at = _shifted(plain, 0, before - r.delay)
            self.plan.storage[r.leaf] = Storage(base, at)
        if before:
            self.plan.copies.append((front.initial, Storage(base, plain)))
        if behind:
            at = _shifted(plain, 0, before + source.shape[0])
            self.plan.copies.append((back.initial, Storage(base, at)))
        if source in self.plan.storage:  # it is a part of something else as well
            self.plan.copies.append((source, Storage(name, plain)))
            return
        self.plan.storage[source] = Storage(name, plain)
        if source.prim in VIEWS:
            self.plan.aliases.add(source)
            self._claim(source.src[0], Storage(name, through(source, plain)))

    def _buffer(self, node: Node, name: str, order: Sequence[int], role: Role) -> None:
        self.plan.buffers[name] = Buffer(name, node.dtype, node.type.size, role)
        self.plan.storage[node] = Storage(name, _strided(strides_in(order, node.shape)))

    def _join(self, node: Node) -> None:
        if node not in self.plan.storage:
            if node.prim == "pack":
                # What is fetched is read by name, behind the step: a slot of its own.
                role: Role = "state" if node in self.fetched else "packed"
                self._buffer(node, self._name(node), range(node.type.rank), role)
            else:
                self._allocate(node)
        whole = self.plan.storage[node]
        if node in self.plan.loops:
            self.plan.written_in[whole.buffer] = self.plan.loops[node]
        if node.prim == "pack":
            for start, part in zip(node.attr("offsets"), node.src, strict=True):
                flat = _flat(part.shape, start)
                self._claim(part, Storage(whole.buffer, flat), part=True)
            return
        at, axis = 0, node.attr("axis")
        for part in node.src:
            self._claim(part, Storage(whole.buffer, _shifted(whole.offset, axis, at)), part=True)
            at += part.shape[axis]

    def _claim(self, node: Node, storage: Storage, part: bool = False) -> None:
        """Makes `node` lie at `storage`, through views if need be, else by a copy.

        A `part` of a join lies there only if nothing else reads it: dependences are between whole
        buffers, and a reader of one part must not have to wait for the others.
        """
        target = node
        offset = storage.offset
        while (
            target.prim in VIEWS
            and target not in self.plan.storage
            and target not in self.fetched
            and len(self.users[target]) <= 1
        ):
            offset = through(target, offset)
            target = target.src[0]
        if target.prim in LEAVES or target in self.plan.storage or target.prim in {"scalar"}:
            self.plan.copies.append((node, storage))
            return
        if (part or target is not node) and len(self.users[target]) > 1:
            self.plan.copies.append((node, storage))
            return
        self.plan.storage[target] = Storage(storage.buffer, offset)
        if target in self.fetched:
            buffer = self.plan.buffers[storage.buffer]
            if buffer.role == "inner":
                self.plan.buffers[storage.buffer] = Buffer(
                    buffer.name, buffer.dtype, buffer.size, "output"
                )

    def _scalars(self) -> None:
        for node in self.nodes:
            if node.prim == "scalar":
                assert node.attr("name") in SCALARS, node
        self.plan.buffers[SCALAR_BUFFER] = Buffer(SCALAR_BUFFER, "f32", 16, "scalar")

    def _name(self, node: Node) -> str:
        if node in self.given:
            return self.plan.names[node]
        base = self.plan.names.get(node)
        if base is None:
            base = self.graph.origin.get(node, "net")
            blob = self.blobs.get(node)
            base = blob if blob is not None else f"{base}.{node.prim}"
        name, n = base, 1
        while name in self.taken or name in self.plan.buffers:
            n += 1
            name = f"{base}.{n}"
        self.taken.add(name)
        self.given.add(node)
        self.plan.names[node] = name
        return name


def _strided(strides: Sequence[int]) -> Offset:
    return lambda position: linear(position, strides)


def _flat(shape: tuple[int, ...], start: int) -> Offset:
    strides = strides_in(range(len(shape)), shape)
    return lambda position: linear(position, strides) + start


def _shifted(offset: Offset, axis: int, at: int) -> Offset:
    return lambda p: offset([i + at if a == axis else i for a, i in enumerate(p)])


def _probe(shape: tuple[int, ...]) -> tuple[Index, ...]:
    return tuple(index(Axis(f"probe{i}", n)) for i, n in enumerate(shape))
