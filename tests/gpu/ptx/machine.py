"""Runs a kernel: which threads go on, and where they wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.gpu.ptx.arithmetic import elementwise
from tests.gpu.ptx.engine import Engine, engine
from tests.gpu.ptx.lanes import Array, Lanes, Step
from tests.gpu.ptx.memory import Outside, Shared
from tests.gpu.ptx.tensors import Products, tensor
from tests.gpu.ptx.text import Code, Instruction, Unknown
from tests.gpu.ptx.transfers import Copies, transfer
from tests.gpu.ptx.warps import together
from tests.gpu.simulator import Misuse

_RESIDENT = 16384  # threads that run at a time
_PATIENCE = 200_000  # stretches of code after which a kernel is said to hang
_NOTHING = (
    "griddepcontrol", "bar.warp", "membar", "wgmma.fence", "nanosleep",
    "cp.async.bulk.commit_group", "cp.async.bulk.wait_group",
)  # fmt: skip
_STOPS = ("bra", "ret", "exit", "bar", "barrier")  # what ends a stretch, where not in _NOTHING


# What sees an instruction, the lanes that come to it, and those that run it (None: all).
Watch = Callable[["Machine", Instruction, Array | None, Array | None], None]


class Machine(Lanes):
    """Blocks of a kernel that run beside each other."""

    def __init__(
        self, emulated: Emulated, grid: int, blocks: Array, shared: int, memory: Outside
    ) -> None:
        super().__init__(blocks, emulated.code.threads, grid)
        self.memory = memory
        self.shared = Shared(len(blocks), shared, emulated.cell)
        self.copies = Copies(self.count)
        self.products, self.engine = Products(self.count), Engine()

    def take(self, names: Sequence[str], pointers: Sequence[int]) -> None:
        """Takes parameters: code may compute where one lies, so that it has an address."""
        assert len(names) == len(pointers), names
        self.parameters = np.array(pointers, np.uint64)
        for n, name in enumerate(names):
            self.registers[name] = np.full(self.count, self.parameters.itemsize * n, np.uint32)


class Emulated:
    """A kernel whose instructions are ready to run."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.steps = [None if _stops(i) or _idle(i) else _step(i) for i in code.instructions]
        self.heads = {*code.labels.values()}
        accesses = [i.parts for i in code.instructions if "shared" in i.name]
        small = [p for p in accesses if p[0] in ("ld", "st") and p[-1] in ("b8", "b16")]
        self.cell = min((int(p[-1][1:]) // 8 for p in small), default=4)

    def run(
        self, grid: int, shared: int, pointers: Sequence[int], memory: Outside, seed: int = 0
    ) -> None:
        """Runs all blocks, in an order that the seed decides."""
        self.run_some(np.random.default_rng(seed).permutation(grid), grid, shared, pointers, memory)

    def run_some(
        self,
        blocks: Array,
        grid: int,
        shared: int,
        pointers: Sequence[int],
        memory: Outside,
        watch: Watch | None = None,
    ) -> None:
        """Runs some blocks of a grid. `watch` sees each instruction before it runs."""
        spins = any("acquire" in i.name for i in self.code.instructions)
        many = grid if spins else max(1, _RESIDENT // self.code.threads)
        with np.errstate(all="ignore"):
            for first in range(0, len(blocks), many):
                machine = Machine(self, grid, blocks[first : first + many], shared, memory)
                machine.take(self.code.parameters, pointers)
                _run(self, machine, watch)


def _idle(i: Instruction) -> bool:
    return i.name.startswith(_NOTHING)


def _stops(i: Instruction) -> bool:
    return i.parts[0] in _STOPS and not _idle(i)


def _step(i: Instruction) -> Step:
    found = tensor(i) or engine(i) or transfer(i) or together(i) or elementwise(i)
    if found is None:
        raise Unknown(i.text)
    return found


def _run(emulated: Emulated, m: Machine, watch: Watch | None) -> None:
    """The threads that are least far go on first, so that others find them where ways meet.

    Now and then others have their turn: a block may wait for one that is further.
    """
    code, state = emulated.code, _Threads(m)
    for turn in range(_PATIENCE):
        pc = state.next(late=turn % 16 == 15)
        if pc is None:
            return
        active = state.at(pc)
        while True:
            i = code.instructions[pc]
            guarded = _guarded(m, i, active)
            if watch is not None:
                watch(m, i, active, guarded)
            step = emulated.steps[pc]
            if step is None:
                if _stops(i):
                    state.stop(i, pc, active, guarded, code)
                    break
            elif guarded is None or guarded.any():
                try:
                    step(m, guarded)
                except Misuse as error:
                    raise Misuse(f"{code.name}: {error}, by {i.text}") from None
            pc += 1
            if pc in emulated.heads:
                state.go(active, pc)
                break
    raise Misuse(f"{code.name} does not end")


def _guarded(m: Machine, i: Instruction, active: Array | None) -> Array | None:
    if i.guard is None:
        return active
    holds = m.bits(i.guard) ^ i.negated
    return holds if active is None else holds & active


class _Threads:
    """Where each thread is; `_GONE` once it has ended."""

    def __init__(self, m: Machine) -> None:
        self._m = m
        self._pc = np.zeros(m.count, np.int64)
        self._waits = np.zeros(m.count, bool)

    def next(self, late: bool) -> int | None:
        """Returns where to go on, None if all have ended."""
        if self._waits.any():
            self._release()
        pc = np.where(self._waits, _GONE, self._pc)
        least = pc.min()
        if least == _GONE:
            return None
        if late:
            each = pc.reshape(-1, self._m.threads).min(axis=1)
            least = each[each != _GONE].max()
        return int(least)

    def at(self, pc: int) -> Array | None:
        here = (self._pc == pc) & ~self._waits
        return None if here.all() else here

    def go(self, active: Array | None, pc: int) -> None:
        if active is None:
            self._pc[:] = pc
        else:
            self._pc[active] = pc

    def stop(
        self, i: Instruction, pc: int, active: Array | None, guarded: Array | None, code: Code
    ) -> None:
        """A branch, the end, or a barrier."""
        self.go(active, pc + 1)
        if i.parts[0] == "bra":
            self.go(guarded, code.labels[str(i.operands[0])])
        elif i.parts[0] in ("ret", "exit"):
            self.go(guarded, _GONE)
        else:
            if i.operands != (0,):
                raise Unknown(i.text)
            self._waits[slice(None) if guarded is None else guarded] = True

    def _release(self) -> None:
        """Lets those blocks go on all of whose threads wait, or have ended."""
        rows = (self._waits | (self._pc == _GONE)).reshape(-1, self._m.threads)
        ready = rows.all(axis=1) & self._waits.reshape(rows.shape).any(axis=1)
        at = np.where(self._waits, self._pc, -1).reshape(rows.shape)[ready]
        if np.any((at != at.max(axis=1, keepdims=True)) & (at >= 0)):
            raise Misuse("threads of a block wait at different barriers")
        self._waits.reshape(rows.shape)[ready] = False
        self._m.shared.epoch[ready] += 1


_GONE = 1 << 40
