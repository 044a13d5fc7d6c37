"""What is counted of a step for a GPU, without one."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench import roofline, static
from bench.__main__ import main
from bench.cases import GPU_CASES, Case
from compiler.backends import get_backend
from compiler.backends.triton import Backend
from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from compiler.pipeline import compile_unit, plan_unit
from compiler.unit import Unit
from netdef.formats import read_net
from schemas.program import KernelInfo, Launch, Repeat
from schemas.solver import SolverSpec

NET = """\
name: tiny
layers:
- {name: data, type: DummyData, top: [data, label], shape: [[64, 8], [64]]}
- {name: ip1, type: InnerProduct, bottom: data, num_output: 100}
- {name: relu1, type: ReLU, bottom: ip1, top: ip1}
- {name: ip2, type: InnerProduct, num_output: 64}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip2, label]}
"""


def test_the_ideal_traffic() -> None:
    data, label, hidden, scores = 64 * 8, 64, 64 * 100, 64 * 64
    weights = 8 * 100 + 100 + 100 * 64 + 64
    forward = data + hidden + hidden + scores + scores + label + 1
    learned = hidden + scores  # their gradients; nobody asks for that of the data
    graph = build(read_net(text=NET, format="yaml"), "TRAIN")
    assert roofline.ideal(graph, "tf32") == 4 * (8 * weights + 2 * forward + learned)
    # Three accesses of a narrower copy in place of two, and the rest of the weights' as it is.
    assert roofline.ideal(graph, "bf16") == (24 + 6) * weights + 2 * (2 * forward + learned)


def test_what_a_program_says() -> None:
    pytest.importorskip("triton")
    graph = build(read_net(text=NET, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    step = train_step(graph, arena, SolverSpec(base_lr=0.1, momentum=0.9))
    backend = get_backend("triton", "sm_90", "tf32")
    unit = Unit(step.graph, arena, backend, step.names, step.tables)
    program = compile_unit(unit)
    found = static.Findings("tiny", 64, "")
    static.count(found, graph, program, roofline.loops_of(unit.schedule))
    assert found.precision == "tf32" and found.contractions == 5
    assert found.launches == len(program.launches) <= found.kernels
    assert found.kernels == sum(len(one.kernels) for one in program.launches)
    assert len(found.plain) == found.contractions - found.on_tensor_cores
    assert found.spilling == found.too_large == {} and 0 < found.registers <= 255
    assert found.step >= found.launches * roofline.LAUNCH and found.step > found.floor > 0
    assert found.peak == program.peak_bytes and found.traffic > 0
    assert "tiny" in static.row(found)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_plan_needs_no_compiling(precision, tmp_path, monkeypatch) -> None:
    def refuses(*args):
        raise AssertionError("compiled")

    monkeypatch.setattr("compiler.triton_source.attempts.compile_if_it_fits", refuses)
    path = tmp_path / "static.json"
    path.write_text('{"nets": {"lenet tf32": {}}}')
    words = ["predict", "lenet", "--precision", precision, "--json", str(path)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    kept = json.loads(path.read_text())
    found = kept["predicted"][f"lenet {precision}"]
    assert found["launches"] == 10 and found["traffic"] > 0 and found["contractions"] == 0
    assert found["step"] > found["floor"] > 0 and f"{64 / found['step']:,.0f}" in done.output
    assert "lenet tf32" in kept["nets"]


def test_a_net_is_compiled_as_planned_forward_too(tmp_path, monkeypatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    path = tmp_path / "static.json"
    done = CliRunner().invoke(main, ["static", "mlp", "--cached", "--json", str(path)])
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())["nets"]["mlp tf32"]
    assert found["error"] == "" and found["launches"] == found["planned"] == 8
    assert 0 < found["forward"] < found["launches"]
    assert found["contractions"] == 8 + 3 and found["on_tensor_cores"] == 7 + 2  # ip3 has 10 rows
    assert found["spilling"] == found["too_large"] == {} and found["cold"] == found["warm"] == 0
    assert [*(tmp_path / "triton").iterdir()]


def test_a_deep_net_takes_little_more_memory_than_is_alive_at_its_worst_launch() -> None:
    _, unit = static._unit(static.STATIC_CASES["vgg16"], Backend("sm_90", "tf32", binary=False))
    plan_unit(unit)
    every = [block for blocks in unit.memory.blocks.values() for block in blocks]
    alive = (
        sum(b.end - b.start for b in every if b.first <= i <= b.last)
        for i in range(len(unit.schedule.launches))
    )
    assert unit.memory.arena_bytes <= 1.07 * max(alive)


def test_the_time_of_a_launch() -> None:
    peak = roofline.Peak(1e9, {"fp32": 1e9, "tf32": 1e10}, 20_000)
    moving = KernelInfo("map", "map", (), (), 0, 3_000_000)
    summing = KernelInfo("conv", "contract", (), (), 50_000_000, 1_000_000)
    assert roofline.seconds_of(Launch("a", (moving,)), peak, "tf32") == pytest.approx(3e-3 + 2e-6)
    assert roofline.seconds_of(Launch("b", (summing,)), peak, "tf32") == pytest.approx(5e-3 + 2e-6)
    looped = Launch("c", (summing,), repeat=Repeat("loop", 50, False))
    assert roofline.seconds_of(looped, peak, "fp32") == pytest.approx(50e-3 + 100e-6)


def test_the_time_of_a_loop_in_one_launch() -> None:
    """What it reads again comes from the cache, if it fits there; its programs wait to meet."""
    peak = roofline.Peak(1e9, {"fp32": 1e15}, 20_000)
    moving = (KernelInfo("map", "map", (), (), 0, 3_000_000),)
    fits, large = roofline.Steps(101, 2, 20_000), roofline.Steps(101, 2, 20_001)
    assert fits.cached(peak) == 2_000_000 and large.cached(peak) == 0
    for steps, seconds in ((fits, 2e-3), (large, 3e-3)):
        one, many = (Launch("a", moving, meta={"cooperative": m}) for m in (False, True))
        assert roofline.seconds_of(one, peak, "fp32", steps) == pytest.approx(seconds + 2e-6)
        met = seconds + 2e-6 + 202 * roofline.MEETING
        assert roofline.seconds_of(many, peak, "fp32", steps) == pytest.approx(met)


def test_recurrent_weights_are_read_once_a_loop() -> None:
    case = Case("char_rnn", 40, classes=7, steps=6, embed=8, hidden=96, depth=1)
    graph, unit = static._unit(case, Backend("sm_90", "tf32", binary=False))
    program = compile_unit(unit)
    loops = roofline.loops_of(unit.schedule)
    weight, bias, gates = 4 * 4 * 96 * 96, 4 * 4 * 96, 4 * 40 * 4 * 96
    forward, backward = loops.values()
    assert forward == roofline.Steps(6, 2, weight + bias + gates)
    assert backward == roofline.Steps(6, 2, weight)
    assert len(loops) == sum(one.meta.get("cooperative", False) for one in program.launches) == 2
    found = static.Findings("tiny", 40, "")
    static.count(found, graph, program, loops)
    moved = sum(k.bytes for one in program.launches for k in one.kernels)
    assert moved - found.traffic == 5 * (2 * weight + bias + gates)


def test_a_net_that_does_not_compile_is_a_finding_and_others_stay(tmp_path, monkeypatch) -> None:
    def refuses(case, target, precision):
        raise ValueError("no such instruction")

    monkeypatch.setattr(static, "_compiled", refuses)
    path = tmp_path / "static.json"
    for net in ("lenet", "resnet50"):
        words = ["static", net, "--precision", "tf32", "--json", str(path)]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0 and "ValueError: no such instruction" in done.output
    nets = json.loads(path.read_text())["nets"]
    assert list(nets) == ["lenet tf32", "resnet50 tf32"]
    assert nets["resnet50 tf32"]["batch"] == GPU_CASES["resnet50"].batch == 128
