"""Runs programs of the triton backend on an NVIDIA GPU."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from runtime.calls import Call, Hosts, calls_of
from runtime.cuda_driver import DeviceBlock, Driver, Mirror, Pinned, architecture, bindings
from runtime.cuda_inlet import Inlet
from runtime.cuda_step import Step
from runtime.executable import Array, Executable
from runtime.tensor_bytes import TYPES, dense, fill, pack, rounded, span, strided, unpack
from schemas.errors import BackendError, UsageError
from schemas.program import Launch, Program, Tensor

_LOG_WORDS = 1024  # numbers of 8 bytes that may wait to be read


@lru_cache(maxsize=1)
def usable_gpu() -> str | None:
    """Returns the target of the first GPU (`sm_90`), or None if programs cannot run on one here."""
    try:
        if importlib.util.find_spec("triton") is None:
            return None
        major, minor = architecture(bindings())
    except Exception:  # whatever is missing or broken: there is no usable GPU
        return None
    return f"sm_{major}{minor}" if (major, minor) >= (8, 0) else None


class CudaDevice:
    """An NVIDIA GPU. `api` stands in for cuda.bindings.driver in tests.

    pdl: kernels may begin before those before them have ended. It is off until a GPU has shown what
    it gains: `bench gpu` measures both.
    """

    def __init__(self, ordinal: int = 0, api: Any = None, pdl: bool = False) -> None:
        self.name = f"cuda:{ordinal}"
        self.driver = Driver(ordinal, api, pdl)
        self.architecture = architecture(self.driver.api, ordinal)

    def load(
        self, program: Program, share: Executable | None = None, hosts: Hosts | None = None
    ) -> CudaExecutable:
        require_fit(program, self.architecture)
        calls = calls_of(program, hosts)
        self.driver.use()
        return CudaExecutable(program, self.driver, share, calls)


def require_fit(program: Program, architecture: tuple[int, int]) -> None:
    """Raises BackendError unless the program's code runs on a GPU of this compute capability.

    Code runs on later GPUs of the same major number; from sm_90 on Triton compiles for one alone.
    """
    found = re.fullmatch(r"sm_(\d+)(\d)", program.target)
    if program.meta.get("backend", "triton") != "triton" or found is None:
        raise BackendError(
            f"program '{program.name}' is for {program.target}, which this runtime cannot run",
            hint="compile it with --backend triton and an sm_ target",
        )
    if not program.code and any(launch.call is None for launch in program.launches):
        raise BackendError(f"program '{program.name}' holds source only, no machine code")
    major, minor = int(found[1]), int(found[2])
    exact = major >= 9
    if major != architecture[0] or minor > architecture[1] or (exact and minor != architecture[1]):
        here = f"sm_{architecture[0]}{architecture[1]}"
        raise BackendError(
            f"program '{program.name}' was compiled for {program.target}, this GPU is {here}",
            hint=f"compile it again with --target {here}",
        )


class CudaExecutable:
    """A program in the GPU's memory; see `Executable` for the methods.

    A write takes part in the next run, and a read sees all runs so far, as both are in order on one
    stream. The inputs and scalars that are new in a step are collected and go in one copy before
    the run, most of the way beside that stream (`Inlet`).
    """

    def __init__(
        self,
        program: Program,
        driver: Driver,
        share: Executable | None,
        calls: Mapping[int, Call],
    ) -> None:
        self._program, self._driver = program, driver
        self._inlet = Inlet(driver, program)
        try:
            self.blocks = _blocks(program, driver, share, self._inlet)
        except BackendError:  # who tries again, with a smaller batch, has all memory again
            driver.synchronize()
            self._inlet.release()
            raise
        self._step = Step(driver, program, self._address, calls)
        self.mirrors = _mirrors(program, share)
        self._sent = dict.fromkeys(self.mirrors, 0)  # their versions
        self._scalars = dict(self._words())
        self._log = _Log(driver, self._tensor)
        self._ends: list[Any] = []  # events before and after a step, once one was timed
        self._closed = False

    @property
    def program(self) -> Program:
        return self._program

    def _tensor(self, name: str) -> tuple[Tensor, int]:
        if name not in self._program.tensors:
            raise UsageError(f"program '{self._program.name}' has no tensor '{name}'")
        tensor = self._program.tensors[name]
        return tensor, self._address(tensor.slot) + tensor.offset

    def _address(self, slot: str) -> int:
        """Returns where a slot lies for the next step."""
        return self._inlet.address(slot) if slot in self._inlet else self.blocks[slot].address

    def _words(self) -> Iterator[tuple[str, tuple[Mirror, Array]]]:
        """Yields the name of each scalar, and where it stands in the host's copy."""
        for name, tensor in self._program.tensors.items():
            if tensor.role == "scalar":
                mirror, end = self.mirrors[tensor.slot], tensor.offset + span(tensor)
                yield name, (mirror, strided(tensor, mirror.bytes[tensor.offset : end]))

    def write(self, name: str, value: Array | float | int) -> None:
        if name in self._scalars:  # several in each step: nothing is asked of the driver
            mirror, word = self._scalars[name]
            fill(self._program.tensors[name], value, word)
            mirror.version += 1
            return
        tensor, address = self._tensor(name)
        if tensor.role == "input" and tensor.slot in self._inlet:
            self._inlet.write(name, value)
            return
        self._driver.use()
        # What lies in the gaps of the tensor is another's and stays as it is.
        raw = np.empty(span(tensor), np.uint8)
        if not dense(tensor):
            self._flush()
            raw = self.fetch(tensor.slot, tensor.offset, span(tensor))
        pack(tensor, value, raw)
        self._driver.upload(address, raw.ctypes.data, raw.nbytes)
        if tensor.copy is not None:
            small = rounded(raw)
            at = self._address(tensor.copy) + tensor.offset // 2
            self._driver.upload(at, small.ctypes.data, small.nbytes)
        self._driver.synchronize()  # before the arrays may go

    def fetch(self, slot: str, offset: int, nbytes: int) -> Array:
        """Returns bytes of a slot, as all that was enqueued leaves them."""
        raw = np.empty(nbytes, np.uint8)
        self._driver.download(raw.ctypes.data, self._address(slot) + offset, nbytes)
        self._driver.synchronize()
        return raw

    def read(self, name: str) -> Array:
        tensor, _ = self._tensor(name)
        self._driver.use()
        self._flush()
        return unpack(tensor, self.fetch(tensor.slot, tensor.offset, span(tensor)))

    def run(self, log: tuple[str, ...] = ()) -> None:
        self._driver.use()
        self._flush()
        self._step.run(self._inlet.side)
        if log:
            self._log.add(log)
        self._inlet.leave()

    def alone(self, launch: Launch, t: int) -> None:
        """Runs one launch of a step, one of a loop in time step `t`, and waits for it."""
        self._driver.use()
        self._flush()
        self._step.alone(launch, t)

    def _flush(self) -> None:
        """Enqueues the way of what was written and is not on it yet."""
        for slot, mirror in self.mirrors.items():
            if mirror.version != self._sent[slot]:
                self._inlet.write_slot(slot, mirror.bytes)
                self._sent[slot] = mirror.version
        self._inlet.send()

    def drain(self) -> list[Mapping[str, float]]:
        self._driver.use()
        return self._log.drain()

    def time(self) -> tuple[float, Array | None]:
        """Runs the step twice: whole, and then with events between its launches.

        What shares a launch runs at the same time: each kernel has the part of the launch's time
        that it has of its work.
        """
        self._driver.use()
        if not self._ends:
            self._ends = [self._driver.event(timing=True) for _ in range(2)]
        begin, end = self._ends
        self._driver.record(begin)
        self.run()
        self._driver.record(end)
        self._driver.synchronize()
        whole = self._driver.seconds(begin, end)
        parts = [0.0]
        spent = self._step.time(self._inlet.side)
        for launch, seconds in zip(self._program.launches, spent, strict=True):
            work = np.array([k.flops + k.bytes for k in launch.kernels], np.float64)
            parts += [*(seconds * work / max(work.sum(), 1.0)), 0.0]
        return whole, np.array([parts])

    def synchronize(self) -> None:
        self._driver.use()
        self._flush()
        self._driver.synchronize()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._driver.use()
        self._driver.synchronize()
        self._step.release()
        for event in self._ends:
            self._driver.call("cuEventDestroy", event)
        self._inlet.release()
        self._log.release()
        for block in self.blocks.values():
            block.release()


