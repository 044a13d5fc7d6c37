"""LeNet's whole training step compiles ahead of time, in few launches that do not spill."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("triton")

from compiler.backends.triton import Backend  # noqa: E402
from compiler.pipeline import compile_unit  # noqa: E402
from compiler.triton_source.checks import parameters, usage  # noqa: E402
from compiler.unit import Unit
from netdef.formats import read_solver  # noqa: E402
from netdef.solver import plan_solver  # noqa: E402
from schemas.precision import Precision  # noqa: E402
from tests.backends import hand_kernels as hand  # noqa: E402
from tests.backends import hand_programs as runs

SOLVER = Path(__file__).resolve().parents[2] / "nets/lenet/solver.yaml"
SHARED = {"sm_80": 166_912, "sm_90": 232_448}  # bytes a block may take


def program_for(target: str, precision: Precision | None = None, binary: bool = True):
    plan = plan_solver(read_solver(str(SOLVER)))
    step, _ = plan.steps()
    backend = Backend(target, precision, binary)
    unit = Unit(step.graph, plan.arena, backend, step.names, step.tables)
    return compile_unit(unit)


# Measured with Triton 3.6 and 3.9.
LAUNCHES = [("sm_80", 10), ("sm_90", 10), ("gfx942", 10)]


@pytest.mark.parametrize("target, launches", LAUNCHES)
def test_the_training_step_compiles(target, launches):
    program = program_for(target)
    assert len(program.launches) == launches
    assert_sound(program, target)


def test_the_training_step_compiles_in_bf16():
    """By the same kernels as in tf32: none is there to cast."""
    program = program_for("sm_90", "bf16")
    other = program_for("sm_90", "tf32", binary=False)
    names = ({k.name for one in p.launches for k in one.kernels} for p in (program, other))
    assert next(names) == next(names)
    assert_sound(program, "sm_90")
    ptx = {launch.name: program.text[f"{launch.code}.ptx"] for launch in program.launches}
    assert "wgmma.mma_async" in ptx["ip1"] and "mma.sync" not in ptx["ip1"]


def assert_sound(program, target):
    for launch in program.launches:
        assert program.code[launch.code]
        assert launch.meta["shared"] <= SHARED.get(target, 65_536)
        if target.startswith("sm_"):
            ptx = program.text[f"{launch.code}.ptx"]
            found = usage(program.code[launch.code], ptx)
            assert found.spills == 0, launch.name
            assert parameters(ptx) == len(launch.args) + 2, launch.name
        if target == "sm_90":
            assert not large_without_wgmma(program.text[f"{launch.code}.ttgir"]), launch.name


def large_without_wgmma(ttgir: str) -> list[str]:
    """Returns products of tiles that wgmma would take, but that are made by `mma.sync`."""
    tiles = re.findall(r"= tt\.dot .*-> tensor<(\d+)x(\d+)x", ttgir)
    return [f"{m} x {n}" for m, n in tiles if int(m) >= 64 and int(n) >= 64]


def test_large_products_are_looked_for_rightly():
    kernel = hand.inner_product(64, 64, 64)
    for target, found in (("sm_80", True), ("sm_90", False)):
        (launch,) = (program := runs.program(Backend(target, "tf32"), (kernel,))).launches
        text = program.text[f"{launch.code}.ttgir"]
        assert "dot" in text and bool(re.findall(r"= tt\.dot ", text)) == found
    assert large_without_wgmma("%a = tt.dot %b, %c : x -> tensor<64x128xf32, #mma>") == ["64 x 128"]
    assert not large_without_wgmma("%a = tt.dot %b, %c : x -> tensor<64x32xf32, #mma>")
