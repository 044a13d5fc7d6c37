"""Turns each stored node into a kernel of its own, everything else inlined in its readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from compiler.ir.node import Node
from compiler.kernels.guards import factor, guarded, inside, label_positions
from compiler.kernels.index import Axis, Index, axes_of, index, linear, reshape_index, row_major
from compiler.kernels.kernel import (
    SCALAR_BUFFER,
    SCALARS,
    Acc,
    Call,
    Const,
    Entry,
    Expr,
    Guard,
    Kernel,
    Load,
    Op,
    Position,
    Random,
    Reduce,
    Statement,
    Store,
    product,
    rebuild,
)
from compiler.lowering.storage import Plan, Storage
from compiler.prims.contract import Labels
from compiler.prims.maps import SCALARS as MAPS
from compiler.prims.window import LEAST, Window
from compiler.prims.winograd import Tiling
from schemas.program import HostCall

_NAMES = {1: "i", 2: "nk", 3: "nct", 4: "nchw", 5: "ncdhw"}


class Lowering:
    """Builds expressions for the nodes of one graph."""

    def __init__(self, plan: Plan, origin: Mapping[Node, str] | None = None) -> None:
        self.plan = plan
        self.origin = origin or {}

    def kernels(self) -> list[Kernel]:
        """Returns one kernel for each stored node, producers first, then the copies."""
        groups = self._update_groups()
        grouped = {n for group in groups for n in group}
        made = [
            replace(self.kernel(node, self.plan.storage[node]), loop=self.plan.loops.get(node, 0))
            for node in self.plan.order
            if node not in grouped
        ]
        made += [self._together(group) for group in groups]
        made += [
            replace(self._copy(node, storage), loop=self.plan.written_in.get(storage.buffer, 0))
            for node, storage in self.plan.copies
        ]
        seen: dict[str, int] = {}
        named = []
        for kernel in made:  # names are keys later: two kernels never share one
            seen[kernel.name] = count = seen.get(kernel.name, 0) + 1
            named.append(replace(kernel, name=f"{kernel.name}.{count}") if count > 1 else kernel)
        return named

    def _update_groups(self) -> list[list[Node]]:
        """Finds the updates that read each other's old values: Adam's moments and the weights.

        Each would have to run before the other overwrites what it reads, so they are one kernel.
        """
        updates = {v: leaf for leaf, v in self.plan.updates.items() if v.prim in MAPS}
        updates = {v: leaf for v, leaf in updates.items() if v in self.plan.order}
        reads = {v: self._reads(v) for v in updates}
        groups: list[list[Node]] = []
        for value, leaf in updates.items():
            joined, rest = [value], []
            for group in groups:
                near = any(
                    reads[value] & {n, updates[n]} or reads[n] & {value, leaf} for n in group
                )
                if near and group[0].shape == value.shape:
                    joined = group + joined
                else:
                    rest.append(group)
            groups = [*rest, joined]
        return [group for group in groups if len(group) > 1]

    def _reads(self, node: Node) -> set[Node]:
        """Returns what computing `node` on the spot reads: stored nodes, and those on the way."""
        found: set[Node] = set()
        stack = list(node.src)
        while stack:
            source = stack.pop()
            if source not in found:
                found.add(source)
                if source not in self.plan.storage:
                    stack.extend(source.src)
        return found

    def _together(self, group: Sequence[Node]) -> Kernel:
        """One kernel that gives several leaves their new values, all from the old ones."""
        storages = [self.plan.storage.pop(node) for node in group]
        axes = _axes(group[0].shape)
        position = tuple(index(a) for a in axes)
        stores = tuple(
            Store(s.buffer, s.offset(position), self.inline(node, position), node.dtype)
            for node, s in zip(group, storages, strict=True)
        )
        self.plan.storage.update(zip(group, storages, strict=True))
        return Kernel("update", _space(axes, stores[0]), stores)

    def kernel(self, node: Node, storage: Storage) -> Kernel:
        name = self.plan.names.get(node) or storage.buffer
        if node.prim == "contract":
            return self._contract(node, storage, name)
        if node.prim == "host":
            return Kernel(name, (), (), self._layers(node), call=self._call(node, storage))
        axes = _axes(node.shape)
        position = tuple(index(a) for a in axes)
        reduce = self._reduce(node, position)
        value = Acc(0, reduce.dtype) if reduce is not None else self.inline(node, position)
        body: list[Statement] = [reduce] if reduce is not None else []
        body.append(Store(storage.buffer, storage.offset(position), value, node.dtype))
        body = without_units(body)
        return Kernel(name, _space(axes, body[-1]), tuple(body), self._layers(node))

    def _layers(self, node: Node) -> tuple[str, ...]:
        return (self.origin[node],) if node in self.origin else ()

    def _call(self, node: Node, storage: Storage) -> Call:
        given, made = sum(node.attr("parts")), node.type.size
        host = HostCall(node.attr("layer"), node.attr("way"), given, made, node.attr("wanted"))
        before = [self.plan.storage[s].buffer for s in node.src[1 if given else 0 :]]
        if not given:
            return Call(host, None, 0, storage.buffer, tuple(before))
        source, axis = self.plan.storage[node.src[0]], Axis("i", given)
        offset = source.offset((index(axis),))
        # Else it would have to be copied: the planner stores it as it is read.
        assert given == 1 or offset == index(axis) + offset.const, f"{node}: {offset}"
        return Call(host, source.buffer, offset.const, storage.buffer, tuple(before))

    def _copy(self, node: Node, storage: Storage) -> Kernel:
        axes = _axes(node.shape)
        position = tuple(index(a) for a in axes)
        store = Store(
            storage.buffer, storage.offset(position), self.value(node, position), node.dtype
        )
        return Kernel(
            f"{self.plan.names.get(node, node.prim)}.copy",
            _space(axes, store),
            (store,),
            self._layers(node),
        )

    # ---- expressions -----------------------------------------------------------------------

    def value(self, node: Node, position: Sequence[Index]) -> Expr:
        """Returns the element of `node` at a position: a Load where it is stored."""
        storage = self.plan.storage.get(node)
        if storage is not None:
            return Load(storage.buffer, storage.offset(position), node.dtype)
        return self.inline(node, position)

    def inline(self, node: Node, position: Sequence[Index]) -> Expr:
        """Returns the element computed on the spot from what `node` is made of."""
        prim = node.prim
        if prim == "const":
            return Const(node.attr("value"), node.dtype)
        if prim == "scalar":
            return Load(SCALAR_BUFFER, Index(SCALARS[node.attr("name")][0]), node.dtype)
        if prim == "iota":
            return Position(index(position[node.attr("axis")]))
        if prim == "random":
            return Random(node.attr("stream"), linear(position, row_major(node.shape)))
        if prim in MAPS:
            args = tuple(self.value(s, position) for s in node.src)
            attrs = tuple((k, v) for k, v in node.attrs if k != "dtype")
            # `stop` matters to gradients only.
            return args[0] if prim == "stop" else Op(prim, args, node.dtype, attrs)
        return self._moved(node, position)

    def _moved(self, node: Node, position: Sequence[Index]) -> Expr:
        (source,) = node.src
        if node.prim == "reshape":
            return self.value(source, reshape_index(position, node.shape, source.shape))
        if node.prim == "transpose":
            moved = [Index(0)] * len(position)
            for i, p in enumerate(node.attr("perm")):
                moved[p] = position[i]
            return self.value(source, moved)
        if node.prim == "broadcast":
            return self.value(
                source,
                [Index(0) if n == 1 else p for n, p in zip(source.shape, position, strict=True)],
            )
        if node.prim == "slice":
            starts = node.attr("start")
            return self.value(source, [p + a for p, a in zip(position, starts, strict=True)])
        assert node.prim == "pad", node
        inner = [p - a for p, a in zip(position, node.attr("low"), strict=True)]
        guards = inside(inner, source.shape)
        return guarded(guards, self.value(source, inner), 0.0)

    # ---- anchors -----------------------------------------------------------------------------

    def _reduce(self, node: Node, position: Sequence[Index]) -> Reduce | None:
        """Returns what makes the element of an anchor; None of what `inline` computes."""
        prim = node.prim
        if prim in ("sum", "max"):
            return self._reduction(node, position)
        if prim.startswith("pool"):
            return self._pool(node, position)
        if prim.startswith("unpool"):
            return self._unpool(node, position)
        if prim in ("gather", "scatter"):
            return self._by_index(node, position)
        if prim in ("to_tiles", "from_tiles"):
            return self._transform(node, position)
        return None

    def _reduction(self, node: Node, position: Sequence[Index]) -> Reduce:
        (source,) = node.src
        taps = {a: Axis(f"r{a}", source.shape[a]) for a in node.attr("axes")}
        inner = [index(taps[i]) if i in taps else p for i, p in enumerate(position)]
        op: Literal["sum", "max"] = "sum" if node.prim == "sum" else "max"
        return Reduce(0, op, tuple(taps.values()), self.value(source, inner), node.dtype)

    def _pool(self, node: Node, position: Sequence[Index]) -> Reduce:
        window: Window = node.attr("window")
        source = node.src[0]
        taps = tuple(Axis(f"t{a}", k) for a, k in zip(window.axes, window.size, strict=True))
        inner = list(position)
        for axis, tap, stride, pad in zip(
            window.axes, taps, window.stride, window.pad, strict=True
        ):
            inner[axis] = position[axis] * stride + index(tap) - pad
        guards = inside([inner[a] for a in window.axes], window.full)
        value = self.value(source, inner)
        if node.prim == "pool_sum":
            return Reduce(0, "sum", taps, guarded(guards, value, 0.0), node.dtype)
        number = Position(linear(list(map(index, taps)), row_major(window.size)))
        if node.prim == "pool_at":
            here = Op("equal", (self.value(node.src[1], position), number), "bool")
            chosen = Op("select", (here, guarded(guards, value, 0.0), Const(0.0)), "f32")
            return Reduce(0, "sum", taps, chosen, node.dtype)
        value = guarded(guards, value, LEAST)
        if node.prim == "pool_max":
            return Reduce(0, "max", taps, value, node.dtype)
        return Reduce(0, "argmax", taps, value, "i32", number)

    def _unpool(self, node: Node, position: Sequence[Index]) -> Reduce:
        """Sums over the windows that see an element: ceil(size / stride) of them at most."""
        window: Window = node.attr("window")
        outer, taps, own, guards = list(position), [], [], []
        for i, axis in enumerate(window.axes):
            size, stride = window.size[i], window.stride[i]
            tap = Axis(f"t{axis}", -(-size // stride))
            moved = position[axis] + window.pad[i]
            outer[axis] = moved // stride - index(tap)
            # Where the element stands in the window: moved - outer * stride.
            own.append(moved % stride + index(tap) * stride)
            guards.append(Guard(own[i], 0, size))
            guards.append(Guard(outer[axis], 0, window.out[i]))
            taps.append(tap)
        kept = tuple(g for g in guards if not g.always())
        g = guarded(kept, self.value(node.src[0], outer), 0.0)
        if node.prim == "unpool_max":
            where = guarded(kept, self.value(node.src[1], outer), 0)  # where g is 0 as well
            here = Op("equal", (where, Position(linear(own, row_major(window.size)))), "bool")
            g = Op("select", (here, g, Const(0.0)), "f32")
        return Reduce(0, "sum", tuple(taps), g, node.dtype)

    def _by_index(self, node: Node, position: Sequence[Index]) -> Reduce:
        """Gather and scatter as sums over all candidates, of which the index lets some count.

        That is as much work as a product with a one-hot matrix, but deterministic, without atomics
        and in the vocabulary that every backend has.
        """
        (source, indices), axis = node.src, node.attr("axis")
        rank = indices.type.rank
        before = position[:axis]
        if node.prim == "gather":
            at = position[axis : axis + rank]
            axes: tuple[Axis, ...] = (Axis("v", source.shape[axis]),)
            inner = [*before, index(axes[0]), *position[axis + rank :]]
            wanted = index(axes[0])
        else:
            axes = tuple(Axis(f"v{i}", n) for i, n in enumerate(indices.shape))
            at = [index(a) for a in axes]
            inner = [*before, *at, *position[axis + 1 :]]
            wanted = position[axis]
        here = Op("equal", (self.value(indices, at), Position(wanted)), "bool")
        chosen = Op("select", (here, self.value(source, inner), Const(0.0)), "f32")
        return Reduce(0, "sum", axes, chosen, node.dtype)

    def _transform(self, node: Node, position: Sequence[Index]) -> Reduce:
        """Sums over a tile (over a tile's points), between two entries of the matrix."""
        tiling: Tiling = node.attr("tiling")
        (source,) = node.src
        taps = tuple(Axis(f"t{i}", len(tiling.matrix[0])) for i in range(2))
        inner = [index(t) for t in taps]
        if node.prim == "to_tiles":
            p, channel, q, image, *tile = position
            rows = [p, q]
            inner = [
                t * tiling.step + tap - pad
                for t, tap, pad in zip(tile, inner, tiling.pad, strict=True)
            ]
            value = self.value(source, [image, channel, *inner])
            value = guarded(inside(inner, source.shape[2:]), value, 0.0)
        else:
            image, channel, *place = position
            rows = [p % tiling.step for p in place]
            tile = [p // tiling.step for p in place]
            value = self.value(source, [inner[0], channel, inner[1], image, *tile])
        left, right = (
            Entry(tiling.matrix, row, index(tap)) for row, tap in zip(rows, taps, strict=True)
        )
        matrices = Op("mul", (left, right), "f32")
        return Reduce(0, "sum", taps, Op("mul", (matrices, value), "f32"), "f32")

    def _contract(self, node: Node, storage: Storage, name: str) -> Kernel:
        labels: Labels = node.attr("labels")
        at, guards = label_positions(labels)
        factors = []
        for source, letters in zip(node.src, (labels.a, labels.b), strict=True):
            value = self.value(source, [at[c] for c in letters])
            here = tuple(g for c in letters for g in guards.get(c, ()))
            factors.append(factor(here, value))
        offset = storage.offset([at[c] for c in labels.out])
        free = {a for c in labels.out for a, _ in at[c].terms if isinstance(a, Axis)}
        every = {a for i in at.values() for a in _plain_axes(i)}
        whole = Reduce(0, "sum", (), Op("mul", tuple(factors), "f32"), "f32")
        loads = product(whole)
        assert loads is not None, node
        summed = sorted(every - free, key=lambda a: _step(loads[0], a))
        body: tuple[Statement, ...] = (
            replace(whole, axes=tuple(summed)),
            Store(storage.buffer, offset, Acc(0, "f32"), "f32"),
        )
        axes = tuple(a for c in labels.out for a in _plain_axes(at[c]))
        return Kernel(name, _space(axes, body[1]), tuple(without_units(body)), self._layers(node))


def without_units(body: Sequence[Statement]) -> list[Statement]:
    """Drops axes of one element; a Reduce over none of them is just its value."""
    kept: list[Statement] = []
    known: dict[int, Expr] = {}
    for s in body:
        s = replace(s, axes=tuple(a for a in s.axes if a.size > 1))
        if isinstance(s, Reduce) and not s.axes:
            known[s.id] = s.payload if s.payload is not None else s.value
        elif isinstance(s, Store):
            kept.append(replace(s, value=rebuild(s.value, partial(_known, known))))
        else:
            kept.append(s)
    return kept


def _known(known: Mapping[int, Expr], e: Expr) -> Expr | None:
    return known.get(e.id) if isinstance(e, Acc) else None


def _axes(shape: tuple[int, ...]) -> tuple[Axis, ...]:
    names = _NAMES.get(len(shape)) or [f"i{k}" for k in range(len(shape))]
    return tuple(Axis(str(n), size) for n, size in zip(names, shape, strict=True))


def _space(axes: Sequence[Axis], store: Statement) -> tuple[Axis, ...]:
    """Orders a kernel's axes as its result lies in memory; axes of one element drop out."""
    assert isinstance(store, Store)
    kept = [a for a in axes if a.size > 1]
    return tuple(sorted(kept, key=lambda a: -store.offset.coefficient(a)))


def _plain_axes(i: Index) -> list[Axis]:
    return [a for a, _ in i.terms if isinstance(a, Axis)]


def _step(load: Load, axis: Axis) -> tuple[int, str]:
    """Sorts sum axes: those that step far in memory outside, contiguous ones inside."""
    step = abs(load.offset.coefficient(axis))
    if not step and axis in axes_of(load.offset):
        step = 1 << 40  # under a division: a kernel tap of a strided data gradient
    return (-step, axis.name)
