"""Large blobs take their step where their gradient is made: to the same numbers, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import RULES, accumulate_step, train_step
from compiler.pipeline import plan_unit
from netdef.engine import open_engine
from netdef.formats import read_net
from schemas.solver import SolverSpec
from tests.harness import CPU_LIKE, assert_close, compiled_unit, run_both
from tests.strategies import nets

NET = """
name: all-kinds
layers:
- {name: data, type: Input, top: data, shape: [3, 3, 13, 11]}
- {name: label, type: Input, top: label, shape: [3]}
- name: conv1
  type: Convolution
  bottom: data
  num_output: 32
  kernel_size: 3
  pad: 1
  param: [{lr_mult: 0.5}, {lr_mult: 2, decay_mult: 0}]
- {name: relu1, type: ReLU}
- {name: conv2, type: Convolution, num_output: 32, kernel_size: 3, group: 2}
- {name: frozen, type: Convolution, num_output: 7, kernel_size: 1, param: [{lr_mult: 0}, {}]}
- {name: pool, type: Pooling, kernel_size: 3, stride: 2}
- {name: ip1, type: InnerProduct, num_output: 19, param: [{decay_mult: 2}, {}]}
- {name: act, type: Sigmoid}
- {name: again1, type: InnerProduct, num_output: 19, bottom: ip1, param: [{name: w}, {name: b}]}
- {name: again2, type: InnerProduct, num_output: 19, param: [{name: w}, {name: b}]}
- {name: ip2, type: InnerProduct, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip2, label]}
"""
SGD = SolverSpec(momentum=0.9, weight_decay=1e-2)


def trained(least: int, spec: SolverSpec, threads: int = 2) -> dict[str, np.ndarray]:
    """Returns losses, weights and histories after a few steps."""
    engine = open_engine("cpu", threads=threads)
    engine.backend.traits = replace(engine.backend.traits, apart=least)
    graph = build(read_net(text=NET, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    step = train_step(graph, arena, spec)
    exe = engine.load(step, arena)
    rng = np.random.default_rng(5)
    for key, info in graph.params.items():
        exe.write(key, rng.normal(0, 0.3, info.shape))
    found = {}
    for i in range(3):
        exe.write("data", rng.normal(size=(3, 3, 13, 11)))
        exe.write("label", rng.integers(0, 4, 3))
        for name, value in {"iteration": i, "lr": 0.05 / (i + 1), "rate_scale": 0.8}.items():
            exe.write(name, value)
        exe.run()
        found[f"loss {i}"] = exe.read("loss")
    found.update({key: exe.read(key) for key in (*graph.params, *exe.program.tensors)})
    unit = engine.unit(step, arena)
    plan_unit(unit)
    found["stored"] = np.array(unit.schedule.buffers["gradients"].size)
    engine.close()
    return found


@pytest.mark.parametrize("decay", ["L1", "L2"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_takes_the_same_step_either_way(rule, decay):
    momentum = 0.0 if rule in ("AdaGrad", "RMSProp") else 0.9
    spec = SolverSpec(type=rule, momentum=momentum, weight_decay=1e-2, regularization_type=decay)
    together, apart = trained(0, spec), trained(200, spec)
    assert apart.pop("stored") < together.pop("stored") / 10
    for name, array in together.items():
        if name not in ("lr_mult", "decay_mult"):
            np.testing.assert_array_equal(apart[name], array, err_msg=name)


def test_the_number_of_threads_does_not_change_a_bit():
    one, three = trained(200, SGD, threads=1), trained(200, SGD, threads=3)
    for name, array in one.items():
        np.testing.assert_array_equal(array, three[name], err_msg=name)


def step_of(text: str, spec: SolverSpec = SGD, make=train_step):
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    return make(graph, arena, spec), arena


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets())
def test_random_nets_train_as_unfused(text):
    step, arena = step_of(text)
    assert_close(run_both(step, arena, replace(CPU_LIKE, apart=16)), rtol=2e-4)


def writers(step, arena, least: int) -> dict[str, list[str]]:
    """Returns the kernels that write each part of the weights or of what gradients add up to."""
    unit = compiled_unit(step, arena, replace(CPU_LIKE, apart=least))
    found: dict[str, list[str]] = {}
    for kernel in unit.schedule.kernels():
        for buffer in kernel.writes():
            if buffer.startswith(("params", "accumulated")) and ".t" not in buffer:
                found.setdefault(buffer, []).append(kernel.kind)
    return found


def test_an_update_is_the_epilogue_of_the_products():
    step, arena = step_of(NET)
    own = writers(step, arena, 300)
    for key in ("conv1/weight", "conv2/weight", "ip1/weight"):
        assert own.pop(f"params@{arena.slots[key].offset}") == ["contract"], key
    assert arena.slots["w"].size > 300  # but its two gradients are added up
    assert "contract" not in {kind for kinds in own.values() for kind in kinds}
    assert writers(step, arena, 0) == {"params": ["map"]}


def test_gradients_are_added_up_where_they_are_made():
    step, arena = step_of(NET, make=lambda graph, arena, spec: accumulate_step(graph, arena))
    own = writers(step, arena, 300)
    assert own[f"accumulated@{arena.slots['ip1/weight'].offset}"] == ["contract"]


def test_a_norm_of_all_gradients_needs_them_all():
    step, arena = step_of(NET, replace(SGD, clip_gradients=1.0))
    assert writers(step, arena, 300) == {"params": ["map"]}
