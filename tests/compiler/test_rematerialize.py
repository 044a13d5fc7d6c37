"""Blobs that late readers make again: less memory, no more traffic, the same step."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from compiler.backends import get_backend
from compiler.kernels.index import Axis, index
from compiler.kernels.kernel import Guard, Kernel, Load, Op, Store
from compiler.kernels.schedule import Buffer, Schedule
from compiler.lowering.memory import plan_memory
from compiler.lowering.rematerialize import rematerialized
from compiler.lowering.traits import Traits
from compiler.pipeline import PASSES, compile_unit, plan_unit
from compiler.triton_source import checks
from compiler.unit import Unit
from netdef.engine import open_engine
from netdef.inspecting import LAST_PASS
from tests.compiler.test_prologue import compare
from tests.compiler.test_rowsums import short_rows, step_of, trained  # noqa: F401 (a fixture)
from tests.harness import assert_close, run_both

AGAIN = Traits(parallel=64, rows=(128, 64), last_adds=True, prologue=8)
# y is a sum of two normalised blobs, z of one and of y: only y is made of what is kept anyway.
WIDER = """
name: wider
layers:
- {{name: data, type: Input, top: data, shape: {shape}}}
- {{name: target, type: Input, top: target, shape: {target}}}
- {{name: a, type: Convolution, bottom: data, num_output: {width}, kernel_size: 1, stride: {s},
   bias_term: false}}
- {{name: a_bn, type: BatchNorm, top: a}}
- {{name: a_scale, type: Scale, bias_term: true, top: a}}
- {{name: b, type: Convolution, bottom: data, num_output: {width}, kernel_size: 3, pad: 1,
   stride: {s}, bias_term: false}}
- {{name: b_bn, type: BatchNorm, top: b}}
- {{name: b_scale, type: Scale, bias_term: true, top: b}}
- {{name: sum, type: Eltwise, bottom: [a, b]}}
- {{name: relu, type: ReLU, top: y}}
- {{name: c, type: Convolution, bottom: y, num_output: {narrow}, kernel_size: {k}, pad: {p},
   bias_term: false}}
