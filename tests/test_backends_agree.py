"""Whole training steps: every backend follows the float64 reference, for every update rule."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from compiler.backends import get_backend
from compiler.frontend.build import build
from compiler.ir.graph import Graph
from compiler.passes.arena import plan_arena
from compiler.passes.update import RULES, train_step
from compiler.triton_source.function import ARRIVALS
from netdef.engine import Engine, open_engine
from netdef.formats import read_net
from schemas.solver import SolverSpec

LENET = """
name: small-lenet
layers:
- {name: data, type: Input, top: data, shape: [3, 1, 12, 12]}
- {name: label, type: Input, top: label, shape: [3]}
- {name: conv1, type: Convolution, bottom: data, num_output: 5, kernel_size: 3}
- {name: pool1, type: Pooling, pool: MAX, kernel_size: 2, stride: 2}
- {name: conv2, type: Convolution, num_output: 6, kernel_size: 3, pad: 1}
- {name: norm2, type: LRN, local_size: 3}
- {name: pool2, type: Pooling, pool: AVE, kernel_size: 3, stride: 2}
- {name: ip1, type: InnerProduct, num_output: 7, param: [{}, {lr_mult: 2, decay_mult: 0}]}
- {name: relu1, type: ReLU, bottom: ip1, top: ip1}
- {name: drop1, type: Dropout, bottom: ip1, top: ip1}
- {name: ip2, type: InnerProduct, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip2, label]}
"""
CASES = [(rule, "cpu", None) for rule in sorted(RULES)]
if find_spec("triton"):  # the interpreter is slow: two rules stand for all
    CASES += [(rule, "triton", "interpreter") for rule in ("SGD", "AdaDelta")]


def small_lenet(batch: int) -> Graph:
    text = LENET.replace("shape: [3", f"shape: [{batch}")
    return build(read_net(text=text, format="yaml"), "TRAIN")


def run_steps(
    engine: Engine, spec: SolverSpec, steps: int = 3, batch: int = 3
) -> dict[str, np.ndarray]:
    """Trains for a few steps from fixed weights and data; returns losses and weights."""
    graph = small_lenet(batch)
    arena = plan_arena(graph)
    exe = engine.load(train_step(graph, arena, spec), arena)
    rng = np.random.default_rng(5)
    for key, info in graph.params.items():
        exe.write(key, rng.normal(0, 0.3, info.shape))
    found = {}
    for i in range(steps):
        exe.write("data", rng.normal(size=(batch, 1, 12, 12)))
        exe.write("label", rng.integers(0, 4, batch))
        for name, value in {"iteration": i, "lr": 0.05 / (i + 1), "seed_lo": 9}.items():
            exe.write(name, value)
        exe.write("rate_scale", 0.8)
        exe.run()
        found[f"loss {i}"] = exe.read("loss")
    found.update({key: exe.read(key) for key in graph.params})
    engine.close()
    return found


def spec_of(rule: str) -> SolverSpec:
    momentum = 0.0 if rule in ("AdaGrad", "RMSProp") else 0.9
    # A large delta: near 0, adaptive rules turn rounding errors of the gradient into signs.
    delta = 1e-2 if rule not in ("SGD", "Nesterov") else 1e-8
    return SolverSpec(
        type=rule, momentum=momentum, weight_decay=1e-2, delta=delta, clip_gradients=2.0
    )


@pytest.mark.parametrize("rule, backend, target", CASES)
def test_training_follows_the_reference(rule, backend, target):
    want = run_steps(open_engine("reference"), spec_of(rule))
    assert_near(run_steps(open_engine(backend, target, threads=2), spec_of(rule)), want)


def test_training_with_the_kernels_of_a_gpu_follows_the_reference():
    pytest.importorskip("triton")
    engine = open_engine("triton", "interpreter")
    # Its tiles, groups and sums in parts, but no loop in one launch: only one program runs.
    engine.backend = get_backend("triton", "sm_90", "fp32")
    engine.backend.binary = False
    graph, spec = small_lenet(12), spec_of("SGD")
    arena = plan_arena(graph)
    program = engine.compile(train_step(graph, arena, spec), arena)
    assert any(slot.name == ARRIVALS for slot in program.slots)
    got = run_steps(engine, spec, steps=2, batch=12)
    assert_near(got, run_steps(open_engine("reference"), spec, steps=2, batch=12))


def assert_near(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name, array in want.items():
        size = max(1e-2, float(np.abs(array).max()))
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-4 * size, err_msg=name)


def test_the_number_of_threads_does_not_change_a_bit():
    one = run_steps(open_engine("cpu", threads=1), spec_of("SGD"))
    three = run_steps(open_engine("cpu", threads=3), spec_of("SGD"))
    for name, array in one.items():
        np.testing.assert_array_equal(array, three[name], err_msg=name)
