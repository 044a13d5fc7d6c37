"""Runs programs of the triton backend on an NVIDIA GPU: each step one CUDA graph.

A step that calls Python layers is a graph before, between and after the calls.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from runtime.calls import Call, Hosts, calls_of
from runtime.cuda_driver import (
    Arguments,
    DeviceBlock,
    Driver,
    Mirror,
    Pinned,
    Staging,
    architecture,
    bindings,
)
from runtime.executable import Array, Executable
from runtime.tensor_bytes import TYPES, dense, pack, rounded, span, unpack
from schemas.errors import BackendError, UsageError
from schemas.program import Launch, Program, Tensor

_LOG_WORDS = 1024  # numbers of 8 bytes that may wait to be read
_SCALAR_DEPTH = 4  # steps that may be enqueued before Python waits for the first of them


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
    """An NVIDIA GPU. `api` stands in for cuda.bindings.driver in tests."""

    def __init__(self, ordinal: int = 0, api: Any = None) -> None:
        self.name = f"cuda:{ordinal}"
        self.driver = Driver(ordinal, api)
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

    Everything is enqueued on one stream, so a write takes part in the next run and a read sees all
    runs so far. Inputs go through two pinned buffers each; the scalars that change every step are
    collected and go in one copy before the run.
    """

    def __init__(
        self,
        program: Program,
        driver: Driver,
        share: Executable | None,
        calls: Mapping[int, Call],
    ) -> None:
        self._program, self._driver = program, driver
        self.blocks = _blocks(program, driver, share)
        self._modules: dict[str, tuple[Any, Any]] = {}
        self._staging: dict[str, Staging] = {}
        self._mirrors = _mirrors(program, self.blocks)
        self._log = _Log(driver)
        self._graphs: list[Any] = []  # what is replayed before each call, and after the last
        self._closed = False
        launches = program.launches
        self._calls = [_PythonCall(driver, launches[i], self.blocks, c) for i, c in calls.items()]
        # What is captured into each graph: the launches between two calls.
        self._between: list[list[tuple[Launch, int]]] = [[]]
        for launch, t in program.runs():
            if launch.call is not None:
                self._between.append([])
                continue
            self._between[-1].append((launch, t))
            if launch.code not in self._modules:
                code, meta = program.code[launch.code], launch.meta
                loaded = driver.function(code, meta["name"], meta["shared"])
                self._modules[launch.code] = loaded

    @property
    def program(self) -> Program:
        return self._program

    def _tensor(self, name: str) -> tuple[Tensor, int]:
        if name not in self._program.tensors:
            raise UsageError(f"program '{self._program.name}' has no tensor '{name}'")
        tensor = self._program.tensors[name]
        return tensor, self.blocks[tensor.slot].address + tensor.offset

    def write(self, name: str, value: Array | float | int) -> None:
        tensor, address = self._tensor(name)
        self._driver.use()
        if tensor.role == "scalar":
            mirror = self._mirrors[tensor.slot]
            pack(tensor, value, mirror.bytes[tensor.offset : tensor.offset + span(tensor)])
            mirror.dirty = True
        elif tensor.role == "input" and dense(tensor):
            if name not in self._staging:
                self._staging[name] = Staging(self._driver, span(tensor))
            staging = self._staging[name]
            pack(tensor, value, staging.buffer())
            staging.send(address)
        else:
            # What lies in the gaps of the tensor is another's and stays as it is.
            raw = np.empty(span(tensor), np.uint8)
            if not dense(tensor):
                raw = self._bytes(tensor, address)
            pack(tensor, value, raw)
            self._driver.upload(address, raw.ctypes.data, raw.nbytes)
            if tensor.copy is not None:
                small = rounded(raw)
                at = self.blocks[tensor.copy].address + tensor.offset // 2
                self._driver.upload(at, small.ctypes.data, small.nbytes)
            self._driver.synchronize()  # before the arrays may go

    def _bytes(self, tensor: Tensor, address: int) -> Array:
        raw = np.empty(span(tensor), np.uint8)
        self._driver.download(raw.ctypes.data, address, raw.nbytes)
        self._driver.synchronize()
        return raw

    def read(self, name: str) -> Array:
        tensor, address = self._tensor(name)
        self._driver.use()
        self._flush()
        return unpack(tensor, self._bytes(tensor, address))

    def run(self, log: tuple[str, ...] = ()) -> None:
        self._driver.use()
        while len(self._graphs) < len(self._between):
            self._graphs.append(self._capture(len(self._graphs)))
        self._flush()
        for i, graph in enumerate(self._graphs):
            if i:
                self._calls[i - 1].run()
            if graph is not None:
                self._driver.call("cuGraphLaunch", graph, self._driver.stream)
        if log:
            self._log.add({name: self._tensor(name) for name in log})

    def _flush(self) -> None:
        for mirror in self._mirrors.values():
            mirror.flush()

    def _capture(self, part: int) -> Any:
        """Records the launches of a part into a graph, every time step of loops.

        Nothing runs yet. Returns None where the part has no launch.
        """
        driver = self._driver
        if not self._between[part]:
            return None
        mode = driver.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        driver.call("cuStreamBeginCapture", driver.stream, mode)
        try:
            for launch, t in self._between[part]:
                self._launch(launch, t)
        finally:  # a stream left capturing would be of no use
            graph = driver.call("cuStreamEndCapture", driver.stream)
        ready = driver.call("cuGraphInstantiate", graph, 0)
        driver.call("cuGraphDestroy", graph)
        driver.call("cuGraphUpload", ready, driver.stream)
        return ready

    def _launch(self, launch: Launch, t: int) -> None:
        meta, (_, function) = launch.meta, self._modules[launch.code]
        assert not meta["global_scratch"] and not meta["profile_scratch"], launch.name
        args = [self.blocks[slot].address + offset for slot, offset in launch.args_at(t)]
        arguments = Arguments(args)  # the driver copies them at once
        block = (meta["threads"], 1, 1)
        where = (meta["shared"], self._driver.stream, arguments.address)
        if meta.get("cooperative"):  # its programs wait for each other: all must run at once
            grid = (min(meta["grid"][0], self._driver.processors), 1, 1)
            self._driver.call("cuLaunchCooperativeKernel", function, *grid, *block, *where)
        else:
            self._driver.call("cuLaunchKernel", function, *meta["grid"], *block, *where, 0)

    def drain(self) -> list[Mapping[str, float]]:
        self._driver.use()
        return self._log.drain()

    def spent(self) -> Array | None:
        return None

    def synchronize(self) -> None:
        self._driver.use()
        self._driver.synchronize()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._driver.use()
        self._driver.synchronize()
        for graph in self._graphs:
            if graph is not None:
                self._driver.call("cuGraphExecDestroy", graph)
        for call in self._calls:
            call.release()
        for module, _ in self._modules.values():
            self._driver.call("cuModuleUnload", module)
        for staging in self._staging.values():
            staging.release()
        self._log.release()
        for block in self.blocks.values():
            block.release()


