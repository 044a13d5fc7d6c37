"""Convolutions of one blob as one contraction: the same numbers, fewer reads, refused where not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.assemble import assemble
from compiler.frontend.build import build
from compiler.ir.evaluate import evaluate
from compiler.kernels.guards import reach
from compiler.lowering.traits import Traits
from compiler.passes.arena import plan_arena
from compiler.passes.siblings import join_siblings
from compiler.passes.update import Step, train_step
from compiler.pipeline import PASSES
from compiler.prims.registry import Env
from compiler.unit import Unit
from netdef.formats import read_net
from schemas.solver import SolverSpec
from tests.harness import NullBackend, assert_close, compiled_unit, leaf_values, run_both

GPU_LIKE = Traits(
    siblings=True,
    concats=True,
    parallel=64,
    last_adds=True,
    wide_epilogues=True,
    prologue=8,
    rows=(128, 64),
)
SGD = SolverSpec(momentum=0.9, weight_decay=1e-2, clip_gradients=3.0)
JOINED = "one, reduce3, reduce5: one contraction"


def inception(
    shape=(2, 16, 7, 6), widths=(5, 3, 2), windows="kernel_size: 1", slope=0.0, change=()
) -> str:
    """A net with a block of three ways that begin with siblings; `change` are replaced texts."""
    batch, channels, height, width = shape
    one, reduce3, reduce5 = widths
    text = f"""
layers:
- {{name: data, type: Input, top: data, shape: [{batch}, 3, {height}, {width}]}}
- {{name: label, type: Input, top: label, shape: [{batch}]}}
- {{name: stem, type: Convolution, bottom: data, num_output: {channels}, kernel_size: 1}}
- {{name: one, type: Convolution, bottom: stem, num_output: {one}, {windows},
   param: [{{lr_mult: 1}}, {{lr_mult: 2, decay_mult: 0}}]}}
- {{name: relu1, type: ReLU, bottom: one, top: one, negative_slope: {slope}}}
- {{name: reduce3, type: Convolution, bottom: stem, num_output: {reduce3}, {windows}}}
- {{name: relu2, type: ReLU, bottom: reduce3, top: reduce3, negative_slope: {slope}}}
- {{name: three, type: Convolution, bottom: reduce3, num_output: 4, kernel_size: 3, pad: 1}}
- {{name: reduce5, type: Convolution, bottom: stem, num_output: {reduce5}, {windows},
   param: [{{lr_mult: 0.5}}]}}
