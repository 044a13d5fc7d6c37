"""From a schedule to launches: groups, source, binaries, arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from compiler.backends import Compiled
from compiler.kernel import Kernel
from compiler.launches import call_launch
from compiler.schedule import Place, Schedule
from compiler.triton_source.aot import Binary, compile_module, require_triton
from compiler.triton_source.checks import resources
from compiler.triton_source.function import Function, Module, module
from compiler.triton_source.render import render_kernel
from compiler.triton_source.same import Shape, shape_of
from compiler.triton_source.text import POINTERS, Names
from compiler.triton_source.tiles import Precision, Target
from schemas.program import KernelInfo, Launch

_ALIGNMENT = 16
_WARPS = 16


@dataclass(frozen=True, slots=True)
class Group:
    """Kernels of one launch; groups of equal `key` differ in the names of their buffers only."""

    label: str
    kernels: tuple[Kernel, ...]
    functions: tuple[Function, ...]
    buffers: tuple[str, ...]  # in order of appearance
    key: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """The compiled source of a group, and of all groups that equal it; `label` is the first's."""

    label: str
    module: Module
    order: tuple[int, ...]  # position in Group.buffers of each pointer
    binary: Binary | None


class Build:
    """Compiles one schedule; what two launches share is compiled once."""

    def __init__(
        self, places: Mapping[str, Place], target: Target, precision: Precision, binary: bool
    ) -> None:
        self.places, self.target, self.precision = places, target, precision
        self.binary = binary
        self.names = Names()
        self.functions: dict[tuple[Any, ...], Function] = {}
        if binary:
            require_triton()

    def run(self, schedule: Schedule) -> Compiled:
        calls = {i: row[0] for i, row in enumerate(schedule.launches) if row[0].call is not None}
        rows = [
            [] if i in calls else self.groups(kernels)
            for i, kernels in enumerate(schedule.launches)
        ]
        made = self.make([group for row in rows for group in row])
        # A group that did not compile without spilling falls apart into single launches.
        apart = [
            [
                one
                for group in row
                for one in ([group] if group.key in made else self.singles(group))
            ]
            for row in rows
        ]
        made.update(self.make([g for row in apart for g in row if g.key not in made]))
        code, text = {}, {}
        for m in made.values():
            text[f"{m.label}.py"] = m.module.source
            if m.binary is not None:
                code[m.label] = m.binary.code
                text.update({f"{m.label}.{s}": t for s, t in m.binary.text.items()})
        launches: list[Launch] = []
        for i, row in enumerate(apart):
            launches += [call_launch(calls[i], self.places)] if i in calls else []
            launches += [self.launch(g, made[g.key]) for g in row]
        return Compiled(tuple(launches), code, text)

    def groups(self, kernels: Sequence[Kernel]) -> list[Group]:
        """Divides the kernels of a launch into groups that share a binary: see `divide`."""
        members = []
        for kernel in kernels:
            shape = shape_of(kernel)
            if shape.key not in self.functions:
                self.functions[shape.key] = render_kernel(kernel, self.target, self.precision)
            members.append((kernel, self.functions[shape.key], shape))
        rows = divide([f for _, f, _ in members], self.target.processors)
        return [self.group([members[i] for i in row]) for row in rows]

    def group(self, members: Sequence[tuple[Kernel, Function, Shape]]) -> Group:
        # Equal kernels may read one buffer or several: which of them are one is part of the key.
        position: dict[str, int] = {}
        for _, _, shape in members:
            for buffer in shape.buffers:
                position.setdefault(buffer, len(position))
        key = tuple((s.key, tuple(position[b] for b in s.buffers)) for _, _, s in members)
        return Group(
            self.names.fresh(members[0][0].name),
            tuple(k for k, _, _ in members),
            tuple(f for _, f, _ in members),
            tuple(position),
            (key, tuple(self.aligned(b) for b in position)),
        )

    def singles(self, group: Group) -> list[Group]:
        return [
            self.group([(k, f, shape_of(k))])
            for k, f in zip(group.kernels, group.functions, strict=True)
        ]

    def aligned(self, buffer: str) -> bool:
        return self.places[buffer].offset % _ALIGNMENT == 0

    def make(self, groups: Sequence[Group]) -> dict[tuple[Any, ...], Made]:
        """Compiles each distinct group; leaves out groups of several kernels that would spill."""
        distinct = {g.key: g for g in reversed(groups)}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            done = pool.map(self.make_one, distinct.values())
            return {key: m for key, m in zip(distinct, done, strict=True) if m is not None}

    def make_one(self, group: Group) -> Made | None:
        functions = [
            f if f.kernel is k else render_kernel(k, self.target, self.precision)
            for k, f in zip(group.kernels, group.functions, strict=True)
        ]
        m = module(functions, group.label)
        order = tuple(group.buffers.index(b) for b, _, _ in m.pointers)
        if not self.binary:
            return Made(group.label, m, order, None)
        aligned = [self.aligned(b) for b, _, _ in m.pointers]
        if len(functions) == 1:
            return Made(group.label, m, order, compile_module(m, self.target, aligned))
        try:
            binary = compile_module(m, self.target, aligned)
        except Exception:  # whatever stops the group need not stop its kernels one by one
            return None
        used = None if self.target.amd else resources(binary.code)
        return None if used is not None and used[1] else Made(group.label, m, order, binary)

    def launch(self, group: Group, made: Made) -> Launch:
        m = made.module
        at = [self.places[group.buffers[i]] for i in made.order]
        meta: dict[str, Any] = {
            "grid": [m.programs, 1, 1],
            "source": f"{made.label}.py",
            "entry": m.entry,
            "types": [POINTERS[dtype] for _, _, dtype in m.pointers],
        }
        if made.binary is not None:
            meta.update(made.binary.meta)
        # What a kernel is and where it came from, the pipeline knows: it looks it up by name.
        infos = tuple(KernelInfo(k.name, k.kind, k.layers, (), 0, 0) for k in group.kernels)
        code = made.label if made.binary is not None else ""
        return Launch(group.label, infos, code, tuple((p.slot, p.offset) for p in at), meta)


def divide(functions: Sequence[Function], processors: int) -> list[list[int]]:
    """Returns which functions share a binary, as lists of their positions.

    Every block of a binary takes the registers and shared memory of the most demanding function in
    it, and has its number of warps. Where there are more blocks than run at once that costs time:
    then only functions of one number of warps share, and matrix products with nothing else. Where
    all blocks run at once anyway, any share whose tiles give every thread something to do. Ours
    take at most 128 registers a thread or so: 16 warps run at once on a processor.
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(functions)), key=lambda i: -functions[i].num_warps):
        f = functions[i]
        for group in groups:
            members = [functions[j] for j in group]
            warps = members[0].num_warps  # the most of the group, by the order of the loop
            alike = all((g.num_warps, g.heavy) == (f.num_warps, f.heavy) for g in members)
            blocks = f.programs + sum(g.programs for g in members)
            at_once = blocks * warps <= _WARPS * processors
            if alike or (at_once and f.tile >= 32 * warps):
                group.append(i)
                break
        else:
            groups.append([i])
    return [sorted(group) for group in groups]
