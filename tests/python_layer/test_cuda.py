"""Programs with calls on the CUDA device, whose driver is made of Python here."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.cuda import CudaDevice
from schemas.errors import BackendError
from schemas.program import HostCall, Launch, Program, Slot, Tensor
from tests.gpu.fake_driver import FakeDriver, floats
from tests.gpu.handles import Kernel

META = {"grid": [1, 1, 1], "threads": 32, "shared": 0, "global_scratch": 0, "profile_scratch": 0}


def kernel(name: str, *places: tuple[str, int]) -> Launch:
    return Launch(name, (), name, places, {**META, "name": name})


def program(*launches: Launch) -> Program:
    """x (3 numbers at 0) is an input, y (3 at 512) an output; 256 and 384 lie between."""
    tensors = {
        name: Tensor(name, role, "f32", (3,), "arena", at, (3,), (1,))
        for name, role, at in (("x", "input", 0), ("y", "output", 512))
    }
    code = {one.code: one.code.encode() for one in launches if one.call is None}
    slots = (Slot("arena", 1024, False),)
    return Program("net", "sm_90", launches, slots, tensors, code=code)


class Doubler:
    tops, blobs = ((3,),), ()

    def __init__(self):
        self.seen: list[list[float]] = []

    def forward(self, values):
        self.seen.append(values.tolist())
        if values.size and values[0] < 0:
            raise ZeroDivisionError("negative")
        return 2 * values if values.size else np.array([7, 8, 9], np.float32)

    def backward(self, gradient, wanted):
        self.seen.append([gradient.tolist(), list(wanted)])
        return 4 * gradient

    def again(self):
        return self


@pytest.fixture
def api() -> FakeDriver:
    fake = FakeDriver()

    def add_one(pointers) -> None:
        source, target = (floats(p, 3) for p in pointers)
        target[:] = source + 1

    fake.kernels["plus"] = Kernel(add_one, 2, threads=32)
    return fake


def place(at: int) -> tuple[str, int]:
    return "arena", at


CALL = Launch("call", (), args=(place(384), place(256)), call=HostCall("d", "forward", 3, 3))
BACK = Launch(
    "back", (), args=(place(384), place(256)), call=HostCall("d", "backward", 3, 3, (True, False))
)
SOURCE = Launch("source", (), args=(place(384),), call=HostCall("d", "forward", 0, 3))


def test_a_step_is_split_around_its_calls(api):
    steps = kernel("plus", place(0), place(256)), CALL, kernel("plus", place(384), place(512))
    layer = Doubler()
    executable = CudaDevice(0, api).load(program(*steps), hosts={"d": layer})
    for start in (1, 5):
        executable.write("x", np.full(3, start))
        executable.run()
        assert executable.read("y").tolist() == [2 * (start + 1) + 1] * 3
    assert layer.seen == [[2, 2, 2], [6, 6, 6]]
    assert len(api.named("cuGraphInstantiate")) == 2  # captured once, replayed twice
    assert len(api.named("cuGraphLaunch")) == 4
    executable.close()
    assert not api.unreleased()


def test_time_of_a_call_is_that_between_its_graphs(api):
    steps = kernel("plus", place(0), place(256)), CALL, SOURCE
    executable = CudaDevice(0, api).load(program(*steps), hosts={"d": Doubler()})
    executable.write("x", np.ones(3))
    seconds, parts = executable.time()
    assert seconds == pytest.approx(1e-3)  # the fake's clock knows launches alone
    assert parts.shape == (1, 4)  # no kernel has a name here
    executable.close()
    assert not api.unreleased()


def test_calls_at_the_ends_and_beside_each_other(api):
    again = Launch("again", (), args=(place(512), place(384)), call=HostCall("d", "forward", 3, 3))
    layer = Doubler()
    executable = CudaDevice(0, api).load(program(SOURCE, again), hosts={"d": layer})
    executable.run()
    assert executable.read("y").tolist() == [14, 16, 18]
    assert layer.seen == [[], [7, 8, 9]] and not api.named("cuGraphLaunch")
    executable.close()


def test_backward_calls_say_what_is_wanted(api):
    layer = Doubler()
    steps = kernel("plus", place(0), place(256)), BACK, kernel("plus", place(384), place(512))
    executable = CudaDevice(0, api).load(program(*steps), hosts={"d": layer})
    executable.run()
    assert layer.seen == [[[1, 1, 1], [True, False]]]
    assert executable.read("y").tolist() == [5, 5, 5]
    executable.close()


def test_an_exception_leaves_the_device_usable(api):
    steps = kernel("plus", place(0), place(256)), CALL, kernel("plus", place(384), place(512))
    executable = CudaDevice(0, api).load(program(*steps), hosts={"d": Doubler()})
    executable.write("x", np.full(3, -5))
    with pytest.raises(ZeroDivisionError):
        executable.run()
    executable.write("x", np.full(3, 2))
    executable.run()
    assert executable.read("y").tolist() == [7, 7, 7]
    executable.close()


def test_a_program_without_its_layers(api):
    with pytest.raises(BackendError, match="program 'net' needs its Python layers: 'd'"):
        CudaDevice(0, api).load(program(SOURCE))
    assert not api.unreleased()
