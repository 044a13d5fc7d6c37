"""The driver made of Python is as strict as the real one, and about more."""

from __future__ import annotations

import ctypes
import inspect
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.cuda_driver import Arguments
from tests.gpu.fake_driver import CONTEXT, FakeDriver, floats
from tests.gpu.handles import Kernel, Status
from tests.gpu.simulator import Misuse

NBYTES = 64


class Bench:
    """A driver with two streams, two blocks on the device, pinned memory, and a kernel."""

    def __init__(self) -> None:
        self.api = FakeDriver()
        self.call("cuInit", 0)
        self.call("cuCtxSetCurrent", CONTEXT)
        self.one, self.two = self.call("cuStreamCreate", 1), self.call("cuStreamCreate", 1)
        self.a, self.b = self.call("cuMemAlloc", NBYTES), self.call("cuMemAlloc", NBYTES)
        self.host = self.call("cuMemHostAlloc", NBYTES, 0)
        self.event = self.call("cuEventCreate", 0)
        self.api.kernels["double"] = Kernel(self.double, 1, aligned=[True], milliseconds=2.5)
        self.module = self.call("cuModuleLoadData", b"cubin")
        self.function = self.call("cuModuleGetFunction", self.module, b"double")

    def double(self, pointers: list[int]) -> None:
        floats(pointers[0], NBYTES // 4)[:] *= 2

    def status(self, name: str, *args: Any) -> Status:
        return getattr(self.api, name)(*args)[0]

    def call(self, name: str, *args: Any) -> Any:
        status, *results = getattr(self.api, name)(*args)
        assert not status, (name, status.name)
        return results[0] if results else None

    def fill(self, value: float) -> None:
        floats(self.host, NBYTES // 4)[:] = value

    def upload(self, stream: Any, to: int | None = None) -> None:
        self.call("cuMemcpyHtoDAsync", to or self.a, self.host, NBYTES, stream)

    def launch(
        self,
        pointers: list[int],
        threads: int = 128,
        shared: int = 0,
        grid: int = 1,
        scratch: int = 0,
        attributes: tuple[str, ...] = (),
    ):
        at = Arguments(pointers, scratch)
        places = (ctypes.c_void_p * 8)()  # behind too few stands nothing
        ctypes.memmove(places, at.address, 8 * (len(pointers) + 2))
        config = self.api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes, config.hStream = shared, self.one
        config.attrs = [SimpleNamespace(id=name, value=1) for name in attributes]
        config.numAttrs = len(attributes)
        place = ctypes.addressof(places)
        return self.status("cuLaunchKernelEx", config, self.function, place, 0)

    def captured(self, *pointers: int, event: bool = False) -> Any:
        """Returns a graph of a launch for each pointer, with an event at its end."""
        self.call("cuStreamBeginCapture", self.one, "thread")
        for pointer in pointers:
            assert not self.launch([pointer])
        if event:
            self.call("cuEventRecordWithFlags", self.event, self.one, 1)
        return self.call("cuGraphInstantiate", self.call("cuStreamEndCapture", self.one), 0)

    def values(self, address: int) -> list[float]:
        return sorted(set(floats(address, NBYTES // 4).tolist()))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_happens_before_somebody_waits(bench):
    bench.fill(3)
    bench.upload(bench.one)
    bench.call("cuGraphLaunch", bench.captured(bench.a), bench.one)
    assert bench.values(bench.a) != [6.0]
    bench.call("cuStreamSynchronize", bench.two)
    assert bench.values(bench.a) != [6.0]
    bench.call("cuStreamSynchronize", bench.one)
    assert bench.values(bench.a) == [6.0]


def test_an_event_orders_two_streams(bench):
    bench.fill(1)
    bench.upload(bench.one)
    with pytest.raises(Misuse, match="a graph and a copy to the device touch the same memory"):
        bench.call("cuGraphLaunch", bench.captured(bench.a), bench.two)
    bench.call("cuEventRecord", bench.event, bench.one)
    bench.call("cuStreamWaitEvent", bench.two, bench.event, 0)
    bench.call("cuGraphLaunch", bench.captured(bench.a), bench.two)
    bench.call("cuStreamSynchronize", bench.two)
    assert bench.values(bench.a) == [2.0]


def test_an_event_of_before_orders_nothing(bench):
    bench.call("cuEventRecord", bench.event, bench.one)
    bench.upload(bench.one)
    bench.call("cuStreamWaitEvent", bench.two, bench.event, 0)
    with pytest.raises(Misuse, match="in any order"):
        bench.call("cuMemsetD8Async", bench.a, 0, 4, bench.two)


def test_pinned_memory_is_written_too_early(bench):
    bench.fill(1)
    bench.upload(bench.one)
    bench.fill(2)
    with pytest.raises(Misuse, match="written before the copy from it was done"):
        bench.call("cuStreamSynchronize", bench.one)


def test_what_is_read_too_early_is_no_number_of_before(bench):
    bench.fill(1)
    bench.call("cuMemsetD8Async", bench.a, 0, NBYTES, bench.one)
    bench.call("cuMemcpyDtoHAsync", bench.host, bench.a, NBYTES, bench.one)
    assert bench.values(bench.host) not in ([0.0], [1.0])
    bench.call("cuEventRecord", bench.event, bench.one)
    bench.call("cuEventSynchronize", bench.event)
    assert bench.values(bench.host) == [0.0]


def test_memory_is_freed_in_use(bench):
    bench.upload(bench.one)
    for free, address in (("cuMemFree", bench.a), ("cuMemFreeHost", bench.host)):
        with pytest.raises(Misuse, match="is freed, but a copy to the device may still use it"):
            bench.call(free, address)
    bench.call("cuStreamSynchronize", bench.one)
    bench.call("cuMemFree", bench.a)
    assert bench.status("cuMemFree", bench.a) == Status.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(Misuse, match="are not in device memory"):
        bench.upload(bench.one)


def test_a_write_beside_a_block_is_seen(bench):
    ctypes.memset(bench.b + NBYTES, 0, 4)
    with pytest.raises(Misuse, match="something was written beside device memory 2"):
        bench.call("cuMemFree", bench.b)


def test_what_a_launch_may_not_be(bench):
    with pytest.raises(Misuse, match="outside of a graph"):
        bench.launch([bench.a])
    bench.call("cuStreamBeginCapture", bench.one, "thread")
    assert bench.launch([bench.a], threads=64) == Status.CUDA_ERROR_INVALID_VALUE
    assert bench.launch([bench.a], grid=0) == Status.CUDA_ERROR_INVALID_VALUE
    assert bench.launch([bench.a], shared=50000) == Status.CUDA_ERROR_INVALID_VALUE
    wrong: list[tuple[list[int], str]] = [
        ([], "other parameters"),
        ([bench.a, bench.b], "other parameters"),
        ([bench.a + 4], "not aligned"),
        ([bench.host], "not in device memory"),
        ([bench.a + NBYTES], "not in device memory"),
    ]
    for pointers, text in wrong:
        with pytest.raises(Misuse, match=text):
            bench.launch(pointers)


def test_shared_memory_is_asked_for(bench):
    assert bench.api.opt_in == 232448
    ask = ("cuFuncSetAttribute", bench.function, "shared")
    assert bench.status(*ask, 232449) == Status.CUDA_ERROR_INVALID_VALUE
    bench.call(*ask, 50000)
    bench.call("cuStreamBeginCapture", bench.one, "thread")
    assert not bench.launch([bench.a], shared=50000)
    assert bench.launch([bench.a], shared=50001) == Status.CUDA_ERROR_INVALID_VALUE


def test_who_may_begin_before_the_launch_before_has_ended(bench):
    bench.call("cuStreamBeginCapture", bench.one, "thread")
    with pytest.raises(Misuse, match="double is to begin early, but there is no kernel before it"):
        bench.launch([bench.a], attributes=("early",))
    assert not bench.launch([bench.a])
    with pytest.raises(Misuse, match="double is to begin early, but does not wait"):
        bench.launch([bench.a], attributes=("early",))
    bench.function.waits = True
    assert not bench.launch([bench.a], attributes=("early",))
    bench.call("cuEventRecordWithFlags", bench.event, bench.one, 1)
    with pytest.raises(Misuse, match="there is no kernel before it"):
        bench.launch([bench.a], attributes=("early",))


def test_scratch_memory_is_enough_for_a_descriptor_a_program(bench):
    scratch = bench.call("cuMemAlloc", 300)
    bench.function.kernel = Kernel(bench.double, 1, scratch=True)
    bench.call("cuStreamBeginCapture", bench.one, "thread")
    with pytest.raises(Misuse, match="other parameters"):
        bench.launch([bench.a])
    with pytest.raises(Misuse, match="384 bytes at .* are not in device memory"):
        bench.launch([bench.a], grid=3, scratch=scratch)
    with pytest.raises(Misuse, match="scratch memory of double is not aligned"):
        bench.launch([bench.a], scratch=scratch + 16)
    assert not bench.launch([bench.a], grid=2, scratch=scratch)
    ready = bench.call("cuGraphInstantiate", bench.call("cuStreamEndCapture", bench.one), 0)
    bench.call("cuGraphLaunch", ready, bench.one)
    with pytest.raises(Misuse, match="is freed, but a graph may still use it"):
        bench.call("cuMemFree", scratch)


def test_other_calls_have_no_place_in_a_capture(bench):
    bench.call("cuStreamBeginCapture", bench.one, "thread")
    for name, *args in (("cuMemAlloc", 8), ("cuStreamSynchronize", bench.two)):
        assert bench.status(name, *args) == Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED


def test_a_graph_whose_code_is_gone(bench):
    graph = bench.captured(bench.a)
    bench.call("cuGraphLaunch", graph, bench.one)
    with pytest.raises(Misuse, match="a graph may still run its code"):
        bench.call("cuModuleUnload", bench.module)
    bench.call("cuStreamSynchronize", bench.one)
    bench.call("cuModuleUnload", bench.module)
    with pytest.raises(Misuse, match="its module is gone"):
        bench.call("cuGraphLaunch", graph, bench.one)


def test_handles_and_contexts(bench):
    bench.call("cuEventDestroy", bench.event)
    gone = bench.status("cuEventRecord", bench.event, bench.one)
    assert gone == bench.status("cuStreamSynchronize", bench.event)
    assert gone == Status.CUDA_ERROR_INVALID_HANDLE
    found: list[Status] = []
    thread = threading.Thread(target=lambda: found.append(bench.status("cuMemAlloc", 8)))
    thread.start()
    thread.join()
    assert found == [Status.CUDA_ERROR_INVALID_CONTEXT]
    assert FakeDriver().cuDeviceGet(0) == (Status.CUDA_ERROR_NOT_INITIALIZED,)


def test_time_between_events(bench):
    begin = bench.call("cuEventCreate", 0)
    assert bench.status("cuEventRecordWithFlags", begin, bench.one, 1)  # not outside of a capture
    assert bench.status("cuEventElapsedTime", begin, begin) == Status.CUDA_ERROR_INVALID_HANDLE
    bench.call("cuEventRecord", begin, bench.one)
    bench.call("cuGraphLaunch", bench.captured(bench.a, bench.b, event=True), bench.one)
    spent = ("cuEventElapsedTime", begin, bench.event)
    assert bench.status(*spent) == Status.CUDA_ERROR_NOT_READY
    bench.call("cuStreamSynchronize", bench.one)
    assert bench.call(*spent) == 5.0
    untimed = bench.call("cuEventCreate", 2)
    bench.call("cuEventRecord", untimed, bench.one)
    late = bench.status("cuEventElapsedTime", begin, untimed)
    assert late == Status.CUDA_ERROR_INVALID_HANDLE


def test_calls_are_those_of_the_bindings():
    driver = pytest.importorskip("cuda.bindings.driver")
    ours = {n[1:]: f for n, f in vars(FakeDriver).items() if n.startswith("_cu")}
    assert len(ours) > 25
    for name, function in ours.items():
        theirs = inspect.signature(getattr(driver, name)).parameters
        assert _count(function) in (len(theirs), None), name


def _count(function: Callable[..., Any]) -> int | None:
    """Returns how many arguments a method takes, None if it takes any number."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    free = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return None if free else len(parameters)
