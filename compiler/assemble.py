"""Makes the Program of a compiled unit: tensors by name, slots, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import gcd, prod

from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.kernels.index import Axis, Index, axes_of, bounds, index
from compiler.kernels.kernel import SCALAR_BUFFER, SCALARS, Kernel, Load, load_axes
from compiler.kernels.schedule import Buffer, Loop, repeat_of
from compiler.kernels.schedule import Launch as Scheduled
from compiler.lowering.narrow import COPY
from compiler.passes.arena import NAME, Arena
from compiler.unit import Unit
from schemas.params import LayerBlobs
from schemas.program import ITEMSIZE, KernelInfo, Launch, Program, Role, Tensor


def assemble(unit: Unit) -> Program:
    """Returns the Program; everything in it is plain data."""
    graph, schedule = unit.graph, unit.schedule
    return Program(
        name=graph.name,
        target=unit.backend.target,
        launches=_launches(unit),
        slots=(*unit.memory.slots, *unit.compiled.slots),
        tensors=_tensors(unit),
        params=tuple(graph.params.values()),
        states=tuple(graph.states.values()),
        layers=layer_blobs(graph),
        feeds=graph.feeds,
        sinks=graph.sinks,
        outputs=tuple(graph.outputs),
        loss_weights=dict(graph.loss_weights),
        initial={name: runs for name, runs in unit.tables.items() if name in schedule.buffers},
        code=unit.compiled.code,
        text=unit.compiled.text,
        meta={
            "backend": unit.backend.name,
            "precision": unit.backend.precision,
            "phase": graph.phase,
            **unit.compiled.meta,
        },
    )


def layer_blobs(graph: Graph) -> tuple[LayerBlobs, ...]:
    """Returns the blobs of each layer as Caffe's files count them: learned ones, then states."""
    return tuple(
        LayerBlobs(one.name, one.type, (*one.params, *one.running)) for one in graph.layers
    )


def _tensors(unit: Unit) -> dict[str, Tensor]:
    graph, found = unit.graph, {}
    for name, node in graph.inputs.items():
        if node in unit.plan.storage:
            found[name] = _tensor(unit, name, node, "input")
    for name, node in graph.fetched.items():
        if name not in found:
            found[name] = _tensor(unit, name, node, "output")
    if NAME in unit.memory.places:
        copy = COPY if COPY in unit.memory.places else None
        found.update(_param_tensors(unit.arena, NAME, "param", "", copy))
    if "gradients" in graph.outputs:
        found.update(_param_tensors(unit.arena, "gradients", "state", "d:"))
    for key, info in graph.states.items():
        if key in unit.memory.places:
            strides = _row_major(info.shape)
            found[key] = Tensor(key, "state", "f32", info.shape, key, 0, info.shape, strides)
    for name, (word, dtype) in SCALARS.items():
        found[name] = Tensor(name, "scalar", dtype, (), SCALAR_BUFFER, 4 * word, (), ())
    return found


def _tensor(unit: Unit, name: str, node: Node, role: Role) -> Tensor:
    storage = unit.plan.storage[node]
    axes = [Axis(f"a{i}", n) for i, n in enumerate(node.shape)]
    offset = storage.offset([index(a) for a in axes])
    strides = _strides(offset, axes)
    place = unit.memory.places[storage.buffer.rstrip("'")]  # a new value lies where the old one was
    at = place.offset + offset.const * ITEMSIZE[node.dtype]
    return Tensor(name, role, node.dtype, node.shape, place.slot, at, node.shape, strides)


def _strides(offset: Index, axes: list[Axis]) -> tuple[int, ...]:
    assert all(isinstance(a, Axis) for a, _ in offset.terms), f"no plain layout: {offset}"
    return tuple(offset.coefficient(a) for a in axes)


def _param_tensors(
    arena: Arena, slot: str, role: Role, prefix: str, copy: str | None = None
) -> dict[str, Tensor]:
    return {
        prefix + key: Tensor(
            prefix + key, role, "f32", s.shape, slot, s.offset * 4, s.view, s.strides(), copy
        )
        for key, s in arena.slots.items()
    }


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def _launches(unit: Unit) -> tuple[Launch, ...]:
    launches = unit.schedule.launches
    forward = _forward(unit)
    infos = {k.name: _info(unit, k, launch, forward) for launch in launches for k in launch}
    if unit.compiled.launches:
        return tuple(
            replace(launch, kernels=tuple(infos[k.name] for k in launch.kernels))
            for launch in unit.compiled.launches
        )
    return tuple(
        Launch(
            launch.name if isinstance(launch, Loop) else launch[0].name,
            tuple(infos[k.name] for k in launch),
            repeat=repeat_of(launch),
        )
        for launch in launches
    )


