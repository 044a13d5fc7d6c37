"""From a schedule to launches: groups, source, binaries, arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from compiler.backends import Compiled
from compiler.kernels.kernel import Kernel
from compiler.kernels.schedule import Launch as Scheduled
from compiler.kernels.schedule import Loop, Place, Schedule
from compiler.lowering.launches import call_launch
from compiler.tilings import Tilings
from compiler.triton_source.aot import Binary, require_triton
from compiler.triton_source.attempts import Attempt, Task, compile_all
from compiler.triton_source.descriptors import SCRATCH
from compiler.triton_source.function import ARRIVALS, BARRIER, Function, Module, Steps, module, wide
from compiler.triton_source.render import render_kernel
from compiler.triton_source.same import ALIGNMENT, Shape, renamed, shape_of, starts
from compiler.triton_source.text import POINTERS, Names
from compiler.triton_source.tiles import LEAST, MOST, Target
from schemas.errors import BackendError
from schemas.precision import Precision
from schemas.program import ITEMSIZE, KernelInfo, Launch, Repeat, Slot

_WARPS = 16
_ROUNDS = 2  # tiles that a program of a loop may have to work on in turn
_FEW = 4  # blocks for each processor
Member = tuple[Kernel, Function, Shape]


@dataclass(frozen=True, slots=True)
class Group:
    """Kernels of one launch; groups of equal `key` differ in the names of their buffers only.

    One with `steps` is a whole loop; others of a loop are repeated.
    """

    label: str
    kernels: tuple[Kernel, ...]
    functions: tuple[Function, ...]
    buffers: tuple[str, ...]  # in order of appearance
    key: tuple[Any, ...]
    repeat: Repeat | None
    steps: Steps | None = None


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a pointer points to: a place in a buffer, in bytes; in a loop's step t by t * `move` on.

    `elements` is that move in elements.
    """

    buffer: str
    start: int
    move: int = 0
    elements: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """The compiled source of a group, and of all groups that equal it; `label` is the first's."""

    label: str
    module: Module
    order: tuple[int, ...]  # position in Group.buffers of each pointer
    binary: Binary | None

    @property
    def scratch(self) -> int:
        """Returns the bytes of scratch memory that all programs together take."""
        return self.module.programs * self.binary.meta["global_scratch"] if self.binary else 0