- {{name: relu4, type: ReLU, bottom: reduce5, top: reduce5, negative_slope: {slope}}}
- {{name: five, type: Convolution, bottom: reduce5, num_output: 3, kernel_size: 5, pad: 2}}
- {{name: output, type: Concat, bottom: [one, three, five], top: output}}
- {{name: ip, type: InnerProduct, bottom: output, num_output: 5}}
- {{name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}}
"""
    for old, new in change:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def training(text: str):
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    return train_step(graph, arena, SGD), arena


def simplified(text: str) -> Unit:
    """Returns a training step as it is before siblings are joined."""
    step, arena = training(text)
    unit = Unit(step.graph, arena, NullBackend(GPU_LIKE), step.names, step.tables)
    for name, run in PASSES:
        if name == "siblings":
            return unit
        run(unit)
    raise AssertionError("there is no such pass")


def products(graph) -> int:
    return sum(node.prim == "contract" for node in graph.nodes())


shapes = st.tuples(
    st.integers(1, 3), st.sampled_from([5, 16, 23]), st.integers(3, 9), st.integers(3, 9)
)
three_widths = st.tuples(*[st.sampled_from([1, 2, 3, 8])] * 3)
windows_of = st.sampled_from(
    [
        "kernel_size: 1",
        "kernel_size: 1, stride: 2",
        "kernel_size: 2, stride: 3, pad: 1",
        "kernel_size: 3, pad: 1",
        "kernel_size: 1, bias_term: false",
    ]
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes, three_widths, windows_of, st.sampled_from([0.0, 0.25]))
def test_joining_changes_no_number(shape, widths, windows, slope):
    text = inception(shape, widths, windows, slope)
    if "bias_term" in windows:
        text = text.replace(", {lr_mult: 2, decay_mult: 0}]", "]")
    unit = simplified(text)
    made = join_siblings(unit.graph)
    rng = np.random.default_rng(1)
    values = leaf_values(unit.graph, unit.arena, unit.tables, rng, ("label",))
    want, got = (evaluate(g.roots(), Env(values)) for g in (unit.graph, made.graph))
    for one, other in zip(want, got, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-10)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes, three_widths, windows_of, st.sampled_from([0.0, 0.25]))
def test_kernels_of_joined_convolutions_compute_the_graph(shape, widths, windows, slope):
    text = inception(shape, widths, windows, slope)
    if "bias_term" in windows:
        text = text.replace(", {lr_mult: 2, decay_mult: 0}]", "]")
    assert_close(run_both(*training(text), GPU_LIKE))


def test_gradients_that_are_summed_by_tiles_are_parts_of_one():
    run = run_both(*training(inception((8, 6, 24, 24), (3, 2, 2))), GPU_LIKE)
    assert run.unit.siblings == [JOINED] and any(k.rows for k in run.unit.schedule.kernels())
    assert_close(run)


def test_one_contraction_forward_and_two_backward_take_the_place_of_three_times_three():
    unit = simplified(inception())
    made = join_siblings(unit.graph)
    assert made.notes == [JOINED]
    assert products(made.graph) == products(unit.graph) - 6


def test_results_are_stored_where_they_belong_and_none_twice():
    unit = compiled_unit(*training(inception(shape=(8, 16, 32, 32))), GPU_LIKE)
    kernels = {kernel.name: kernel for kernel in unit.schedule.kernels()}
    forward = kernels["one+reduce3+reduce5"]
    assert forward.writes() == {"one+reduce3+reduce5", "output"}
    # The gradients of the weights lie in the arena at once; that of their results is whole.
    across = kernels["d(one+reduce3+reduce5/weight)"]
    assert {s.buffer for s in across.stores} == {"gradients"} and len(across.stores) == 3
    assert not [name for name in kernels if name.endswith(".copy")]
    backward = [k for k in kernels.values() if "d(one+reduce3+reduce5)" in k.writes()]
    assert len(backward) == 3  # one from the Concat, two in the epilogues of data gradients
    large = {b.name for b in unit.schedule.buffers.values() if b.size >= 8 * 32 * 32 * 2}
    for kernel in backward:
        assert kernel.writes() & large - {"gradients"} == {"d(one+reduce3+reduce5)"}


def test_a_part_reaches_no_further_than_its_own_elements():
    """Beside a gradient lie others, and gaps that stay zeros."""
    unit = compiled_unit(*training(inception()), GPU_LIKE)
    kernels = {kernel.name: kernel for kernel in unit.schedule.kernels()}
    stores = kernels["d(one+reduce3+reduce5/weight)"].stores
    slots = [unit.arena.slots[f"{name}/weight"] for name in ("one", "reduce3", "reduce5")]
    ends = {(slot.offset, slot.offset + slot.size - 1) for slot in slots}
    assert {reach(store) for store in stores} == ends


def test_traffic_counts_what_is_stored_and_the_part_that_is_read():
    unit = compiled_unit(*training(inception(shape=(4, 16, 8, 8))), GPU_LIKE)
    infos = {k.name: k for launch in assemble(unit).launches for k in launch.kernels}
    places, read = 4 * 8 * 8, 16 + 10
    weights = 4 * (16 * 10 + 10)
    assert infos["one+reduce3+reduce5"].bytes == 4 * places * (read + 5) + weights
    (three,) = (k for k in infos.values() if k.layers == ("three",) and k.way == "forward")
    assert three.bytes == 4 * places * (3 + 4) + 4 * (3 * 4 * 9 + 4)


def test_a_blob_that_is_kept_is_stored_as_well():
    step, arena = training(inception())
    step.graph.outputs["reduce3"] = step.graph.blobs["reduce3"]
    run = run_both(step, arena, GPU_LIKE)
    assert run.unit.siblings == [JOINED]
    assert_close(run)


ALONE = "not each of them is followed by a ReLU alone"
RELU = "- {name: relu4, type: ReLU, bottom: reduce5, top: reduce5, negative_slope: 0.0}"
FOLLOWED = {
    "another reader": RELU.replace("top: reduce5", "top: apart"),
    "another map": "- {name: relu4, type: TanH, bottom: reduce5, top: reduce5}",
    "statistics": "- {name: norm, type: BatchNorm, bottom: reduce5, top: reduce5}\n" + RELU,
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_refused_is_what_other_maps_or_readers_follow(case):
    unit = simplified(inception(change=((RELU, FOLLOWED[case]),)))
    made = join_siblings(unit.graph)
    assert made.notes == [f"one, reduce3, reduce5: {ALONE}"]
    assert made.graph is unit.graph


def test_refused_are_unlike_slopes_and_what_one_of_them_has_no_bias_for():
    slope = ("top: reduce5, negative_slope: 0.0", "top: reduce5, negative_slope: 0.5")
    bias = ("kernel_size: 1,\n   param: [{lr_mult: 0.5}]", "kernel_size: 1, bias_term: false")
    for change in (slope, bias):
        made = join_siblings(simplified(inception(change=(change,))).graph)
        assert made.notes == ["one, reduce3, reduce5: their biases or slopes of ReLU are not alike"]


def test_other_windows_are_no_siblings():
    wider = ("num_output: 5, kernel_size: 1", "num_output: 5, kernel_size: 3, pad: 1")
    text = inception(change=(wider,))
    made = join_siblings(simplified(text).graph)
    assert made.notes == ["reduce3, reduce5: one contraction"]
    assert_close(run_both(*training(text), GPU_LIKE))


def test_refused_are_weights_larger_than_what_reads_them():
    made = join_siblings(simplified(inception(shape=(1, 16, 2, 2))).graph)
    (note,) = made.notes
    assert note.endswith("to copy their weights takes more than to read the blob again")


def test_shared_and_frozen_weights_learn_as_before():
    elsewhere = "- {name: again, type: Convolution, bottom: data, num_output: 2, kernel_size: 1,"
    third = "- {name: output, type: Concat, bottom: [one, three, five]"
    shared = (
        ("param: [{lr_mult: 0.5}]", "param: [{name: w}]"),
        (third, elsewhere + " param: [{name: w}]}\n" + third.replace("five]", "five, again]")),
        ("shape: [2, 3,", "shape: [2, 16,"),
    )
    frozen = (("param: [{lr_mult: 0.5}]", "param: [{lr_mult: 0}, {lr_mult: 0}]"),)
    for change in (shared, frozen):
        run = run_both(*training(inception(change=change)), GPU_LIKE)
        assert JOINED in run.unit.siblings
        assert_close(run)


def test_a_test_net_joins_as_well():
    graph = build(read_net(text=inception(), format="yaml"), "TEST")
    run = run_both(Step(graph), plan_arena(graph), GPU_LIKE)
    assert run.unit.siblings == [JOINED]
    assert_close(run)