def _forward(unit: Unit) -> set[str]:
    """Returns the kernels whose results reach an output or a layer's own state."""
    storage, found = unit.plan.storage, set[str]()
    stored = (storage[node] for node in unit.graph.fetched.values() if node in storage)
    needed = {one.buffer.rstrip("'") for one in stored}
    needed |= {key for key in unit.graph.states if "/" in key}  # not the solver's
    for launch in reversed(unit.schedule.launches):
        rest = list(launch)
        while now := [k for k in rest if _runs_forward(k, needed)]:  # a loop reads what comes later
            rest = [k for k in rest if k not in now]
            found |= {k.name for k in now}
            needed = needed.union(*(k.reads() for k in now))
    return found


def _runs_forward(kernel: Kernel, needed: set[str]) -> bool:
    if kernel.call is not None:
        return kernel.call.host.way == "forward"
    return not needed.isdisjoint(kernel.writes())


def _info(unit: Unit, kernel: Kernel, launch: Scheduled, forward: set[str]) -> KernelInfo:
    times = launch.count if isinstance(launch, Loop) else 1
    moves = unit.schedule.byte_moves(launch, kernel)
    places = (unit.graph.places.get(layer) for layer in kernel.layers)
    return KernelInfo(
        kernel.name,
        kernel.kind,
        kernel.layers,
        tuple(f"{p.file}:{p.line}" for p in places if p is not None),
        flops(kernel) * times,
        _traffic(kernel, unit.schedule.buffers, moves) * times,
        tuple(sorted(kernel.reads())),
        tuple(sorted(kernel.writes())),
        "forward" if kernel.name in forward else "backward" if kernel.layers else "update",
    )


def flops(kernel: Kernel) -> int:
    """Returns the floating-point operations of a kernel's sums: two for a product and its sum."""
    points = prod(a.size for a in kernel.space)
    each = sum(prod(a.size for a in r.axes if a not in kernel.rows) for r in kernel.reduces)
    return points * (each * 2 if kernel.kind == "contract" else each + len(kernel.stores))


def _traffic(kernel: Kernel, buffers: dict[str, Buffer], moves: Mapping[str, int]) -> int:
    """Returns the bytes that move if every element is read once and every result written once.

    In a loop, that of one time step: of a buffer that `moves`, so many bytes belong to it.
    """
    if kernel.joins:
        made = (replace(kernel, joins=()), *kernel.joins)
        return sum(_traffic(one, buffers, moves) for one in made)
    total = 0
    for name in kernel.reads():
        whole = buffers[name].size
        loads = {x for x in kernel.loads() if x.buffer == name}
        read = sum(min(prod(a.size for a in load_axes(x)), _reached(x, whole)) for x in loads)
        read = read or whole
        total += abs(moves.get(name, min(whole, read) * ITEMSIZE[buffers[name].dtype]))
    for store in kernel.stores:
        points = prod(a.size for a in axes_of(store.offset))
        for guard in store.guards:
            low, high = bounds(guard.index)
            points = points * (min(high + 1, guard.high) - max(low, guard.low)) // (high + 1 - low)
        total += points * ITEMSIZE[store.dtype]
    if kernel.parts is not None:
        parts = buffers[kernel.parts.buffer]
        total += 2 * parts.size * ITEMSIZE[parts.dtype]
    if kernel.call is not None:
        total += kernel.call.host.writes * ITEMSIZE["f32"]
    return total


def _reached(load: Load, whole: int) -> int:
    """Returns how many elements of a buffer a load can touch: of its columns, perhaps a part."""
    steps = {atom: abs(step) for atom, step in load.offset.terms}
    columns = sum(bounds(Index(0, ((a, 1),)))[1] for a, step in steps.items() if step == 1) + 1
    pitch = gcd(*(step for step in steps.values() if step > 1))
    return whole // pitch * columns if columns < pitch else whole
