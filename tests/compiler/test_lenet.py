"""The LeNet training step as a whole: its launches, its memory, its text."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.backends import get_backend
from compiler.kernels.kernel_text import render
from compiler.pipeline import compile_unit
from compiler.unit import Unit
from netdef.formats import read_solver
from netdef.solver import plan_solver
from tests.harness import CPU_LIKE, NullBackend

SOLVER = Path(__file__).resolve().parents[2] / "nets/lenet/solver.yaml"


@pytest.fixture(scope="module")
def unit() -> Unit:
    plan = plan_solver(read_solver(str(SOLVER)))
    step, _ = plan.steps()
    unit = Unit(step.graph, plan.arena, NullBackend(CPU_LIKE), step.names, step.tables)
    compile_unit(unit)
    return unit


def test_the_step_has_few_launches(unit):
    assert [sorted(k.name for k in launch) for launch in unit.schedule.launches] == [
        ["conv1"],
        ["pool1"],
        ["conv2"],
        ["pool2"],
        ["ip1"],
        ["ip2"],
        ["d(ip2)", "ip2.turn"],
        ["d(ip2/bias)", "d(ip2/weight)", "d(relu1).select", "loss"],
        ["d(ip1/bias)", "d(ip1/weight)", "d(pool2)"],
        ["conv2.turn", "d(conv2)"],
        ["d(conv2/bias).parts", "d(conv2/weight)", "d(pool1)"],
        ["d(conv1)", "d(conv2/bias)"],
        ["d(conv1/bias).parts", "d(conv1/weight).parts"],
        ["d(conv1/bias)", "d(conv1/weight)"],
        ["update"],
    ]


def test_convolution_bias_and_activation_are_one_kernel(unit):
    kernels = {k.name: k for k in unit.schedule.kernels()}
    assert kernels["conv1"].kind == kernels["ip1"].kind == "contract"
    assert "relu(" in render(kernels["ip1"])
    assert kernels["ip1"].layers == ("ip1", "relu1")


def test_the_memory_is_planned(unit):
    # Peak: conv1's output, its gradient, and what the backward pass still needs of the rest, the
    # gradients of all weights but conv1's among it.
    assert unit.memory.arena_bytes == 5_800_704
    assert sum(slot.nbytes for slot in unit.memory.slots) == 9_358_336


def test_every_kernel_knows_its_spec_line(unit):
    for kernel in unit.schedule.kernels():
        if kernel.name != "update":
            assert kernel.layers, kernel.name
            assert all(layer in unit.graph.places for layer in kernel.layers)


def test_fused_kernels_as_text(unit, golden):
    text = ""
    for i, launch in enumerate(unit.schedule.launches):
        text += f"launch {i}\n" + "".join(render(k) for k in launch)
    golden("lenet_fused.txt", text)


@pytest.mark.parametrize("name", ["conv1", "pool1", "d(ip2)", "d(conv1)", "update"])
def test_rendered_triton(unit, golden, name):
    pytest.importorskip("triton")
    kernel = next(k for k in unit.schedule.kernels() if k.name == name)
    golden(
        f"lenet_{name.strip(')').replace('(', '_')}.py.txt", get_backend("triton").render(kernel)
    )


@pytest.mark.parametrize("name", ["pool1", "update"])
def test_rendered_llvm(unit, golden, name):
    kernel = next(k for k in unit.schedule.kernels() if k.name == name)
    text = get_backend("cpu", "x86-64-v3").render(kernel)
    golden(f"lenet_{name}.ll", text)
