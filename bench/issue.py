"""What the kernels of a GPU's step ask of its processors, counted without a GPU.

Some programs of each launch run emulated (tests/gpu/ptx), in the batch of the bench, on memory that
is not there. What they issue stands beside the time that bytes and sums take: a kernel whose
instructions or whose shared memory take longer than both has work left for us.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.roofline import PEAKS, seconds_of
from schemas.program import Launch, Program
from tests.gpu.ptx.lanes import Array
from tests.gpu.ptx.machine import Emulated, Machine
from tests.gpu.ptx.text import Instruction, read
from tests.gpu.ptx.transfers import address_of, registers
from tests.gpu.simulator import Misuse

COLUMNS = ("launch", "programs", "planned us", "tensor us", "issue us", "shared us", "conflicts")
SAMPLE = 8  # programs of a launch
PATIENCE = 30.0  # seconds for a launch
WARP, BANKS, SCHEDULERS = 32, 32, 4
# Processors, and cycles of each in a second. A processor issues an instruction of a warp on each of
# its schedulers, and moves a word of each bank, in a cycle.
PROCESSORS = {"sm_80": (108, 1.41e9), "sm_90": (132, 1.755e9)}
_GROUP = re.compile(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k")
_SHARED = re.compile(r"(ld|st)\.shared|cp\.async\.c[ag]")
_MATRICES = re.compile(r"(?:ld|st)matrix\.sync\.aligned\.m8n8\.x(\d)")


@dataclass(slots=True)
class Asked:
    """What a launch asks of the processors, in seconds of all of them; `cut`: it took too long."""

    launch: str
    programs: int
    planned: float
    tensor: float = 0.0
    issue: float = 0.0
    shared: float = 0.0
    conflicts: float = 1.0  # cycles of shared memory over those that the bytes take
    cut: str = ""

    @property
    def longest(self) -> float:
        return max(self.planned, self.tensor, self.issue, self.shared)


def asked(program: Program) -> Iterator[Asked]:
    """Yields what each launch asks for; loops whose programs meet are left out."""
    processors, clock = PROCESSORS[program.target]
    known: dict[tuple[str, int], _Watch | str] = {}
    for launch in program.launches:
        grid = launch.meta["grid"][0]
        planned = seconds_of(launch, PEAKS[program.target], program.meta["precision"])
        one = Asked(launch.name, grid, planned)
        key = launch.code, grid
        if key not in known:
            known[key] = _watched(program, launch)
        watch = known[key]
        if isinstance(watch, str):
            one.cut = watch
        else:
            # A launch takes as long as its fullest processor, and no less than one program.
            times = max(grid / processors, 1.0) / watch.programs / clock
            one.tensor, one.issue = watch.tensor * times, watch.issued / SCHEDULERS * times
            one.shared = watch.moved * times
            one.conflicts = watch.moved / watch.ideal if watch.ideal else 1.0
        yield one


def row(one: Asked) -> tuple[str, ...]:
    counts = (one.tensor, one.issue, one.shared)
    shown = [f"{t * 1e6:,.1f}" for t in counts] if not one.cut else [one.cut, "", ""]
    conflicts = f"{one.conflicts:.2f}" if one.conflicts > 1.005 else ""
    return (one.launch, f"{one.programs:,}", f"{one.planned * 1e6:,.1f}", *shown, conflicts)


def _watched(program: Program, launch: Launch) -> _Watch | str:
    """Runs some programs of a launch; returns what they issue, or why it is not known."""
    emulated = Emulated(read(program.text[f"{launch.code}.ptx"]))
    names = {i.name for i in emulated.code.instructions}
    if any("acquire" in name and name.startswith("ld") for name in names):
        return "meets"
    grid = launch.meta["grid"][0]
    chosen = np.random.default_rng(0).permutation(grid)[:SAMPLE]
    pointers = [(n + 1) << 40 for n, _ in enumerate(emulated.code.parameters)]
    watch = _Watch(len(chosen))
    try:
        emulated.run_some(chosen, grid, launch.meta["shared"], pointers, _Nowhere(), watch)
    except TimeoutError:
        return "cut"
    except Misuse as error:
        return str(error)
    return watch


class _Nowhere:
    """Memory of any size: each address holds a number of its own, always the same."""

    def load(self, address: Array, size: int, many: int = 1) -> Array:
        each = address.astype(np.uint64)[:, None] + np.arange(many, dtype=np.uint64) * np.uint64(
            size
        )
        mixed = each * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)
        floats = (mixed.astype(np.float32) / np.float32(1 << 23) - 1).view(np.uint32)
        if size == 4:
            return floats
        return (floats >> 16 if size == 2 else mixed & np.uint64(1)).astype(f"u{size}")

    def store(self, address: Array, values: Array) -> None:
        pass

    def add(self, address: Array, value: Array) -> Array:
        return np.zeros_like(value)


@dataclass
class _Watch:
    """Adds up what instructions take, in cycles of a processor, or in instructions of a warp."""

    programs: int
    issued: int = 0
    tensor: float = 0.0
    moved: float = 0.0
    ideal: float = 0.0
    began: float = field(default_factory=time.process_time)
    _where: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, m: Machine, i: Instruction, active: Array | None, guarded: Array | None
    ) -> None:
        if time.process_time() - self.began > PATIENCE:
            raise TimeoutError
        # A register's copy is hardly ever an instruction of the machine.
        if not i.name.startswith("mov"):
            self.issued += len(_warps(m, active))
        if group := _GROUP.match(i.name):
            groups, columns = len(_warps(m, guarded)) // 4, int(group[1])
            self.tensor += groups * columns / 2
            # Four rows, of 32 bytes, are a cycle. The first factor has 64, if not in registers.
            rows = columns + (0 if isinstance(i.operands[1], tuple) else 64)
            self._moves(groups * rows / 4, groups * rows / 4)
        elif i.name.startswith("mma.sync"):
            self.tensor += 2 * len(_warps(m, guarded))
        elif _SHARED.match(i.name) and "commit" not in i.name:
            self._access(m, i, guarded)
        elif matrices := _MATRICES.match(i.name):
            rows = 8 * int(matrices[1])
            at = self._address(m, i).reshape(-1, WARP)[_warps(m, guarded), :rows]
            lanes = np.repeat(np.arange(at.size // 8), 8)
            self._moves(*_cycles(lanes, at.reshape(-1), 16))

    def _moves(self, cycles: float, ideal: float) -> None:
        self.moved, self.ideal = self.moved + cycles, self.ideal + ideal

    def _address(self, m: Machine, i: Instruction) -> Array:
        if i.text not in self._where:
            place = i.operands[1 if i.name.startswith("ld") else 0]
            self._where[i.text] = address_of(place, "b32")
        return np.broadcast_to(self._where[i.text](m), m.count)

    def _access(self, m: Machine, i: Instruction, guarded: Array | None) -> None:
        if i.name.startswith("cp"):
            size = i.operands[2]
            assert isinstance(size, int)
        else:
            value = i.operands[0 if i.name.startswith("ld") else 1]
            size = int(i.parts[-1][1:]) // 8 * len(registers(value))
        lanes = np.arange(m.count) if guarded is None else np.flatnonzero(guarded)
        # Eight lanes of 16 bytes, or 16 of 8, are served at a time.
        together = {16: 8, 8: 16}.get(size, WARP)
        self._moves(*_cycles(lanes // together, self._address(m, i)[lanes], size))


def _warps(m: Machine, active: Array | None) -> Array:
    if active is None:
        return np.arange(m.count // WARP)
    return np.flatnonzero(active.reshape(-1, WARP).any(axis=1))


def _cycles(served: Array, address: Array, size: int) -> tuple[float, float]:
    """Returns the cycles that an access takes, and those that its bytes would.

    `served` numbers the lanes that are served together. A bank gives a word to all that ask for it.
    """
    words = (address[:, None].astype(np.int64) + np.arange(0, size, 4)) // 4
    asked = np.unique(np.repeat(served, words.shape[1]) << 32 | words.reshape(-1))
    together, words = asked >> 32, asked & (1 << 32) - 1
    banks, waiting = np.unique(together * BANKS + words % BANKS, return_counts=True)
    first = np.flatnonzero(np.diff(banks // BANKS, prepend=-1))
    _, many = np.unique(together, return_counts=True)
    return float(np.maximum.reduceat(waiting, first).sum()), float(np.ceil(many / BANKS).sum())
