"""Precision bf16: layers and training beside float64, what lies as what, the copied weights."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from compiler.frontend.build import build
from compiler.kernels.kernel import product
from compiler.lowering.narrow import COPY
from compiler.lowering.traits import Traits
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from netdef.engine import open_engine
from netdef.formats import read_net
from runtime.tensor_bytes import rounded
from schemas.solver import SolverSpec
from tests.case_build import OnDevice, Reference, build_case
from tests.cases import CASES
from tests.harness import compiled_unit
from tests.test_backends_agree import run_steps, spec_of

interpreted = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
NAMES = (
    *("conv_primes", "conv_stride_over_kernel", "conv_rest", "conv_one", "conv_groups"),
    *("conv_depthwise", "conv_dilated", "deconv_groups", "dense_primes"),
    *("dense_transpose", "dense_image", "dense_one"),
    *("batch_norm_train", "batch_norm_line", "softmax_loss_plain", "softmax_loss_one"),
    *("lstm_plain", "lstm_short", "lstm_one", "pool_max_padded", "embed"),
)
SGD = SolverSpec(momentum=0.9, weight_decay=1e-3)


@interpreted
@pytest.mark.parametrize("case", [c for c in CASES if c.name in NAMES], ids=str)
def test_layers_agree_with_the_reference(case):
    built = build_case(case)
    want = Reference().run(built.graph, built.values)
    got = OnDevice("triton", "interpreter", precision="bf16").run(built.graph, built.values)
    for name, array in want.items():
        if name != "sum":  # positive and negative numbers that cancel each other
            size = max(1.0, float(np.max(np.abs(array), initial=0)))
            np.testing.assert_allclose(got[name], array, rtol=0, atol=0.02 * size, err_msg=name)


@interpreted
def test_training_follows_the_reference():
    want = run_steps(open_engine("reference"), spec_of("SGD"))
    got = run_steps(open_engine("triton", "interpreter", precision="bf16"), spec_of("SGD"))
    for name, array in want.items():
        size = max(1e-2, float(np.abs(array).max()))
        np.testing.assert_allclose(got[name], array, rtol=0, atol=5e-3 * size, err_msg=name)


NORMALISED = """
layers:
- {name: data, type: Input, top: data, shape: [8, 3, 6, 6]}
- {name: label, type: Input, top: label, shape: [8]}
- {name: conv1, type: Convolution, bottom: data, num_output: 8, kernel_size: 3, bias_term: false}
- {name: bn1, type: BatchNorm}
- {name: scale1, type: Scale, bias_term: true}
- {name: relu1, type: ReLU}
- {name: conv2, type: Convolution, num_output: 8, kernel_size: 3}
- {name: ip, type: InnerProduct, num_output: 5}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""
LOOP = """
layers:
- {name: data, type: Input, top: data, shape: [6, 2, 4]}
- {name: label, type: Input, top: label, shape: [6, 2]}
- {name: cont, type: Input, top: cont, shape: [6, 2]}
- {name: lstm, type: LSTM, bottom: [data, cont], top: h, num_output: 8}
- {name: ip, type: InnerProduct, bottom: h, num_output: 5, axis: 2}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label], axis: 2}
"""


def unit_of(text, narrow=True):
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    return compiled_unit(train_step(graph, arena, SGD), arena, Traits(narrow=narrow))


def test_activations_are_narrow_and_sums_are_not():
    types = {b.name: b.dtype for b in unit_of(NORMALISED).schedule.buffers.values()}
    assert types["conv1"] == types["conv2"] == types["ip"] == types["d(conv1)"] == "bf16"
    wide = {"data", "label", "loss", "params", "momentum", "gradients", "scalars"}
    assert {types[name] for name in wide} == {"f32"}
    statistics = [b for b in types if b.startswith("bn1") or b.startswith("d(bn1)")]
    sums = [b for b in statistics if unit_of(NORMALISED).schedule.buffers[b].size == 8]
    assert sums and {types[b] for b in sums} == {"f32"}
    assert "bf16" not in {
        b.dtype for b in unit_of(NORMALISED, narrow=False).schedule.buffers.values()
    }


def test_products_read_the_copy_of_the_weights_that_the_update_writes():
    unit = unit_of(NORMALISED)
    kernels = unit.schedule.kernels()
    factors = [f for k in kernels if k.kind == "contract" for f in product(k.reduces[0])]
    assert "params" not in {f.buffer for f in factors} and COPY in {f.buffer for f in factors}
    assert {f.dtype for f in factors if f.buffer != "data"} == {"bf16"}
    assert [k.name for k in kernels if COPY in k.writes()] == ["update"]
    assert "params" in next(k for k in kernels if k.name == "conv2").reads()  # the bias


def test_the_cell_of_a_loop_is_exact_and_what_products_read_is_not():
    unit = unit_of(LOOP)
    types = {b.name: b.dtype for b in unit.schedule.buffers.values()}
    parts = {b.name: b.base for b in unit.schedule.buffers.values() if b.base}
    assert all(types[part] == types[base] for part, base in parts.items())
    assert {types["h"], types["h~"]} == {"bf16"}
    assert "f32" in {types[base] for base in parts.values()}


@interpreted
def test_weights_and_their_copy_stay_the_same():
    graph = build(read_net(text=NORMALISED, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    engine = open_engine("triton", "interpreter", precision="bf16")
    exe = engine.load(train_step(graph, arena, SGD), arena)

    def both():
        exact = exe.blocks["params"].read(0, 4 * arena.rows * 16)
        return rounded(exact), exe.blocks[COPY].read(0, 2 * arena.rows * 16)

    rng = np.random.default_rng(1)
    for key, info in graph.params.items():
        exe.write(key, rng.normal(size=info.shape))
    for _ in range(2):
        one, other = both()
        assert one.any() and np.array_equal(one, other)
        exe.write("lr", 0.1)
        exe.run()
    engine.close()


def test_rounding():
    given = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -3.1, 3.4e38, np.inf, np.nan], np.float32)
    bits = rounded(given.view(np.uint8)).view(np.uint16).astype(np.uint32) << 16
    want = [1, 1, 1 + 2**-6, -3.09375, np.inf, np.inf, np.nan]
    np.testing.assert_array_equal(bits.view(np.float32), np.array(want, np.float32))
