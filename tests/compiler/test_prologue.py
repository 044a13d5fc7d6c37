"""Maps that contractions and windows make on their way, rather than having them stored."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from compiler.ir.inlining import on_the_way, readings
from compiler.kernels.kernel import Factor, Op, walk
from compiler.lowering.traits import Traits
from compiler.prims import leaves, moves
from compiler.prims.contract import Slide, contract
from compiler.prims.maps import add, exp, mul, relu
from netdef.engine import Engine, open_engine
from tests.compiler.test_rowsums import step_of, trained
from tests.harness import assert_close, run_both

PROLOGUES = Traits(parallel=64, prologue=8)
NET = """
name: unit
layers:
- {{name: data, type: Input, top: data, shape: {shape}}}
- {{name: target, type: Input, top: target, shape: {target}}}
- {{name: conv0, type: Convolution, bottom: data, num_output: {width}, kernel_size: 1}}
- {{name: bn0, type: BatchNorm}}
- {{name: scale0, type: Scale, bias_term: true, top: x}}
- {{name: relu0, type: ReLU, bottom: x, top: x}}
- {{name: conv1, type: Convolution, bottom: x, num_output: {width}, kernel_size: {k}, pad: {p},
   stride: {s}, group: {group}, top: y}}
- {{name: conv2, type: Convolution, bottom: x, num_output: {width}, kernel_size: 1, stride: {s},
   top: z}}
- {{name: sum, type: Eltwise, bottom: [y, z], top: sum}}
- {{name: conv3, type: Convolution, bottom: sum, num_output: 3, kernel_size: 1}}
- {{name: loss, type: EuclideanLoss, bottom: [conv3, target]}}
"""


def unit(shape, width, k=3, p=1, s=1, group=1) -> str:
    target = [shape[0], 3, *(-(-n // s) for n in shape[2:])]
    return NET.format(shape=list(shape), target=target, width=width, k=k, p=p, s=s, group=group)


NETS = {
    "plain": unit((2, 3, 6, 5), 4),
    "primes": unit((3, 2, 7, 5), 19),
    "one picture": unit((1, 1, 23, 1), 33, k=3, p=1),
    "padded far": unit((2, 2, 5, 6), 3, k=5, p=2),
    "strided": unit((2, 2, 9, 7), 6, k=3, p=1, s=2),
    "skipping": unit((2, 2, 10, 8), 6, k=3, p=1, s=3),
    "grouped": unit((2, 2, 6, 6), 6, group=3),
    "depthwise": unit((2, 2, 6, 6), 5, group=5),
}
POOLED = """
name: pooled
layers:
- {{name: data, type: Input, top: data, shape: [2, 3, 9, 7]}}
- {{name: target, type: Input, top: target, shape: [2, 2, 4, 3]}}
- {{name: conv0, type: Convolution, bottom: data, num_output: 5, kernel_size: 3, pad: 1}}
- {{name: bn0, type: BatchNorm}}
- {{name: scale0, type: Scale, bias_term: true, top: x}}
- {{name: relu0, type: ReLU, bottom: x, top: x}}
- {{name: pool, type: Pooling, bottom: x, pool: {pool}, kernel_size: 3, stride: 2,
   round_mode: FLOOR}}
