"""BatchNorm's running sums: as Caffe updates, shares, saves and refuses to learn them."""

from __future__ import annotations

import numpy as np
import pytest

import netdef
from compiler.frontend.build import build
from compiler.ir.evaluate import evaluate
from compiler.ir.graph import Graph
from compiler.ir.rewrite import mapped, rewrite
from compiler.layers.batch_norm import moments
from compiler.lowering.traits import Traits
from compiler.passes.arena import plan_arena
from compiler.passes.moments import part_moments
from compiler.passes.simplify import RULES
from compiler.passes.update import train_step
from compiler.prims.leaves import input_
from compiler.prims.registry import Env
from netdef.formats import read_net
from schemas.errors import NetError
from schemas.solver import SolverSpec
from tests.harness import CPU_LIKE, assert_close, run_both

FIXED = "param { lr_mult: 0 decay_mult: 0 } "
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 5 } } }
layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" PARAMS
  batch_norm_param { moving_average_fraction: 0.9 } }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }
"""
TWO = """
layer { name: "again" type: "BatchNorm" bottom: "bn" top: "again" PARAMS
  batch_norm_param { moving_average_fraction: 0.9 } }
"""
NAMES = ("mean", "variance", "scale_factor")


def load(params: str = FIXED * 3, phase: str = "TRAIN", backend: str = "cpu", more: str = ""):
    text = (NET + more).replace("PARAMS", params)
    return netdef.load(text=text, format="prototxt", phase=phase, backend=backend)


def batch(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, (4, 3, 5)).astype(np.float32)


def moved(sums: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """Returns Caffe's sums after one more batch."""
    count = x.size // x.shape[1]
    new = [x.mean((0, 2)), x.var((0, 2)) * count / (count - 1), np.ones(1)]
    return [0.9 * old + one for old, one in zip(sums, new, strict=True)]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_running_sums_are_caffes(backend, tmp_path):
    net = load(backend=backend)
    assert list(net.params["bn"]) == list(NAMES)
    assert list(net.params["scale"]) == ["weight", "bias"]
    want = [np.zeros(3), np.zeros(3), np.zeros(1)]
    for seed in range(3):
        net.forward(data=batch(seed))
        want = moved(want, batch(seed))
    for name, one in zip(NAMES, want, strict=True):
        np.testing.assert_allclose(net.params["bn"][name], one, rtol=1e-5)
    net.backward(bn=np.ones((4, 3, 5)))
    assert "bn" not in net.grads
    np.testing.assert_allclose(net.params["bn"]["mean"], want[0], rtol=1e-5)  # not moved again
    net.save_weights(tmp_path / "w.safetensors")
    test = load(phase="TEST", backend=backend)
    assert test.load_weights(tmp_path / "w.safetensors") == []
    mean, variance = (want[i] / want[2] for i in range(2))
    x = batch(7)
    y = (x - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
    np.testing.assert_allclose(test.forward(data=x)["bn"], y, rtol=1e-4, atol=1e-5)
    test.params["bn"]["scale_factor"] = np.zeros(1)  # Caffe divides by nothing then: all is 0
    y = x / np.sqrt(1e-5)
    np.testing.assert_allclose(test.forward(data=x)["bn"], y, rtol=1e-4)


def test_layers_that_share_sums_update_them_one_after_the_other():
    named = "".join(f'param {{ name: "{n}" lr_mult: 0 }} ' for n in "mvs")
    net = load(named, more=TWO)
    first = net.forward(["bn"], data=batch(0))
    want = moved(moved([np.zeros(3), np.zeros(3), np.zeros(1)], batch(0)), first["bn"])
    for name, one in zip(NAMES, want, strict=True):
        np.testing.assert_allclose(net.params["bn"][name], one, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(net.params["again"][name], net.params["bn"][name])


def test_three_entries_are_set_to_zero_as_caffe_does():
    spec = read_net(text=NET.replace("PARAMS", "param { lr_mult: 1 } " * 3), format="prototxt")
    graph = build(spec, "TRAIN")
    assert [w.message.split(": ", 1)[1].split()[0] for w in graph.warnings] == [
        f"'{name}'" for name in NAMES
    ]
    assert not any("bn" in key for key in graph.params)


@pytest.mark.parametrize(
    "params, place, message",
    [
        ("param { lr_mult: 1 }", 3, "'mean' is measured, not learned: its lr_mult is 0, not 1"),
        (FIXED + "param { decay_mult: 0 }", 3, "'variance' is measured, not learned"),
        (FIXED * 4, 3, "4 param entries for 3 learned blobs"),
    ],
)
def test_other_entries_are_refused(params, place, message):
    spec = read_net(text=NET.replace("PARAMS", params), format="prototxt")
    with pytest.raises(NetError) as caught:
        build(spec, "TRAIN")
    assert message in str(caught.value)
    assert caught.value.flatten()[0].span.line == place


TRAINED = """
name: trained
layers:
- {name: data, type: Input, top: data, shape: [3, 2, 41, 40]}
- {name: label, type: Input, top: label, shape: [3]}
- {name: conv, type: Convolution, bottom: data, num_output: 5, kernel_size: 1}
- {name: bn, type: BatchNorm, bottom: conv, top: bn}
- {name: scale, type: Scale, bias_term: true, top: bn}
- {name: relu, type: ReLU, top: bn}
- {name: ip, type: InnerProduct, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


@pytest.mark.parametrize("traits", [CPU_LIKE, Traits(parallel=64)], ids=["cpu", "gpu"])
def test_training_takes_few_reads_and_roots(traits):
    graph = build(read_net(text=TRAINED, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    run = run_both(train_step(graph, arena, SolverSpec(momentum=0.9)), arena, traits)
    assert_close(run, rtol=2e-4)
    kernels = [k for k in run.unit.schedule.kernels() if "conv" in k.reads()]
    # The mean; the variance; backward both sums at once.
    assert [len(k.reduces) for k in kernels if k.kind == "reduce"] == [1, 1, 2]
    assert not any("sqrt" in str(k.body) for k in kernels if k.kind == "map")


SPEC = read_net(text=TRAINED, format="yaml")
PARTED = Traits(contiguous_factor=True, tile=(12, 32), parallel=16, nearby=500)


def test_long_means_and_variances_take_one_read():
    graph = build(read_net(text=TRAINED, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    run = run_both(train_step(graph, arena, SolverSpec(momentum=0.9)), arena, PARTED)
    assert_close(run, rtol=2e-4)
    kernels = [k for k in run.unit.schedule.kernels() if "conv" in k.reads()]
    assert [(k.kind, len(k.reduces)) for k in kernels if k.reduces] == [("row", 2), ("reduce", 2)]


@pytest.mark.parametrize("shape", [(3, 5, 41, 40), (1, 3, 130, 64), (7, 2, 17, 600), (4, 1, 5003)])
def test_moments_in_parts_are_exact(shape):
    x = input_("x", shape)
    over = tuple(i for i in range(len(shape)) if i != 1)
    mean, variance, _ = moments(x, over)
    outputs = {"mean": mean, "variance": variance}
    graph = Graph("moments", "TRAIN", SPEC, inputs={"x": x}, outputs=outputs)
    graph = mapped(graph, rewrite(graph.roots(), RULES))
    mean, variance = graph.outputs.values()
    new = part_moments(graph, 1024)
    assert (new[mean] is not mean) == (shape[-1] != 5003)  # a prime does not fall into parts
    # Far from 0, where the mean of the squares less the square of the mean is nothing but noise.
    values = np.random.default_rng(0).normal(1000, 0.1, shape)
    got = evaluate([new[mean], new[variance]], Env({("input", "x"): values}))
    np.testing.assert_allclose(got[0], values.mean(over, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(got[1], values.var(over, keepdims=True), rtol=1e-9)
