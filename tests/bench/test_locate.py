"""What `bench locate` says of a kernel that fails, and of one that hangs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.cases import GPU_CASES
from bench.locate import locate
from compiler.backends import get_backend
from netdef.engine import Engine
from runtime.cuda import CudaDevice
from schemas.errors import BackendError
from tests.gpu.fake_driver import FakeDriver
from tests.gpu.handles import Fault, Module

pytest.importorskip("triton")

CASE = replace(GPU_CASES["mlp"], batch=2)


class Spoilt(FakeDriver):
    """A driver for machine code that does nothing, but in the third binary."""

    def __init__(self, run: Callable[[list[int]], Any]) -> None:
        super().__init__()
        self._run = run

    def _cuModuleGetFunction(self, module: Module, name: bytes) -> Any:
        made = super()._cuModuleGetFunction(module, name)
        if len(self.named("cuModuleGetFunction")) == 3:
            made.kernel = replace(made.kernel, run=self._run)
        return made


def engine(driver: FakeDriver) -> Engine:
    return Engine(get_backend("triton", "sm_90", "tf32"), CudaDevice(0, driver))


def test_a_kernel_that_fails_is_named() -> None:
    """It is the last one: no call gets through to the driver after it."""

    def fail(pointers: list[int]) -> None:
        raise Fault

    said: list[str] = []
    driver = Spoilt(fail)
    with pytest.raises(
        BackendError, match="launch '.*' of .*: a kernel read or wrote outside"
    ) as at:
        locate(CASE, engine(driver), said.append)
    last = [line for line in said if line[0].isdigit()][-1]
    name = last.split()[1].rstrip(":")
    assert last.startswith("3 ") and f"launch '{name}'" in str(at.value)
    assert "it has grid [" in str(at.value)
    assert driver.cuMemAlloc(16) == (driver.broken,)


def test_a_kernel_that_hangs_ends_the_process(monkeypatch) -> None:
    said: list[str] = []
    over = Event()
    monkeypatch.setattr(os, "_exit", lambda status: over.set())
    locate(CASE, engine(Spoilt(lambda pointers: over.wait(60.0))), said.append, patience=3.0)
    (line,) = (line for line in said if line.startswith("HANGS: "))
    before = said[said.index(line) - 1]
    assert over.is_set() and before.startswith("3 ")
    assert line == f"HANGS: launch {before.split()[1].rstrip(':')} has not ended after 3 s"


def test_the_commands_run_without_a_gpu() -> None:
    called = CliRunner().invoke(main, ["locate", "mlp", "--emulate", "sm_80", "--batch", "2"])
    assert called.exit_code == 0, called.output
    assert called.output.startswith("1 ip1: ") and called.output.endswith("what it should\n")
    called = CliRunner().invoke(main, ["issue", "mlp", "--precision", "bf16"])
    assert called.exit_code == 0 and "d_ip1_weight" in called.output, called.output
    assert "by what takes longest" in called.output
