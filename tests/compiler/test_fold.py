"""Affine maps by weights: one product and one sum behind a contraction, with equal results."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

import netdef
from compiler.frontend.build import build
from compiler.ir.evaluate import evaluate
from compiler.passes.arena import plan_arena
from compiler.passes.fold import affine, fold_weights
from compiler.passes.update import Step
from compiler.prims.registry import Env
from netdef.formats import read_net
from tests.case_build import FusedKernels, OnDevice
from tests.fold_cases import CHAINS, CONTRACTIONS, STATISTICS, chain_net, weights_for
from tests.harness import compiled_unit

BLOCK = """
name: block
layers:
- {name: data, type: Input, shape: [1, 16, 8, 8]}
- {name: conv1, type: Convolution, num_output: 4, kernel_size: 1, bias_term: false}
- {name: bn1, type: BatchNorm, top: conv1}
- {name: scale1, type: Scale, bottom: conv1, top: conv1, bias_term: true}
- {name: relu1, type: ReLU, bottom: conv1, top: conv1}
- {name: conv2, type: Convolution, bottom: conv1, num_output: 4, kernel_size: 3, pad: 1}
- {name: bn2, type: BatchNorm}
- {name: scale2, type: Scale, bias_term: true}
- {name: relu2, type: ReLU}
- {name: conv3, type: Convolution, num_output: 16, kernel_size: 1, bias_term: false}
- {name: bn3, type: BatchNorm}
- {name: scale3, type: Scale, bias_term: true}
- {name: sum, type: Eltwise, bottom: [data, scale3]}
- {name: relu3, type: ReLU, top: sum}
"""


def built(text: str, phase: str = "TEST"):
    return build(read_net(text=text, format="yaml"), phase)


def kernels(text: str, phase: str = "TEST"):
    graph = built(text, phase)
    return compiled_unit(Step(graph), plan_arena(graph)).schedule


def values_of(graph, statistics):
    shapes = {key: info.shape for key, info in {**graph.params, **graph.states}.items()}
    weights = weights_for(shapes, statistics)
    values = {("param", k): weights[k] for k in graph.params}
    values |= {("state", k): weights[k] for k in graph.states}
    rng = np.random.default_rng(5)
    values |= {("input", k): rng.normal(size=n.shape) for k, n in graph.inputs.items()}
    return values


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_a_folded_chain_gives_equal_outputs(contraction, bias, chain, statistics):
    graph = built(chain_net(CONTRACTIONS[contraction], CHAINS[chain], bias, in_place=True))
    env = Env(values_of(graph, STATISTICS[statistics]))
    (out,) = graph.outputs.values()
    new = fold_weights(graph)[out]
    (want,), (got,) = evaluate([out], env), evaluate([new], env)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())
    assert (new is not out) == any("BatchNorm" in one or "BN" in one for one in CHAINS[chain])


@pytest.mark.parametrize("chain", CHAINS)
def test_kernels_in_single_precision_agree(chain):
    graph = built(chain_net(CONTRACTIONS["conv"], CHAINS[chain], True, in_place=False))
    values = values_of(graph, STATISTICS["scaled"])
    (want,) = evaluate(list(graph.outputs.values()), Env(values))
    got = FusedKernels().run(graph, values)["out"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("device", [OnDevice("cpu"), OnDevice("triton", "interpreter")], ids=str)
def test_a_residual_block_on_devices(device):
    if device.name == "triton" and not find_spec("triton"):
        pytest.skip("triton is for Linux only")
    graph = built(BLOCK)
    values = values_of(graph, STATISTICS["scaled"])
    (want,) = evaluate(list(graph.outputs.values()), Env(values))
    got = device.run(graph, values)["sum"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_weights_may_change_between_runs():
    net = netdef.load(text=BLOCK, format="yaml", backend="cpu")
    other = netdef.load(text=BLOCK, format="yaml", backend="reference")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1, 16, 8, 8))
    for _ in range(2):
        mean, variance = rng.normal(size=16), rng.uniform(0.5, 2.0, 16)
        for one in (net, other):
            one.params["bn3"]["mean"], one.params["bn3"]["variance"] = mean, variance
            one.params["bn3"]["scale_factor"] = np.ones(1)
        want = other.forward(data=x)["sum"]
        np.testing.assert_allclose(net.forward(data=x)["sum"], want, rtol=1e-4, atol=1e-5)


def test_a_residual_block_has_one_kernel_a_convolution():
    schedule = kernels(BLOCK)
    kinds = [[k.kind for k in launch] for launch in schedule.launches]
    # The products and sums of all channels first, each made once; then nothing but convolutions.
    assert kinds == [["map"] * 3, ["contract"], ["contract"], ["contract"]]
    vectors = {b for k in schedule.launches[0] for b in k.writes()}
    assert {schedule.buffers[b].size for b in vectors} == {4, 16} and len(vectors) == 6


def test_norm_before_a_convolution_is_cheap_too():
    text = BLOCK.partition("- {name: conv1")[0] + "- {name: bn, type: BatchNorm}\n"
    first, second = kernels(text).launches
    assert [k.kind for k in (*first, *second)] == ["map", "map"]
    assert "sqrt" in str(first[0].body) and "sqrt" not in str(second[0].body)


def test_what_others_read_as_well_keeps_its_value():
    end = "- {name: both, type: Eltwise, bottom: [after0, out]}"
    graph = built(chain_net(CONTRACTIONS["conv"], CHAINS["BN+Scale"], True, False, end))
    assert list(graph.outputs) == ["both"]
    values = values_of(graph, STATISTICS["usual"])
    (want,) = evaluate(list(graph.outputs.values()), Env(values))
    got = FusedKernels().run(graph, values)["both"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_a_scale_over_another_axis_begins_a_new_chain():
    chain = ["type: BatchNorm", "type: Scale, axis: 2"]
    graph = built(chain_net(CONTRACTIONS["conv"], chain, True, False))
    found = affine(graph.nodes())
    assert found[graph.blobs["after1"]].x is graph.blobs["after0"]


def test_training_is_left_as_it_is():
    text = BLOCK.replace("BatchNorm", "BatchNorm, use_global_stats: true")
    assert [k.kind for k in kernels(text, "TRAIN").kernels()] == ["contract"] * 3
