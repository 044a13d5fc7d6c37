"""The CUDA driver's calls that a program needs, with errors in plain words."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from runtime.executable import Array
from schemas.errors import BackendError
from schemas.program import Runs, written_out

_PLAIN = {
    "CUDA_ERROR_NO_DEVICE": "there is no NVIDIA GPU in this machine",
    "CUDA_ERROR_INVALID_DEVICE": "there is no GPU of this number",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "the NVIDIA driver does not fit its kernel module",
    "CUDA_ERROR_OUT_OF_MEMORY": "the GPU has not enough free memory",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "the program was compiled for another GPU",
    "CUDA_ERROR_INVALID_IMAGE": "the program's code is damaged",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "a kernel read or wrote outside its memory: a bug of netdef",
    "CUDA_ERROR_LAUNCH_FAILED": "a kernel failed: a bug of netdef, or a broken GPU",
    "CUDA_ERROR_LAUNCH_TIMEOUT": "a kernel was stopped by the display's watchdog",
    "CUDA_ERROR_ECC_UNCORRECTABLE": "the GPU's memory reports an error that it cannot correct",
}
_HINTS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "use a smaller batch_size, or free the GPU (see nvidia-smi)",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "compile the net again with this GPU's --target",
}
_TIMING, _NO_TIMING = 0, 2  # CU_EVENT_DEFAULT, CU_EVENT_DISABLE_TIMING
_EXTERNAL = 1  # CU_EVENT_RECORD_EXTERNAL
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_STATIC_SHARED = 48 * 1024  # more shared memory than this must be asked for


def bindings() -> Any:
    """Returns the module of driver functions, or says how to get it."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise BackendError(
            "running on an NVIDIA GPU needs the package cuda-bindings",
            hint="pip install 'netdef[cuda]'",
        ) from error
    return driver


def call(api: Any, name: str, *args: Any) -> Any:
    """Calls a driver function; returns what it returns beside its status."""
    try:
        found = getattr(api, name)(*args)
    except RuntimeError as error:  # the bindings did not find the driver's library, or this in it
        if name == "cuInit":
            raise BackendError(f"no NVIDIA driver is installed ({error})") from error
        raise BackendError(
            f"the NVIDIA driver is too old ({error})", hint="update the driver"
        ) from error
    if status := found[0]:
        word = getattr(status, "name", str(status))
        text = _PLAIN.get(word, f"the NVIDIA driver reports {word}")
        raise BackendError(f"{text} ({name})", hint=_HINTS.get(word))
    return found[1] if len(found) == 2 else found[1:] or None


def architecture(api: Any, ordinal: int = 0) -> tuple[int, int]:
    """Returns a GPU's compute capability, (9, 0) for sm_90; takes none of its memory."""
    call(api, "cuInit", 0)
    device, names = call(api, "cuDeviceGet", ordinal), api.CUdevice_attribute
    major = names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    minor = names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    return (
        int(call(api, "cuDeviceGetAttribute", major, device)),
        int(call(api, "cuDeviceGetAttribute", minor, device)),
    )


