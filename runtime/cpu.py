"""Runs programs of the cpu backend: memory, worker threads, one native call a step."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.calls import Call, Hosts, calls_of
from runtime.cpu_calls import CpuCalls
from runtime.executable import Executable
from runtime.native import check_host, load_step
from runtime.tensor_bytes import fill, strided
from schemas.program import Program, Slot, written_out

Array = np.ndarray[Any, Any]

_ALIGN = 64
# Vector loads may reach past the last element (compiler/backends/cpu.py says how far).
_BEHIND = 512
# The sync block (compiler/llvm/step.py): where its functions are, and a row for each thread.
_YIELD, _CALL, _ROWS = 128, 136, 256


def default_threads() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class CpuDevice:
    """This machine's processors. `threads` None: all that the process may use."""

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or default_threads()

    def load(
        self, program: Program, share: Executable | None = None, hosts: Hosts | None = None
    ) -> CpuExecutable:
        """Loads a program; see `runtime.executable.Device`."""
        check_host(program)
        return CpuExecutable(program, self.threads, share, calls_of(program, hosts))


class CpuExecutable:
    """A program with its memory, its code and its threads."""

    def __init__(
        self, program: Program, threads: int, share: Executable | None, calls: Mapping[int, Call]
    ) -> None:
        self._program = program
        other = share if isinstance(share, CpuExecutable) else None
        self._slots = {s.name: _memory(s, program, other) for s in program.slots}
        self._tensors = {
            n: strided(t, self._slots[t.slot][t.offset :]) for n, t in program.tensors.items()
        }
        self._log: list[Mapping[str, float]] = []
        code = load_step(program)
        slots = [self._slots[s.name] for s in program.slots]
        bound = CpuCalls(program, self._slots, calls)
        self._team = _Team(code, slots, threads, _parts(program), bound)
        # One that is dropped without close() lets its workers go, too.
        weakref.finalize(self, self._team.stop)

    @property
    def program(self) -> Program:
        return self._program

    def slot(self, name: str) -> Array | None:
        """Returns a slot's memory, as bytes."""
        return self._slots.get(name)

    def write(self, name: str, value: Array | float | int) -> None:
        fill(self._program.tensors[name], value, self._tensors[name])

    def read(self, name: str) -> Array:
        tensor = self._program.tensors[name]
        return np.array(self._tensors[name], order="C").reshape(tensor.shape)

    def run(self, log: tuple[str, ...] = ()) -> None:
        self._team.run()
        if log:
            self._log.append({name: float(self._tensors[name].reshape(-1)[0]) for name in log})

    def drain(self) -> list[Mapping[str, float]]:
        logged, self._log = self._log, []
        return logged

    def synchronize(self) -> None:
        pass

    def time(self) -> tuple[float, Array | None]:
        # When it last looked, when the step began, then the parts; all in ticks of its own.
        before, begun = self._team.clock.copy(), time.perf_counter()
        self.run()
        seconds = time.perf_counter() - begun
        now = self._team.clock
        late = now[:, 1] - now[:, 1].min()
        ticks = np.column_stack((late, (now - before)[:, 2:])).astype(np.float64)
        # The thread that was there longest took all the time.
        longest = ticks.sum(axis=1).max()
        return seconds, ticks * (seconds / longest) if longest else None

    def close(self) -> None:
        self._team.close()
        self._tensors.clear()
        self._slots.clear()


def _parts(program: Program) -> int:
    """Returns how many parts of a step are timed: each kernel, and a wait behind each launch."""
    return sum(len(launch.kernels) + 1 for launch in program.launches)


def _memory(slot: Slot, program: Program, share: CpuExecutable | None) -> Array:
    """Returns a slot's bytes: zeroed or as the program says, or those of `share`."""
    if share is not None and slot.persistent:
        found = share.slot(slot.name)
        if found is not None and found.size == slot.nbytes:
            return found
    block = np.zeros(slot.nbytes + _ALIGN + _BEHIND, np.uint8)
    start = -block.ctypes.data % _ALIGN
    memory = block[start : start + slot.nbytes]
    first = program.initial.get(slot.name)
    if first is not None:
        numbers = written_out(first)
        memory[: numbers.nbytes].view(np.float32)[...] = numbers
    return memory


class _Team:
    """The calling thread and its workers, who run the native step together.

    A step that has begun is always finished by all of them: the calling thread may be interrupted
    between two instructions of Python (KeyboardInterrupt), so what is asked of the workers is one
    number, waking them twice does no harm, and which steps a share ran is counted by the native
    code. There, workers wait a moment for the next step before they come back and sleep.

    A worker may still be on its way out of the step when `run` has returned: code and memory are
    held here, so that they last as long as the workers do.
    """

    def __init__(
        self,
        code: tuple[Any, Any],
        slots: list[Array],
        threads: int,
        parts: int,
        calls: CpuCalls,
    ) -> None:
        self._engine, self._step = code
        self._calls = calls
        self._slots, self._threads = slots, threads
        self._pointers = np.array([s.ctypes.data for s in slots], np.uintp)
        row = -(-8 * (3 + parts) // _ALIGN) * _ALIGN
        size = _ROWS + row * threads
        block = np.zeros(size + _ALIGN, np.uint8)
        start = -block.ctypes.data % _ALIGN
        self._sync = block[start : start + size]
        rows = self._sync[_ROWS:].view(np.int64).reshape(threads, -1)
        self._begun, self.clock = rows[:, 0], rows[:, 1 : 3 + parts]
        calls.attach(*(self._sync[at : at + 8].view(np.uint64) for at in (_YIELD, _CALL)))
        self._args = (self._pointers.ctypes.data, self._sync.ctypes.data)
        self._asked = 0
        self._closed = False
        self._wakes = [threading.Lock() for _ in range(threads - 1)]
        self._workers = []
        for n, wake in enumerate(self._wakes, 1):
            wake.acquire()
            worker = threading.Thread(
                target=self._work, args=(n, wake), name=f"netdef-cpu-{n}", daemon=True
            )
            worker.start()
            self._workers.append(worker)

    def run(self) -> None:
        assert not self._closed, "the executable is closed"
        try:
            self._asked += 1
            self._share()
        except BaseException:
            while self._begun[0] < self._asked:
                try:
                    self._share()
                except KeyboardInterrupt:
                    continue
            raise
        self._calls.check()

    def _share(self) -> None:
        self._wake()
        if self._begun[0] < self._asked:
            self._call(0)

    def _wake(self) -> None:
        for wake in self._wakes:
            try:
                wake.release()
            except RuntimeError:  # awake already
                pass

    def _call(self, share: int) -> None:
        slots, sync = self._args
        self._step(slots, share, self._threads, sync)

    def _work(self, share: int, wake: threading.Lock) -> None:
        while True:
            wake.acquire()
            while self._begun[share] < self._asked:
                self._call(share)
            if self._closed:
                return

    def stop(self) -> None:
        """Lets the workers end, without waiting for them."""
        self._closed = True
        self._wake()

    def close(self) -> None:
        if not self._closed:
            self.stop()
            for worker in self._workers:
                worker.join()
            self._slots.clear()