class Build:
    """Compiles one schedule; what two launches share is compiled once."""

    def __init__(
        self,
        places: Mapping[str, Place],
        target: Target,
        precision: Precision,
        binary: bool,
        persistent: bool,
        tilings: Tilings,
    ) -> None:
        self.places, self.target, self.precision = places, target, precision
        self.tilings = tilings
        self.binary, self.persistent = binary, persistent
        self.names = Names()
        self.functions: dict[tuple[Any, ...], Function] = {}
        self.pointers: dict[str, Pointer] = {}  # by name; others begin where their buffer does
        self.refused: dict[str, str] = {}  # kernels that do not compile, and why
        if binary:
            require_triton()

    def run(self, schedule: Schedule) -> Compiled:
        groups = [g for launch in schedule.launches for g in self.all_groups(schedule, launch)]
        made = self.make([g for g in groups if isinstance(g, Group)])
        # What did not compile without spilling falls apart, one kernel after another.
        while any(isinstance(g, Group) and g.key not in made for g in groups):
            groups = [part for g in groups for part in self.settled(g, made)]
            made.update(
                self.make([g for g in groups if isinstance(g, Group) and g.key not in made])
            )
        if self.refused:
            each = "; ".join(f"{name}: {why}" for name, why in self.refused.items())
            raise BackendError(f"kernels that do not compile for {self.target.name}: {each}")
        code, text = {}, {}
        for m in made.values():
            text[f"{m.label}.py"] = m.module.source
            if m.binary is not None:
                code[m.label] = m.binary.code
                text.update({f"{m.label}.{s}": t for s, t in m.binary.text.items()})
        launches = tuple(
            g if isinstance(g, Launch) else self.launch(g, made[g.key]) for g in groups
        )
        return Compiled(launches, code, text, slots=tuple(self.slots(groups, made)))

    def slots(self, groups: Sequence[Group | Launch], made: Mapping[Any, Made]) -> Iterator[Slot]:
        """Yields the words at which programs meet, those that say how many have come, and scratch.

        Launches make the same scratch memory their own one after another.
        """
        own = [g for g in groups if isinstance(g, Group)]
        if any(BARRIER in g.buffers for g in own):
            yield Slot(BARRIER, 4, False)
        if counting := [made[g.key].module.programs for g in own if ARRIVALS in g.buffers]:
            yield Slot(ARRIVALS, 4 * max(counting), False)
        if scratch := max((made[g.key].scratch for g in own), default=0):
            yield Slot(SCRATCH, scratch, False)

    def settled(self, group: Group | Launch, made: Mapping[Any, Any]) -> list[Group | Launch]:
        """Returns a group that was made, or the parts of one that was not."""
        if isinstance(group, Launch) or group.key in made:
            return [group]
        return [*self.apart(group)]

    def all_groups(self, schedule: Schedule, launch: Scheduled) -> list[Group | Launch]:
        """Returns a launch as groups: a loop as one, if it may be, else what its steps repeat.

        A call of a Python layer is a launch already.
        """
        if not isinstance(launch, Loop):
            if launch[0].call is not None:
                return [call_launch(launch[0], self.places)]
            kernels = [self.pointed(schedule, launch, k) for k in launch]
            return [*self.groups(self.members(kernels))]
        repeat = Repeat(launch.name, launch.count, launch.backwards)
        rows = [
            self.members([self.pointed(schedule, launch, k) for k in row]) for row in launch.rows
        ]
        programs = programs_for([[f for _, f, _ in row] for row in rows], self.target)
        if self.persistent and isinstance(programs, int):
            return [self.whole(rows, repeat, programs)]
        return [group for row in rows for group in self.groups(row, repeat)]

    def pointed(self, schedule: Schedule, launch: Scheduled, kernel: Kernel) -> Kernel:
        """Returns the kernel with a name of its own for each pointer: see `Pointer`.

        Kernels of a launch may read one buffer at several places, or both step by step and whole.
        """
        names: dict[str, str] = {}
        begin, moves = starts(kernel), schedule.byte_moves(launch, kernel)
        for buffer, start in begin.items():
            size = ITEMSIZE[schedule.buffers[buffer].dtype]
            move = moves.get(buffer, 0)
            names[buffer] = buffer + (f"+{start}" if start else "")
            if buffer in moves:
                names[buffer] += f"{move // size:+}t"
            self.pointers[names[buffer]] = Pointer(buffer, start * size, move, move // size)
        return renamed(kernel, names, begin)

    def render(self, kernel: Kernel, accumulators: int = MOST) -> Function:
        how = self.target, self.precision, accumulators, self.tilings, self.reads_aligned(kernel)
        return render_kernel(kernel, *how)

    def reads_aligned(self, kernel: Kernel) -> bool:
        return all(self.aligned(load.buffer) for load in kernel.loads())

    def members(self, kernels: Sequence[Kernel]) -> list[Member]:
        """Renders kernels; those of equal shape share a function."""
        found = []
        for kernel in kernels:
            shape = shape_of(kernel)
            key = shape.key, self.reads_aligned(kernel)
            if key not in self.functions:
                self.functions[key] = self.render(kernel)
            found.append((kernel, self.functions[key], shape))
        return found

    def groups(self, members: Sequence[Member], repeat: Repeat | None = None) -> list[Group]:
        """Divides what may run at the same time into groups that share a binary: see `divide`."""
        rows = divide([f for _, f, _ in members], self.target.processors)
        return [self.group([members[i] for i in row], repeat) for row in rows]

    def whole(self, rows: Sequence[Sequence[Member]], repeat: Repeat, programs: int) -> Group:
        """Returns a loop as one group, whose programs go through all steps."""
        group = self.group([member for row in rows for member in row], repeat, repeat.loop)
        moves = {b: p.elements for b in group.buffers if (p := self.pointers.get(b)) and p.move}
        sizes = tuple(len(row) for row in rows)
        steps = Steps(repeat.count, repeat.backwards, sizes, moves, programs)
        key = (repeat.count, repeat.backwards, sizes, programs, tuple(moves.values()))
        buffers = (*group.buffers, BARRIER) if programs > 1 else group.buffers
        return replace(group, key=(*group.key, key), steps=steps, buffers=buffers)

    def group(self, members: Sequence[Member], repeat: Repeat | None, name: str = "") -> Group:
        # Equal kernels may read one buffer or several: which of them are one is part of the key.
        position: dict[str, int] = {}
        for _, _, shape in members:
            for buffer in shape.buffers:
                position.setdefault(buffer, len(position))
        if any(kernel.parts is not None or kernel.joins for kernel, _, _ in members):
            position[ARRIVALS] = len(position)
        key = tuple((s.key, tuple(position[b] for b in s.buffers)) for _, _, s in members)
        return Group(
            self.names.fresh(name or members[0][0].name),
            tuple(k for k, _, _ in members),
            tuple(f for _, f, _ in members),
            tuple(position),
            (key, tuple(self.aligned(b) for b in position)),
            repeat,
        )

    def apart(self, group: Group) -> list[Group]:
        """Returns the groups of a loop's rows, or the kernel that holds most and the others."""
        members = self.members(group.kernels)
        if group.steps is None:
            # Of those that hold as much in the end, the one that holds more of it all the time.
            alone = max(reversed(members), key=lambda m: (m[1].held, m[1].accumulators))
            rest = [member for member in members if member is not alone]
            return [self.group(row, group.repeat) for row in (rest, [alone])]
        ends = list(accumulate(group.steps.rows, initial=0))
        rows = [members[start:end] for start, end in pairwise(ends)]
        return [part for row in rows for part in self.groups(row, group.repeat)]

    def place(self, name: str) -> tuple[Place, int]:
        """Returns where a pointer points, in a loop at step 0, and its bytes from step to step."""
        pointer = self.pointers.get(name, Pointer(name, 0))
        if pointer.buffer in (ARRIVALS, BARRIER):
            return Place(pointer.buffer, 0), 0
        place = self.places[pointer.buffer]
        return Place(place.slot, place.offset + pointer.start), pointer.move

    def aligned(self, name: str) -> bool:
        place, move = self.place(name)
        return place.offset % ALIGNMENT == move % ALIGNMENT == 0

    def make(self, groups: Sequence[Group]) -> dict[tuple[Any, ...], Made]:
        """Compiles each distinct group; leaves out groups of several kernels that do not fit.

        What a single kernel takes, its tile decides: it is tried with smaller ones, and the last is
        taken if it compiles at all.
        """
        made: dict[tuple[Any, ...], Made] = {}
        left = {g.key: (g, self.own(g)) for g in reversed(groups)}
        while left:
            found, again = self.compiled([*left.values()]), {}
            for (key, (group, functions)), (m, one) in zip(left.items(), found, strict=True):
                single = len(functions) == 1 and group.steps is None
                if one is not None and one.unfit and not single:
                    continue
                if one is not None and one.unfit and functions[0].accumulators > LEAST:
                    smaller = self.render(functions[0].kernel, functions[0].accumulators // 2)
                    if smaller.accumulators < functions[0].accumulators:  # else it is the smallest
                        again[key] = group, [smaller]
                        continue
                binary = one.binary if one is not None else None
                if one is not None and binary is None:
                    self.refused[group.kernels[0].name] = one.unfit
                made[key] = Made(group.label, m, self.order(group, m), binary)
            left = again
        return made

    def own(self, group: Group) -> list[Function]:
        """Returns the functions of a group's own kernels: others of equal shape have its text."""
        pairs = zip(group.kernels, group.functions, strict=True)
        return [f if f.kernel is k else self.render(k) for k, f in pairs]

    def compiled(
        self, sources: Sequence[tuple[Group, Sequence[Function]]]
    ) -> list[tuple[Module, Attempt | None]]:
        """Returns the module of each group, and what has been made of it if binaries are asked."""
        overlaps = self.binary and self.target.overlaps
        modules = [module(fs, group.label, group.steps, overlaps) for group, fs in sources]
        if not self.binary:
            return [(m, None) for m in modules]
        tasks = [
            Task(m, self.target, tuple(self.aligned(b) for b, _, _ in m.pointers)) for m in modules
        ]
        return [*zip(modules, compile_all(tasks), strict=True)]

    def order(self, group: Group, m: Module) -> tuple[int, ...]:
        return tuple(group.buffers.index(b) for b, _, _ in m.pointers)

    def launch(self, group: Group, made: Made) -> Launch:
        m = made.module
        at = [self.place(group.buffers[i]) for i in made.order]
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
        args = tuple((place.slot, place.offset) for place, _ in at)
        if made.scratch:
            args = (*args, (SCRATCH, 0))
        if group.repeat is None:
            return Launch(group.label, infos, code, args, meta)
        if group.steps is not None:
            return Launch(group.label, infos, code, args, meta | {"cooperative": m.programs > 1})
        moves = tuple(move for _, move in at)
        return Launch(group.label, infos, code, args, meta, repeat=group.repeat, moves=moves)


def programs_for(rows: Sequence[Sequence[Function]], target: Target) -> int | str:
    """Returns how many programs go through all steps of a loop in one launch, or why none do.

    They wait for each other, so all must run at once: one on each processor at most. That is too
    few to hide the waits for memory where a row of kernels has many tiles.
    """
    tiles = max(sum(f.programs for f in row) for row in rows)
    if target.amd:
        return "programs that wait for each other are not tried on AMD"
    if any(wide(f.kernel) for row in rows for f in row):
        return "offsets do not fit in 32 bits"
    if tiles > _ROUNDS * target.processors:
        each = f"{_ROUNDS} for each of {target.processors} processors"
        return f"a row of kernels has {tiles} tiles, more than {each}"
    return min(tiles, target.processors)


def divide(functions: Sequence[Function], processors: int) -> list[list[int]]:
    """Returns which functions share a binary, as lists of their positions.

    Every block of a binary takes the registers and shared memory of the most demanding function in
    it, and has its number of warps. Where all blocks run at once that costs nothing. Else a
    function of fewer warps than others, or one that is no matrix product beside some that are,
    shares only if it has few blocks: what is lost then is less than a launch costs. One whose
    blocks stay shares with none.
    """
    groups: list[list[int]] = []
    alone = [[i] for i, f in enumerate(functions) if f.stays]
    demand = [(f.heavy, f.num_warps) for f in functions]
    order = sorted(range(len(functions)), key=demand.__getitem__, reverse=True)
    for i in order:
        if functions[i].stays:
            continue
        grown = [[functions[j] for j in (*group, i)] for group in groups]
        suit = [g for g, both in enumerate(grown) if _at_once(both, processors)]
        suit += [g for g, both in enumerate(grown) if _alike(both, processors)]
        if suit:
            groups[suit[0]].append(i)
        else:
            groups.append([i])
    groups += alone
    groups.sort(key=lambda group: -max(functions[i].num_warps for i in group))
    return [sorted(group) for group in groups]


def _at_once(functions: Sequence[Function], processors: int) -> bool:
    """Says whether all blocks run at the same time."""
    blocks = sum(f.programs for f in functions)
    return blocks * max(f.num_warps for f in functions) <= _WARPS * processors


def _alike(functions: Sequence[Function], processors: int) -> bool:
    """Says whether all functions but those of few blocks want the same of a processor."""
    warps, products = max(f.num_warps for f in functions), any(f.heavy for f in functions)
    many = [f for f in functions if f.programs > _FEW * processors]
    return all(f.num_warps == warps and f.heavy == products for f in many)