def _blocks(program: Program, driver: Driver, share: Executable | None) -> dict[str, DeviceBlock]:
    """Allocates the program's slots; those that `share` has too are the same memory."""
    theirs = share.blocks if isinstance(share, CudaExecutable) else {}
    found: dict[str, DeviceBlock] = {}
    for slot in program.slots:
        block = theirs.get(slot.name) if slot.persistent else None
        if block is None or block.nbytes != slot.nbytes or block.driver is not driver:
            block = DeviceBlock(driver, slot.nbytes, program.initial.get(slot.name))
        block.users += 1
        found[slot.name] = block
    return found


def _mirrors(program: Program, blocks: dict[str, DeviceBlock]) -> dict[str, Mirror]:
    """Returns the host's copies of the slots of scalars; those of shared slots are shared."""
    found: dict[str, Mirror] = {}
    for slot in {t.slot for t in program.tensors.values() if t.role == "scalar"}:
        block = blocks[slot]
        if block.mirror is None:
            block.mirror = Mirror(block, program.initial.get(slot), _SCALAR_DEPTH)
        found[slot] = block.mirror
    return found


class _PythonCall:
    """A call of a Python layer: its blocks go through pinned memory, and the stream waits."""

    def __init__(
        self, driver: Driver, launch: Launch, blocks: Mapping[str, DeviceBlock], call: Call
    ) -> None:
        assert launch.call is not None
        self._driver, self._call = driver, call
        addresses = [blocks[slot].address + offset for slot, offset in launch.args]
        self._out, self._given = addresses[0], addresses[1:]
        self._reads, self._writes = launch.call.reads, launch.call.writes
        self._made = Pinned(driver, 4 * self._writes)
        self._values = Pinned(driver, 4 * max(1, self._reads))

    def run(self) -> None:
        for address in self._given:
            self._driver.download(self._values.address, address, 4 * self._reads)
        self._driver.synchronize()  # also for the copy from `made` in the step before
        made = self._call(self._values.bytes.view(np.float32)[: self._reads])
        self._driver.use()  # the layer may have used another GPU
        self._made.bytes.view(np.float32)[: made.size] = made
        self._driver.upload(self._out, self._made.address, 4 * self._writes)

    def release(self) -> None:
        self._made.release()
        self._values.release()


class _Log:
    """Numbers that are copied to the host after a step and read later."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._ring: Pinned | None = None
        self._pending: list[list[tuple[str, str]]] = []  # (name, type) of each step
        self._count = 0
        self._done: list[Mapping[str, float]] = []

    def add(self, tensors: Mapping[str, tuple[Tensor, int]]) -> None:
        """Enqueues the copies of one step's numbers."""
        assert len(tensors) <= _LOG_WORDS
        if self._ring is None:
            self._ring = Pinned(self._driver, 8 * _LOG_WORDS)
        if self._count + len(tensors) > _LOG_WORDS:
            self._collect()
        for tensor, address in tensors.values():
            nbytes = np.dtype(TYPES[tensor.dtype]).itemsize
            self._driver.download(self._ring.address + 8 * self._count, address, nbytes)
            self._count += 1
        self._pending.append([(name, t.dtype) for name, (t, _) in tensors.items()])

    def _collect(self) -> None:
        """Waits for the copies and turns them into numbers."""
        if self._ring is None:
            return
        self._driver.synchronize()
        at = 0
        for step in self._pending:
            found = {}
            for name, dtype in step:
                found[name] = float(self._ring.bytes[at : at + 8].view(TYPES[dtype])[0])
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