class Driver:
    """One GPU, its primary context, and two streams.

    On `stream` everything happens in order; on `copies` inputs come while a step runs. `pdl` says
    whether kernels may begin early (programmatic dependent launch, see Step).
    """

    def __init__(self, ordinal: int = 0, api: Any = None, pdl: bool = False) -> None:
        self.api = api if api is not None else bindings()
        self.call: Callable[..., Any] = partial(call, self.api)
        self.pdl = pdl
        self.call("cuInit", 0)
        self.device = self.call("cuDeviceGet", ordinal)
        self.context = self.call("cuDevicePrimaryCtxRetain", self.device)
        self.use()
        self.stream = self.call("cuStreamCreate", _NON_BLOCKING)
        self.copies = self.call("cuStreamCreate", _NON_BLOCKING)
        count = self.api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
        self.processors = int(self.call("cuDeviceGetAttribute", count, self.device))

    def use(self) -> None:
        """Makes the GPU this thread's; the driver remembers it per thread."""
        self.call("cuCtxSetCurrent", self.context)

    def synchronize(self) -> None:
        self.call("cuStreamSynchronize", self.stream)

    def event(self, timing: bool = False) -> Any:
        return self.call("cuEventCreate", _TIMING if timing else _NO_TIMING)

    def record(self, event: Any, stream: Any = None) -> None:
        """Marks what `stream` was asked so far, by default the stream of steps."""
        self.call("cuEventRecord", event, stream or self.stream)

    def record_in_graph(self, event: Any) -> None:
        """While a graph is captured: lets it record the event each time when it comes here."""
        self.call("cuEventRecordWithFlags", event, self.stream, _EXTERNAL)

    def wait(self, stream: Any, event: Any) -> None:
        """Lets a stream wait for an event, as it was last recorded; the host goes on."""
        self.call("cuStreamWaitEvent", stream, event, 0)

    def seconds(self, begin: Any, end: Any) -> float:
        """Returns the time between two events, which the host must have waited for."""
        return float(self.call("cuEventElapsedTime", begin, end)) / 1e3

    def upload(self, address: int, host: int, nbytes: int, stream: Any = None) -> None:
        """Enqueues a copy to the GPU."""
        if nbytes:
            self.call("cuMemcpyHtoDAsync", address, host, nbytes, stream or self.stream)

    def download(self, host: int, address: int, nbytes: int) -> None:
        """Enqueues a copy from the GPU."""
        if nbytes:
            self.call("cuMemcpyDtoHAsync", host, address, nbytes, self.stream)

    def move(self, to: int, source: int, nbytes: int) -> None:
        """Enqueues a copy within the GPU."""
        if nbytes:
            self.call("cuMemcpyDtoDAsync", to, source, nbytes, self.stream)

    def function(self, cubin: bytes, name: str, shared: int) -> tuple[Any, Any]:
        """Loads machine code; returns the module and the kernel."""
        module = self.call("cuModuleLoadData", cubin)
        function = self.call("cuModuleGetFunction", module, name.encode())
        if shared > _STATIC_SHARED:
            which = self.api.CUfunction_attribute
            most = which.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self.call("cuFuncSetAttribute", function, most, shared)
            # Else a processor may keep just enough of it for one block, where two would fit.
            prefer = self.api.CUfunc_cache.CU_FUNC_CACHE_PREFER_SHARED
            self.call("cuFuncSetCacheConfig", function, prefer)
        return module, function

    def launch(
        self,
        function: Any,
        grid: Sequence[int],
        threads: int,
        shared: int,
        arguments: Arguments,
        cooperative: bool = False,
        early: bool = False,
    ) -> None:
        """Enqueues a kernel; the driver copies the arguments at once.

        cooperative: all of its blocks run at once, or none do. early: it may begin before the
        kernel before it has ended, which it waits for itself.
        """
        api, attributes = self.api, []
        kinds = api.CUlaunchAttributeID
        if cooperative:
            attributes.append(api.CUlaunchAttribute())
            attributes[-1].id = kinds.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
            attributes[-1].value.cooperative = 1
        if early:
            attributes.append(api.CUlaunchAttribute())
            attributes[-1].id = kinds.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attributes[-1].value.programmaticStreamSerializationAllowed = 1
        config = api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes, config.hStream = shared, self.stream
        config.attrs, config.numAttrs = attributes, len(attributes)
        self.call("cuLaunchKernelEx", config, function, arguments.address, 0)


class DeviceBlock:
    """Memory on the GPU, counted by the executables that use it."""

    def __init__(self, driver: Driver, nbytes: int, initial: Runs | None) -> None:
        self.driver, self.nbytes, self.users = driver, nbytes, 0
        length = max(nbytes, 16)
        self.address = int(driver.call("cuMemAlloc", length))
        driver.call("cuMemsetD8Async", self.address, 0, length, driver.stream)
        if initial:
            numbers = written_out(initial)
            driver.upload(self.address, numbers.ctypes.data, numbers.nbytes)
            driver.synchronize()  # before the numbers may go

    def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.driver.call("cuMemFree", self.address)


class Pinned:
    """Host memory that the GPU copies from and to while Python goes on."""

    def __init__(self, driver: Driver, nbytes: int) -> None:
        self.driver = driver
        self.address = int(driver.call("cuMemHostAlloc", max(nbytes, 1), 0))
        memory = (ctypes.c_uint8 * nbytes).from_address(self.address)
        self.bytes: Array = np.frombuffer(memoryview(memory), np.uint8)

    def release(self) -> None:
        self.driver.call("cuMemFreeHost", self.address)


class Mirror:
    """The host's copy of a slot of scalars, which Python writes to often: each time it is newer."""

    def __init__(self, nbytes: int, initial: Runs | None) -> None:
        self.bytes: Array = np.zeros(nbytes, np.uint8)
        self.version = 1
        if initial:
            numbers = written_out(initial)
            self.bytes[: numbers.nbytes] = numbers.view(np.uint8)


class Arguments:
    """The parameters of one launch as the driver wants them: addresses of their values.

    All are 8-byte addresses: the kernel's pointers in order, then two that Triton always adds: for
    scratch memory, which kernels with descriptors use, and for profiles, which we do not make.
    """

    def __init__(self, pointers: Sequence[int], scratch: int = 0) -> None:
        values = [*pointers, scratch, 0]
        self._values = (ctypes.c_uint64 * len(values))(*values)
        first, size = ctypes.addressof(self._values), ctypes.sizeof(ctypes.c_uint64)
        places = [first + size * i for i in range(len(values))]
        self._places = (ctypes.c_void_p * len(values))(*places)
        self.address = ctypes.addressof(self._places)