- {{name: c_bn, type: BatchNorm, top: c}}
- {{name: c_relu, type: ReLU, bottom: c, top: c}}
- {{name: d, type: Convolution, bottom: c, num_output: {width}, kernel_size: 1, bias_term: false}}
- {{name: d_bn, type: BatchNorm, top: d}}
- {{name: d_sum, type: Eltwise, bottom: [d, y]}}
- {{name: d_relu, type: ReLU, top: z}}
- {{name: e, type: Convolution, bottom: z, num_output: 3, kernel_size: 1}}
- {{name: loss, type: EuclideanLoss, bottom: [e, target]}}
"""


def wider(shape, width, narrow=3, s=1, k=1) -> str:
    target = [shape[0], 3, *(n // s for n in shape[2:])]
    return WIDER.format(
        shape=list(shape), target=target, width=width, narrow=narrow, s=s, k=k, p=k // 2
    )


NETS = {
    "plain": wider((2, 3, 20, 16), 8),
    "spanning": wider((3, 2, 16, 24), 19),
    "small tiles": wider((11, 2, 8, 8), 7, narrow=2),
    "one picture": wider((1, 1, 32, 40), 5),
    "strided": wider((2, 2, 32, 40), 6, s=2),
}


# Of its only time step, b reads zeros.
LAST_STEP = """
name: last-step
layers:
- {name: x, type: Input, top: x, shape: [1, 2, 5]}
- {name: target, type: Input, top: target, shape: [1, 2, 3]}
- {name: a, type: InnerProduct, bottom: x, num_output: 3, axis: 2}
- {name: b, type: InnerProduct, bottom: "h[t+1]", num_output: 3, axis: 2, bias_term: false}
- {name: sum, type: Eltwise, bottom: [a, b]}
- {name: h, type: TanH}
- {name: loss, type: EuclideanLoss, bottom: [h, target]}
"""


def readers(schedule, name: str) -> set[str]:
    return {kernel.name for kernel in schedule.kernels() if name in kernel.reads()}


@pytest.mark.parametrize("name", NETS)
def test_what_is_made_of_what_is_kept_is_made_again(name):
    run = run_both(*step_of(NETS[name]), AGAIN)
    assert_close(run, rtol=3e-4)
    schedule = run.unit.schedule
    assert readers(schedule, "y") == {"c.contract", "z"}  # forward; not the gradient of c's weight
    assert {"d(d_sum)", "d(e/weight)"} < readers(schedule, "z")  # z would take more traffic


@pytest.mark.parametrize("name", NETS)
def test_it_takes_less_memory_and_no_more_traffic_or_launches(name, monkeypatch):
    with_it, program = planned(NETS[name])
    monkeypatch.setattr("compiler.pipeline.rematerialized", lambda schedule, *how: schedule)
    without, kept = planned(NETS[name])
    assert "d(sum)" in readers(without.schedule, "y")
    assert program.peak_bytes < kept.peak_bytes
    assert blob_traffic(with_it) <= blob_traffic(without)
    assert len(program.launches) == len(kept.launches)


def planned(text: str):
    step, arena = step_of(text)
    backend = get_backend("triton", "interpreter")
    unit = Unit(step.graph, arena, backend, step.names, step.tables)
    return unit, compile_unit(unit)


def blob_traffic(unit) -> int:
    """Returns the numbers that kernels read of blobs; a vector has less than 100 here."""
    buffers = unit.schedule.buffers.values()
    sizes = {b.name: b.size for b in buffers if b.role != "param" and b.size > 100}
    return sum(sizes.get(b, 0) for kernel in unit.schedule.kernels() for b in kernel.reads())


def test_what_is_asked_for_or_read_in_windows_is_kept():
    step, arena = step_of(NETS["plain"])
    outputs = {**step.graph.outputs, "y": step.graph.blobs["y"]}
    asked = replace(step, graph=replace(step.graph, outputs=outputs))
    for run in (
        run_both(asked, arena, AGAIN),
        run_both(*step_of(wider((2, 3, 20, 16), 8, k=3)), AGAIN),
    ):
        assert_close(run, rtol=3e-4)
        assert "d(c/weight)" in readers(run.unit.schedule, "y")


def test_products_with_constants_read_them():
    """Else there would be nothing that makes them products."""
    assert_close(run_both(*step_of(LAST_STEP), AGAIN))


@pytest.mark.parametrize("results", [3, 4])
def test_what_is_read_in_windows_is_made_again_for_many_results(results, monkeypatch):
    monkeypatch.setattr("compiler.lowering.rematerialize.WIDE", results)
    net = wider((2, 3, 20, 16), 8, k=3)
    run = run_both(*step_of(net), AGAIN)
    assert_close(run, rtol=3e-4)
    assert ("d(c/weight)" in readers(run.unit.schedule, "y")) == (results > 3)
    if find_spec("triton") is not None:
        compare(net, "fp32", 2e-4)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("name", NETS)
def test_triton_follows_the_reference(name):
    compare(NETS[name], "fp32", 2e-4)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_not_a_bit_is_another(precision, monkeypatch):
    """What lies as bf16 is rounded when it is stored, and so is what a product takes of it."""
    found = []
    for _ in range(2):
        engine = open_engine("triton", "interpreter", precision=precision)
        found.append(trained(engine, NETS["strided"], steps=2))
        monkeypatch.setattr("compiler.pipeline.rematerialized", lambda schedule, *how: schedule)
    for key, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][key], err_msg=key)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_launches_stay_whole(precision):
    """Neither the gradient of the weight nor what reaches both blobs spills, in one binary."""
    step, arena = step_of(wider((8, 16, 56, 56), 256, narrow=64))
    backend = get_backend("triton", "sm_90", precision)
    unit = Unit(step.graph, arena, backend, step.names, step.tables)
    plan_unit(unit)
    both = {"d(c/weight)", "d(sum)"}
    (launch,) = (one for one in unit.schedule.launches if both <= {k.name for k in one})
    slots = tuple(slot.name for slot in unit.memory.slots)
    made = backend.compile(
        "x", replace(unit.schedule, launches=(launch,)), unit.memory.places, slots
    )
    (only,) = made.launches
    assert checks.resources(made.code[only.code])[1] == 0


# y = a + b is read at once and again in the launch after the one with most memory.
POINT = index(Axis("i", 4096))


def read(name: str, **how) -> Load:
    return Load(name, POINT, "f32", **how)


def add(*names: str, **how) -> Kernel:
    """Returns a kernel whose result, of the first name, is the sum of all others."""
    result, value, *rest = names[0], read(names[1], **how), *names[2:]
    for name in rest:
        value = Op("add", (value, read(name)), "f32")
    return Kernel(result, (Axis("i", 4096),), (Store(result, POINT, value, "f32"),))


def scheduled(*last: Kernel, middle=(), states=()) -> Schedule:
    rows = [[add("y", "a", "b")], [add("u", "y", "y")]]
    rows += [[*(add(x, "u", "u") for x in "pqrs"), *middle], last]
    names = {b for row in rows for k in row for b in k.reads() | k.writes()}
    roles = dict.fromkeys("ab", "input") | dict.fromkeys(states, "state")
    roles |= {kernel.name: "output" for kernel in last}
    buffers = {n: Buffer(n, "f32", 4096, roles.get(n, "inner")) for n in names}
    return Schedule(tuple(map(tuple, rows)), buffers)


OWN = add("out", "y", "a", "b", *"pqrs")
CASES = {
    "kept anyway": (True, scheduled(OWN)),
    "one of them is": (True, scheduled(OWN, add("more", "y", "a"))),
    "not for as long": (False, scheduled(add("out", "y", "a", *"pqrs"))),
    "more traffic": (False, scheduled(OWN, add("more", "y", "p"), add("yet", "y", "q"))),
    "no longer what it was": (False, scheduled(OWN, middle=[add("a", "u")], states="a")),
    "behind guards": (
        False,
        scheduled(add("out", "y", "a", "b", *"pqrs", guards=(Guard(POINT, 0, 9),))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_pays_where_nothing_is_kept_or_read_for_it(name):
    wanted, before = CASES[name]
    after = rematerialized(before, 8)
    assert readers(after, "y") == ({"u"} if wanted else readers(before, "y"))
    less = plan_memory(before).arena_bytes - plan_memory(after).arena_bytes
    assert less > 0 if wanted else less == 0
    assert rematerialized(before, 0) is before  # contractions take no maps there


def test_kernels_are_shown_as_they_run():
    """No pass changes them behind the one that `inspect --stage fused` stops at."""
    names = [name for name, _ in PASSES]
    assert names[names.index(LAST_PASS["fused"]) + 1] == "memory"