- {{name: conv1, type: Convolution, num_output: 2, kernel_size: 1}}
- {{name: loss, type: EuclideanLoss, bottom: [conv1, target]}}
"""


@pytest.fixture(autouse=True)
def no_rows(monkeypatch):
    """A whole channel would fit in one row kernel, which stores it: here as if it were long."""
    monkeypatch.setattr("compiler.lowering.fuse.ROW_LIMIT", 4)


def normalised(run) -> int:
    """Returns how many factors are a ReLU of what is read."""
    reduces = [r for k in run.unit.schedule.kernels() for r in k.reduces]
    found = [e for r in reduces for e in walk(r.value) if isinstance(e, Factor)]
    return sum(any(isinstance(x, Op) and x.name == "relu" for x in walk(e)) for e in found)


@pytest.mark.parametrize("name", NETS)
def test_contractions_normalise_on_their_way(name):
    run = run_both(*step_of(NETS[name]), PROLOGUES)
    assert_close(run, rtol=3e-4)
    assert normalised(run) == 4  # conv1 and conv2, and the gradients of their weights
    assert "x" not in run.unit.schedule.buffers


@pytest.mark.parametrize("pool_", ["MAX", "AVE"])
def test_windows_normalise_on_their_way(pool_):
    run = run_both(*step_of(POOLED.format(pool=pool_)), PROLOGUES)
    assert_close(run, rtol=3e-4)
    assert "x" not in run.unit.schedule.buffers
    assert "x" in run_both(*step_of(POOLED.format(pool=pool_)), Traits()).unit.schedule.buffers


def test_what_is_asked_for_is_stored_and_read():
    step, arena = step_of(NETS["plain"])
    kept = run_both(step, arena, Traits(parallel=64))
    assert "x" in kept.unit.schedule.buffers and not normalised(kept)
    outputs = {**step.graph.outputs, "x": step.graph.blobs["x"]}
    asked = replace(step, graph=replace(step.graph, outputs=outputs))
    run = run_both(asked, arena, PROLOGUES)
    assert_close(run, rtol=3e-4)
    assert not normalised(run)


def test_a_map_of_one_blob_and_vectors_is_made_on_the_way():
    blob = leaves.input_("blob", (4, 8, 5, 5), "f32")
    other = leaves.input_("other", (4, 8, 5, 5), "f32")
    vector = moves.broadcast(leaves.input_("vector", (1, 8, 1, 1), "f32"), blob.shape)
    few = moves.broadcast(leaves.input_("few", (4, 8, 5, 1), "f32"), blob.shape)
    for node, yes in {
        relu(add(mul(blob, vector), vector)): True,
        add(blob, blob): True,
        add(blob, other): False,
        add(blob, few): False,  # a fifth of the blob: less than MANY times
        exp(blob): False,  # it costs more
    }.items():
        assert on_the_way(node, set(), 8) == yes, node


@pytest.mark.parametrize(
    "outputs, k, s, wanted",
    [
        (128, 1, 1, 1),
        (1, 3, 1, 0),
        (129, 1, 1, 2),
        (512, 1, 2, 1),
        (7, 3, 1, 9),
        (256, 3, 2, 4.5),
        (9, 5, 1, 25),
    ],
)
def test_a_number_is_read_for_each_tap_and_for_each_tile(outputs, k, s, wanted):
    """By the forward product and by the gradient of the weight; what counts is the most of all."""
    slides = (Slide("h", "y", "i", s, 1, k // 2), Slide("w", "x", "j", s, 1, k // 2))
    blob = leaves.input_("blob", (2, 3, 12, 12), "f32")
    weight = leaves.input_("weight", (outputs, 3, k, k), "f32")
    above = leaves.input_("above", (2, outputs, 12 // s, 12 // s), "f32")
    forward = contract(blob, weight, "nchw,ocij->noyx", slides, y=12 // s, x=12 // s)
    gradient = contract(blob, above, "nchw,noyx->ocij", slides, i=k, j=k)
    assert readings([forward])[blob] == readings([gradient])[blob] == wanted
    assert readings([forward, gradient])[blob] == wanted


def test_what_is_read_more_often_is_stored():
    for most, stored in (9, False), (8, True):
        run = run_both(*step_of(NETS["plain"]), replace(PROLOGUES, readings=most))
        assert_close(run, rtol=3e-4)
        assert ("x" in run.unit.schedule.buffers) == stored
        assert normalised(run) == (0 if stored else 4)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("name", NETS)
def test_triton_follows_the_reference(name):
    compare(NETS[name], "fp32", 2e-4)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("name", ["plain", "strided", "depthwise"])
def test_bf16_follows_the_reference(name):
    compare(NETS[name], "bf16", 6e-2)


def on_triton(precision: str) -> Engine:
    """Returns an engine that stores nothing only because it is read often."""
    engine = open_engine("triton", "interpreter", precision=precision)
    engine.backend.traits = replace(engine.backend.traits, readings=math.inf)
    return engine


def compare(text: str, precision: str, most: float) -> None:
    want = trained(open_engine("reference"), text)
    got = trained(on_triton(precision), text)
    for key, array in want.items():
        size = max(1e-2, float(np.abs(array).max()))
        np.testing.assert_allclose(got[key], array, rtol=0, atol=most * size, err_msg=key)
