"""cuda-bindings takes what the runtime passes: types, order, enums, structs; without a driver."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import runtime
from compiler.backends.triton import Backend
from runtime import cuda_driver
from runtime.cuda import CudaDevice
from schemas.program import INPUTS, Slot, Tensor
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.hand_loops import fill, hand_loop
from tests.gpu.fake_driver import CONTEXT, FakeDriver
from tests.gpu.handles import Event, Function, Graph, GraphExec, Module, Stream

pytest.importorskip("triton")
driver = pytest.importorskip("cuda.bindings.driver")

HANDLES = {
    Event: "CUevent", Function: "CUfunction", Graph: "CUgraph", GraphExec: "CUgraphExec",
    Module: "CUmodule", Stream: "CUstream",
}  # fmt: skip
ENUMS = {
    value: getattr(getattr(driver, name), word)
    for name, enum in vars(FakeDriver).items()
    if isinstance(enum, SimpleNamespace)
    for word, value in vars(enum).items()
}


def real(given: Any) -> Any:
    """Returns what stands in the bindings for an argument of the driver made of Python."""
    if isinstance(given, str) and given != CONTEXT:
        return ENUMS[given]
    if given == CONTEXT:
        return driver.CUcontext(1)
    if type(given) in HANDLES:
        return getattr(driver, HANDLES[type(given)])(1)
    if isinstance(given, list):
        return [real(one) for one in given]
    if isinstance(given, SimpleNamespace):
        made = driver.CUlaunchAttribute() if hasattr(given, "id") else driver.CUlaunchConfig()
        for name, value in vars(given).items():
            if name == "value":
                for field, content in vars(value).items():
                    setattr(made.value, field, content)
                    assert getattr(made.value, field) == content
            else:
                setattr(made, name, real(value))
        return made
    return given


class Both:
    """The driver made of Python, that has the bindings convert the arguments of each call first.

    They do that before they look for the driver, which is not there.
    """

    def __init__(self) -> None:
        self.fake = FakeDriver()
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.fake, name)
        if not name.startswith("cu"):
            return found

        def call(*args: Any) -> Any:
            self.called.add(name)
            with pytest.raises(RuntimeError, match="driver library"):
                getattr(driver, name)(*(real(one) for one in args))
            return found(*args)

        return call


def test_the_bindings_take_all_calls() -> None:
    try:
        driver.cuInit(0)
        pytest.skip("there is a driver: tests/gpu/test_cuda_device.py uses it")
    except RuntimeError:
        api = Both()
    product = hand.narrowed(hand.inner_product(1024, 1024, 1024))
    loop = hand_loop(False, 3000)
    backend = Backend("sm_90", "bf16")
    program = runs.program(backend, (product,), (fill(3000),), loop)
    assert {bool(launch.meta.get("cooperative")) for launch in program.launches} == {False, True}
    assert max(launch.meta["shared"] for launch in program.launches) > 48 * 1024
    given = {n: Tensor(n, "input", "f32", (), INPUTS, at, (), ()) for n, at in (("x", 0), ("y", 4))}
    slots = (*program.slots, Slot(INPUTS, 8, False))
    program = replace(program, tensors=program.tensors | given, slots=slots)
    executable = CudaDevice(0, api, pdl=True).load(program)
    for name in given:  # x is moved when y is written
        executable.write(name, 0.5)
        executable.run(log=("bias",))
    executable.time()
    executable.drain()
    executable.close()
    text = "".join(path.read_text() for path in Path(runtime.__file__).parent.glob("cuda*.py"))
    assert set(re.findall(r'"(cu[A-Z]\w+)"', text)) == api.called
    assert not api.fake.unreleased()


def test_numbers_are_those_of_the_bindings() -> None:
    events, records = driver.CUevent_flags, driver.CUevent_record_flags
    assert cuda_driver._TIMING == events.CU_EVENT_DEFAULT
    assert cuda_driver._NO_TIMING == events.CU_EVENT_DISABLE_TIMING
    assert cuda_driver._EXTERNAL == records.CU_EVENT_RECORD_EXTERNAL
    assert cuda_driver._NON_BLOCKING == driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    words = {status.name for status in driver.CUresult}
    assert words >= {*cuda_driver._PLAIN, *cuda_driver._HINTS}