def _blocks(
    program: Program, driver: Driver, share: Executable | None, inlet: Inlet
) -> dict[str, DeviceBlock]:
    """Allocates the slots that are not the inlet's; those of `share` are the same memory."""
    theirs = share.blocks if isinstance(share, CudaExecutable) else {}
    found: dict[str, DeviceBlock] = {}
    try:
        for slot in (s for s in program.slots if s.name not in inlet):
            block = theirs.get(slot.name) if slot.persistent else None
            if block is None or block.nbytes != slot.nbytes or block.driver is not driver:
                block = DeviceBlock(driver, slot.nbytes, program.initial.get(slot.name))
            block.users += 1
            found[slot.name] = block
    except BackendError:
        driver.synchronize()
        for block in found.values():
            block.release()
        raise
    return found


def _mirrors(program: Program, share: Executable | None) -> dict[str, Mirror]:
    """Returns the host's copies of the slots of scalars; those that `share` has too are its own."""
    theirs = share.mirrors if isinstance(share, CudaExecutable) else {}
    scalars = {t.slot for t in program.tensors.values() if t.role == "scalar"}
    sizes = {slot.name: slot.nbytes for slot in program.slots}
    initial = program.initial
    return {s: theirs.get(s) or Mirror(sizes[s], initial.get(s)) for s in sorted(scalars)}


class _Log:
    """Numbers that are copied to the host after a step and read later."""

    def __init__(self, driver: Driver, find: Callable[[str], tuple[Tensor, int]]) -> None:
        self._driver, self._find = driver, find
        self._ring: Pinned | None = None
        self._known: dict[str, np.dtype[Any]] = {}
        self._pending: list[tuple[str, ...]] = []  # what each step has logged
        self._count = 0
        self._done: list[Mapping[str, float]] = []

    def add(self, names: tuple[str, ...]) -> None:
        """Enqueues the copies of one step's numbers."""
        assert len(names) <= _LOG_WORDS
        if self._ring is None:
            self._ring = Pinned(self._driver, 8 * _LOG_WORDS)
        if self._count + len(names) > _LOG_WORDS:
            self._collect()
        for name in names:
            tensor, address = self._find(name)
            dtype = self._known[name] = np.dtype(TYPES[tensor.dtype])
            self._driver.download(self._ring.address + 8 * self._count, address, dtype.itemsize)
            self._count += 1
        self._pending.append(names)

    def _collect(self) -> None:
        """Waits for the copies and turns them into numbers."""
        if self._ring is None:
            return
        self._driver.synchronize()
        at = 0
        for step in self._pending:
            found = {}
            for name in step:
                found[name] = float(self._ring.bytes[at : at + 8].view(self._known[name])[0])
                at += 8
            self._done.append(found)
        self._pending.clear()
        self._count = 0

    def drain(self) -> list[Mapping[str, float]]:
        self._collect()
        done, self._done = self._done, []
        return done

    def release(self) -> None:
        if self._ring is not None:
            self._ring.release()
