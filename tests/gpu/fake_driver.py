"""Stands in for cuda.bindings.driver: launches are Python calls, and misuse is an error.

What the driver would notice comes back as its status; what it would not notice (races, memory that
is freed in use) raises Misuse.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np

from tests.gpu.cubin import kernel_in
from tests.gpu.handles import (
    Event,
    Fault,
    Function,
    Graph,
    GraphExec,
    Handle,
    Kernel,
    Module,
    Node,
    Status,
    Stream,
)
from tests.gpu.simulator import Memory, Misuse, Order, Span

CONTEXT, DEVICE = "context", 7
NO_TIMING, EXTERNAL = 2, 1
DESCRIPTOR = 128  # bytes of one, and what its address is a multiple of
_ANYWHERE = {"cuInit", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain"}
_WHILE_CAPTURING = {
    "cuCtxSetCurrent", "cuLaunchKernelEx", "cuEventRecordWithFlags", "cuStreamEndCapture",
}  # fmt: skip


class FakeDriver:
    """`kernels` maps names to what is launched; `calls` lists what was called.

    Kernels of real machine code that are not in `kernels` take what they take, and do nothing.
    """

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="processors",
    )
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
    CUfunc_cache = SimpleNamespace(CU_FUNC_CACHE_PREFER_SHARED="prefer shared")
    CUlaunchAttributeID = SimpleNamespace(
        CU_LAUNCH_ATTRIBUTE_COOPERATIVE="cooperative",
        CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION="early",
    )
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread")

    def __init__(self, architecture: tuple[int, int] = (9, 0)) -> None:
        self.facts = {"major": architecture[0], "minor": architecture[1], "processors": 6}
        self.kernels: dict[str, Kernel] = {}
        self.device, self.pinned = Memory("device"), Memory("pinned")
        self.order = Order()
        self.clock = 0.0  # milliseconds that the launches have taken
        self.calls: list[tuple[Any, ...]] = []
        self.handles: list[Handle] = []
        self.limit = 1 << 32
        self.opt_in = 232448 if architecture[0] >= 9 else 166912
        self.fail: dict[str, Status] = {}
        self.broken: Status | None = None  # what every call says since a kernel failed
        self._initialised = False
        self._thread = threading.local()

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        act = getattr(type(self), f"_{name}", None) if name.startswith("cu") else None
        if act is None:
            raise AttributeError(name)
        kinds = list(get_type_hints(act).values())

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            if refused := self.broken or self.fail.get(name) or self._refused(name, args, kinds):
                return (refused,)
            try:
                result = act(self, *args)
            except Fault:
                result = self.broken = Status.CUDA_ERROR_ILLEGAL_ADDRESS
            if isinstance(result, Status):
                return (result,)
            results = result if isinstance(result, tuple) else () if result is None else (result,)
            return (Status.CUDA_SUCCESS, *results)

        return call

    def _refused(self, name: str, args: tuple[Any, ...], kinds: list[Any]) -> Status | None:
        """Returns what is wrong with a call before its own rules."""
        if name != "cuInit" and not self._initialised:
            return Status.CUDA_ERROR_NOT_INITIALIZED
        current = getattr(self._thread, "context", None)
        if name not in _ANYWHERE | {"cuCtxSetCurrent"} and current != CONTEXT:
            return Status.CUDA_ERROR_INVALID_CONTEXT
        for given, kind in zip(args, kinds, strict=False):
            if isinstance(kind, type) and issubclass(kind, Handle):
                if not isinstance(given, kind) or not given.alive:
                    return Status.CUDA_ERROR_INVALID_HANDLE
            elif kind in (int, bytes, str) and not isinstance(given, kind):
                raise TypeError(f"{name}: {given!r} is no {kind.__name__}")
        if getattr(self._thread, "capturing", False) and name not in _WHILE_CAPTURING:
            return Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        return None

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [c[1:] for c in self.calls if c[0] == name]

    def unreleased(self) -> list[Any]:
        """Returns what was made and not given back; the context's streams last as long as it."""
        kept = [h for h in self.handles if h.alive and not isinstance(h, Stream | Function)]
        return [*kept, *self.device.blocks.values(), *self.pinned.blocks.values()]

    def _made(self, handle: Handle) -> Handle:
        self.handles.append(handle)
        return handle

    def _enqueue(self, stream: Stream, name: str, act: Callable[[], object], **spans: Any) -> None:
        one = self.order.enqueue(name, stream.bits, act, **spans)
        stream.bits |= one.bit | one.before

    # The device and its context.

    def _cuInit(self, flags: int) -> None:
        self._initialised = True

    def _cuDeviceGet(self, ordinal: int) -> Any:
        return DEVICE if ordinal == 0 else Status.CUDA_ERROR_NO_DEVICE

    def _cuDeviceGetAttribute(self, attribute: str, device: int) -> int:
        return self.facts[attribute]

    def _cuDevicePrimaryCtxRetain(self, device: int) -> str:
        return CONTEXT

    def _cuCtxSetCurrent(self, context: str) -> None:
        self._thread.context = context

    # Memory.

    def _cuMemGetInfo(self) -> tuple[int, int]:
        return self.limit - sum(b.nbytes for b in self.device.blocks.values()), self.limit

    def _allocate(self, memory: Memory, nbytes: int) -> Any:
        if nbytes > self.limit:
            return Status.CUDA_ERROR_OUT_OF_MEMORY
        return memory.allocate(nbytes) if nbytes else Status.CUDA_ERROR_INVALID_VALUE

    def _free(self, memory: Memory, address: int) -> Any:
        block = memory.blocks.get(address)
        if block is None:
            return Status.CUDA_ERROR_INVALID_VALUE
        for one in self.order.touching(block.span):
            raise Misuse(f"{block.name} is freed, but {one.name} may still use it")
        block.check_guards()
        del memory.blocks[address]
        return None

    def _cuMemAlloc(self, nbytes: int) -> Any:
        return self._allocate(self.device, nbytes)

    def _cuMemFree(self, address: int) -> Any:
        return self._free(self.device, address)

    def _cuMemHostAlloc(self, nbytes: int, flags: int) -> Any:
        return self._allocate(self.pinned, nbytes)

    def _cuMemFreeHost(self, address: int) -> Any:
        return self._free(self.pinned, address)

    def _cuMemsetD8Async(self, address: int, value: int, nbytes: int, stream: Stream) -> None:
        span = self.device.span(address, nbytes)
        act = lambda: ctypes.memset(address, value, nbytes)  # noqa: E731
        self._enqueue(stream, "a memset", act, writes=[span])

    def _cuMemcpyHtoDAsync(self, to: int, host: int, nbytes: int, stream: Stream) -> None:
        """Memory of the host that is not pinned is read at once."""
        content = ctypes.string_at(host, nbytes)
        pinned = self.pinned.holding(host) is not None
        reads: list[Span] = [self.pinned.span(host, nbytes)] if pinned else []

        def act() -> None:
            if pinned and ctypes.string_at(host, nbytes) != content:
                raise Misuse("pinned memory was written before the copy from it was done")
            ctypes.memmove(to, content, nbytes)

        span = self.device.span(to, nbytes)
        self._enqueue(stream, "a copy to the device", act, reads=reads, writes=[span])

    def _cuMemcpyDtoHAsync(self, host: int, source: int, nbytes: int, stream: Stream) -> None:
        """Memory of the host that is not pinned is there when the call returns."""
        pinned = self.pinned.holding(host) is not None
        writes: list[Span] = [self.pinned.span(host, nbytes)] if pinned else []
        span = self.device.span(source, nbytes)
        act = lambda: ctypes.memmove(host, source, nbytes)  # noqa: E731
        self._enqueue(stream, "a copy to the host", act, reads=[span], writes=writes)
        if pinned:
            ctypes.memset(host, 0xAA, nbytes)  # who reads too early shall see it
        else:
            self.order.finish(stream.bits)

    def _cuMemcpyDtoDAsync(self, to: int, source: int, nbytes: int, stream: Stream) -> None:
        reads, writes = [self.device.span(source, nbytes)], [self.device.span(to, nbytes)]
        act = lambda: ctypes.memmove(to, source, nbytes)  # noqa: E731
        self._enqueue(stream, "a copy on the device", act, reads=reads, writes=writes)

    # Streams and events.

    def _cuStreamCreate(self, flags: int) -> Handle:
        return self._made(Stream())

    def _cuStreamSynchronize(self, stream: Stream) -> None:
        self.order.finish(stream.bits)

    def _cuStreamWaitEvent(self, stream: Stream, event: Event, flags: int) -> None:
        if event.last is not None:
            stream.bits |= event.last.bit | event.last.before

    def _cuEventCreate(self, flags: int) -> Handle:
        return self._made(Event(timing=not flags & NO_TIMING))

    def _cuEventRecord(self, event: Event, stream: Stream) -> None:
        def act() -> None:
            event.time = self.clock

        one = self.order.enqueue("an event", stream.bits, act)
        stream.bits |= one.bit
        event.last = one

    def _cuEventRecordWithFlags(self, event: Event, stream: Stream, flags: int) -> Any:
        if flags != EXTERNAL or stream.capture is None:
            return Status.CUDA_ERROR_INVALID_VALUE
        stream.capture.append(Node(None, [], event))
        return None

    def _cuEventSynchronize(self, event: Event) -> None:
        if event.last is not None:
            self.order.finish(event.last.bit)

    def _cuEventElapsedTime(self, start: Event, end: Event) -> Any:
        if not (start.timing and end.timing and start.last and end.last):
            return Status.CUDA_ERROR_INVALID_HANDLE
        if self.order.among(start.last.bit | end.last.bit):
            return Status.CUDA_ERROR_NOT_READY
        return end.time - start.time

    def _cuEventDestroy(self, event: Event) -> None:
        event.alive = False

    # Code.

    def _cuModuleLoadData(self, image: bytes) -> Handle:
        return self._made(Module(image))

    def _cuModuleUnload(self, module: Module) -> None:
        for one in self.order.waiting.values():
            if one.name == "a graph":
                raise Misuse("a module is unloaded, but a graph may still run its code")
        module.alive = False

    def _cuModuleGetFunction(self, module: Module, name: bytes) -> Any:
        kernel = self.kernels.get(name.decode())
        if kernel is None and module.image.startswith(b"\x7fELF"):
            kernel = kernel_in(module.image, name.decode())
        if kernel is None:
            return Status.CUDA_ERROR_NOT_FOUND
        return self._made(Function(module, name.decode(), kernel))

    def _cuFuncSetAttribute(self, function: Function, attribute: str, value: int) -> Any:
        if value > self.opt_in:
            return Status.CUDA_ERROR_INVALID_VALUE
        function.shared = value
        return None

    def _cuFuncSetCacheConfig(self, function: Function, config: str) -> None:
        pass

    @staticmethod
    def CUlaunchConfig() -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace()

    @staticmethod
    def CUlaunchAttribute() -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(value=SimpleNamespace())

    def _cuLaunchKernelEx(
        self, config: SimpleNamespace, function: Function, parameters: int, extra: int
    ) -> Any:
        kernel, stream = function.kernel, config.hStream
        grid = config.gridDimX, config.gridDimY, config.gridDimZ
        threads = config.blockDimX, config.blockDimY, config.blockDimZ
        if not (0 < grid[0] < 2**31 and grid[1:] == (1, 1) and extra == 0):
            return Status.CUDA_ERROR_INVALID_VALUE
        # Triton's kernels say how many threads they are for, and take no others.
        if threads != (kernel.threads, 1, 1) or config.sharedMemBytes > function.shared:
            return Status.CUDA_ERROR_INVALID_VALUE
        given = {one.id: one.value for one in config.attrs[: config.numAttrs]}
        if "cooperative" in given and grid[0] > self.facts["processors"]:
            return Status.CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE
        places = (ctypes.c_void_p * (kernel.pointers + 2)).from_address(parameters)
        pointers = [ctypes.c_uint64.from_address(p).value for p in places if p]
        *pointers, scratch, profile = pointers
        if len(pointers) != kernel.pointers or bool(scratch) != kernel.scratch or profile:
            raise Misuse(f"{function.name} is launched with other parameters than it has")
        if kernel.scratch:  # each program makes a descriptor at least
            self.device.span(scratch, grid[0] * DESCRIPTOR)
            if scratch % DESCRIPTOR:
                raise Misuse(f"the scratch memory of {function.name} is not aligned")
        for n, pointer in enumerate(pointers):
            self.device.span(pointer, 1)
            if n < len(kernel.aligned) and kernel.aligned[n] and pointer % 16:
                raise Misuse(f"pointer {n} of {function.name} is not aligned: {pointer:#x}")
        assert isinstance(stream, Stream)
        if stream.capture is None:
            raise Misuse(f"{function.name} is launched outside of a graph")
        if "early" in given and not (stream.capture and stream.capture[-1].function):
            raise Misuse(f"{function.name} is to begin early, but there is no kernel before it")
        if "early" in given and not function.waits:
            raise Misuse(f"{function.name} is to begin early, but does not wait")
        taken = [*pointers, scratch] if kernel.scratch else pointers
        stream.capture.append(Node(function, taken, grid=grid[0], shared=config.sharedMemBytes))
        return None

    def execute(self, function: Function, node: Node) -> None:
        function.kernel.run(node.pointers[: function.kernel.pointers])

    # Graphs.

    def _cuStreamBeginCapture(self, stream: Stream, mode: str) -> None:
        stream.capture = []
        self._thread.capturing = True

    def _cuStreamEndCapture(self, stream: Stream) -> Any:
        if stream.capture is None:
            return Status.CUDA_ERROR_INVALID_VALUE
        captured, stream.capture = stream.capture, None
        self._thread.capturing = False
        return self._made(Graph(captured))

    def _cuGraphInstantiate(self, graph: Graph, flags: int) -> Handle:
        return self._made(GraphExec(list(graph.nodes)))

    def _cuGraphDestroy(self, graph: Graph) -> None:
        graph.alive = False

    def _cuGraphUpload(self, ready: GraphExec, stream: Stream) -> None:
        pass

    def _cuGraphExecDestroy(self, ready: GraphExec) -> None:
        ready.alive = False

    def _cuGraphLaunch(self, ready: GraphExec, stream: Stream) -> None:
        """A kernel may read and write all of every block that it is given a pointer to."""
        blocks = {}
        for node in ready.nodes:
            if node.function is not None and not node.function.module.alive:
                raise Misuse(f"{node.function.name} is launched, but its module is gone")
            for pointer in node.pointers:
                self.device.span(pointer, 1)
                block = self.device.holding(pointer)
                assert block is not None
                blocks[block.address] = block.span

        def act() -> None:
            for node in ready.nodes:
                if node.event is not None:
                    node.event.time = self.clock
                elif node.function is not None:
                    self.execute(node.function, node)
                    self.clock += node.function.kernel.milliseconds

        self._enqueue(stream, "a graph", act, writes=list(blocks.values()))
        for node in ready.nodes:
            if node.event is not None:
                node.event.last = self.order.waiting[1 << self.order.made - 1]


def floats(address: int, count: int) -> np.ndarray[Any, Any]:
    """Returns device memory as float32 numbers."""
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
