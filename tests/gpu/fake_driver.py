"""Stands in for cuda.bindings.driver: host memory, one stream, launches as Python calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100


class FakeDriver:
    """`kernels` maps names to functions of the launch's pointers; `calls` lists what was called."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="processors",
    )
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread")

    def __init__(self, architecture: tuple[int, int] = (9, 0)) -> None:
        self.architecture = architecture
        self.kernels: dict[str, Callable[[list[int]], None]] = {}
        self.memory: dict[int, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.capturing: list[Callable[[], None]] | None = None
        self.limit = 1 << 30
        self.fail: dict[str, Status] = {}

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        act = getattr(type(self), f"_{name}", None)

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            if name in self.fail:
                return (self.fail[name],)
            result = act(self, *args) if act else None
            if isinstance(result, Status):
                return (result,)
            return (Status.CUDA_SUCCESS,) if result is None else (Status.CUDA_SUCCESS, result)

        return call

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [c[1:] for c in self.calls if c[0] == name]

    def _cuDeviceGet(self, ordinal: int) -> Any:
        return 7 if ordinal == 0 else Status.CUDA_ERROR_NO_DEVICE

    def _cuDeviceGetAttribute(self, which: str, device: int) -> int:
        found = {"major": self.architecture[0], "minor": self.architecture[1], "processors": 6}
        return found[which]

    def _cuDevicePrimaryCtxRetain(self, device: int) -> str:
        return "context"

    def _cuStreamCreate(self, flags: int) -> str:
        return "stream"

    def _cuEventCreate(self, flags: int) -> str:
        return "event"

    def _allocate(self, nbytes: int) -> Any:
        if nbytes > self.limit:
            return Status.CUDA_ERROR_OUT_OF_MEMORY
        block = (ctypes.c_uint8 * nbytes)()
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    _cuMemAlloc = _allocate

    def _cuMemHostAlloc(self, nbytes: int, flags: int) -> Any:
        return self._allocate(nbytes)

    def _cuMemFree(self, address: int) -> None:
        del self.memory[address]

    _cuMemFreeHost = _cuMemFree

    def _cuMemsetD8Async(self, address: int, value: int, nbytes: int, stream: str) -> None:
        ctypes.memset(address, value, nbytes)

    def _copy(self, to: int, source: int, nbytes: int, stream: str) -> None:
        assert self.capturing is None
        ctypes.memmove(to, source, nbytes)

    _cuMemcpyHtoDAsync = _cuMemcpyDtoHAsync = _copy

    def _cuModuleLoadData(self, cubin: bytes) -> bytes:
        return cubin

    def _cuModuleGetFunction(self, module: bytes, name: bytes) -> str:
        return name.decode()

    def _cuLaunchKernel(self, function: str, *rest: Any) -> None:
        grid, block, (_, _, parameters, extra) = rest[:3], rest[3:6], rest[6:]
        assert extra == 0 and grid[1:] == block[1:] == (1, 1)
        kernel, count = self.kernels[function]
        places = (ctypes.c_void_p * (count + 2)).from_address(parameters)
        pointers = [ctypes.c_uint64.from_address(p).value for p in places]
        assert pointers[count:] == [0, 0]

        def launch() -> None:
            kernel(pointers[:count])

        assert self.capturing is not None, "launched outside a graph"
        self.capturing.append(launch)

    def _cuLaunchCooperativeKernel(self, function: str, *rest: Any) -> None:
        self._cuLaunchKernel(function, *rest, 0)

    def _cuStreamBeginCapture(self, stream: str, mode: str) -> None:
        assert self.capturing is None
        self.capturing = []

    def _cuStreamEndCapture(self, stream: str) -> Any:
        captured, self.capturing = self.capturing, None
        return captured

    def _cuGraphInstantiate(self, graph: Any, flags: int) -> Any:
        return list(graph)

    def _cuGraphLaunch(self, graph: Any, stream: str) -> None:
        for launch in graph:
            launch()


def floats(address: int, count: int) -> np.ndarray[Any, Any]:
    """Returns device memory as float32 numbers."""
    return np.frombuffer((ctypes.c_float * count).from_address(address), np.float32)
