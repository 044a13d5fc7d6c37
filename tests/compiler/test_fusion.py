"""Fused kernels compute what the unfused graph does, for known and for random nets."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from compiler.backends import get_backend
from compiler.frontend.build import build
from compiler.lowering.traits import Traits
from compiler.passes.arena import plan_arena
from compiler.passes.update import RULES, Step, accumulate_step, apply_step, train_step
from compiler.pipeline import PASSES
from compiler.unit import Unit
from netdef.formats import read_net
from schemas.solver import SolverSpec
from tests.harness import CPU_LIKE, assert_close, run_both
from tests.strategies import nets

SGD = SolverSpec(momentum=0.9, weight_decay=5e-4)
GPU_LIKE = Traits(
    contiguous_factor=False,
    groups=True,
    tile=(64, 64),
    parallel=64,
    last_adds=True,
    wide_epilogues=True,
)
ALONE = Traits(contiguous_factor=True, groups=False)

MLP = """
name: mlp
layers:
- {name: data, type: Input, top: data, shape: [6, 7]}
- {name: label, type: Input, top: label, shape: [6]}
- name: ip1
  type: InnerProduct
  bottom: data
  num_output: 5
  param: [{lr_mult: 1}, {lr_mult: 2, decay_mult: 0}]
- {name: act, type: Sigmoid}
- {name: ip2, type: InnerProduct, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip2, label]}
"""


def step_of(text: str, spec: SolverSpec = SGD, make=train_step):
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    return make(graph, arena, spec), arena


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets())
def test_random_nets_train_as_unfused(text):
    step, arena = step_of(text)
    assert_close(run_both(step, arena), rtol=2e-4)


@pytest.mark.parametrize("traits", [CPU_LIKE, GPU_LIKE, ALONE], ids=["cpu", "gpu", "alone"])
def test_every_kind_of_backend_gets_equal_kernels(traits):
    step, arena = step_of(MLP)
    assert_close(run_both(step, arena, traits))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_update_rule_fuses_into_one_kernel(rule):
    momentum = 0.0 if rule in ("AdaGrad", "RMSProp") else 0.9
    step, arena = step_of(MLP, SolverSpec(type=rule, momentum=momentum, weight_decay=1e-3))
    run = run_both(step, arena)
    writers = [k for k in run.unit.schedule.kernels() if "params" in k.writes()]
    assert len(writers) == 1
    # Histories are random here, so a negative square may meet a root: compare what is finite.
    if rule in ("SGD", "Nesterov"):
        assert_close(run)


@pytest.mark.parametrize("kind", ["L1", "L2", "L1L2"])
@pytest.mark.parametrize("clip", [-1.0, 0.05])
def test_regularisation_and_clipping(kind, clip):
    spec = SolverSpec(
        momentum=0.9, weight_decay=0.01, regularization_type=kind, clip_gradients=clip
    )
    step, arena = step_of(MLP, spec)
    assert_close(run_both(step, arena))


def test_accumulate_and_apply():
    spec = SolverSpec(momentum=0.9, iter_size=3)
    step, arena = step_of(MLP, spec, lambda g, a, s: accumulate_step(g, a))
    assert_close(run_both(step, arena))
    step, arena = step_of(MLP, spec, apply_step)
    assert_close(run_both(step, arena))


def test_a_softmax_and_its_gradient_are_one_kernel():
    step, arena = step_of(MLP)
    run = run_both(step, arena)
    rows = [k for k in run.unit.schedule.kernels() if k.kind == "row"]
    assert [k.name for k in rows] == ["d(ip2)"]


NORMALIZED = """
name: normalized
layers:
- {name: data, type: Input, top: data, shape: [2, 3, 7, 7]}
- {name: label, type: Input, top: label, shape: [2]}
- {name: conv, type: Convolution, bottom: data, num_output: 8, kernel_size: 3}
- {name: relu, type: ReLU, top: conv}
- {name: norm, type: LRN}
- {name: ip, type: InnerProduct, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


def test_a_window_makes_cheap_maps_of_what_is_stored_again():
    step, arena = step_of(NORMALIZED)
    run = run_both(step, arena)
    assert_close(run)
    assert "norm.mul" not in run.unit.schedule.buffers  # the squares, of a blob that is stored


@pytest.mark.parametrize(("batch", "turned"), [(1, False), (8, False), (32, True)])
def test_weights_are_turned_for_large_batches_alone(batch, turned):
    text = MLP.replace("[6, 7]", f"[{batch}, 7]").replace("[6]", f"[{batch}]")
    step, arena = step_of(text.replace("num_output: 4", "num_output: 16"))
    run = run_both(step, arena, CPU_LIKE)
    assert_close(run)
    names = [k.name for k in run.unit.schedule.kernels()]
    assert any(name.endswith(".turn") for name in names) == turned


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets())
def test_each_reader_that_stays_apart_is_told_with_a_reason(text):
    step, arena = step_of(text)
    unit = Unit(step.graph, arena, get_backend("triton"), step.names, step.tables)
    for name, run in PASSES:
        run(unit)
        if name == "fuse":
            break
    pairs = [(a, b) for a in unit.kernels for b in unit.kernels if a is not b]
    apart = {(a.name, b.name) for a, b in pairs if a.writes() & b.reads()}
    assert {pair[:2] for pair in unit.refused} == apart
    assert all(why for _, _, why in unit.refused)


@pytest.mark.parametrize(
    ("window", "whole"),
    [
        ("global_pooling: true", True),
        ("kernel_size: 7, pad: 1", True),
        ("kernel_size: 4, stride: 3, round_mode: FLOOR", False),  # not the last row and column
        ("kernel_size: 3, stride: 2", False),
    ],
)
def test_the_gradient_of_one_window_over_everything_is_no_sum(window, whole):
    step, arena = step_of(NORMALIZED.replace("type: LRN", f"type: Pooling, pool: AVE, {window}"))
    run = run_both(step, arena)
    assert_close(run)
    assert any(node.prim == "unpool_sum" for node in run.unit.graph.nodes()) != whole


POOLED = """
name: pooled
layers:
- {name: data, type: Input, top: data, shape: [2, 3, 10, 12]}
- {name: label, type: Input, top: label, shape: [2]}
- {name: conv1, type: Convolution, bottom: data, num_output: 5, kernel_size: 3, pad: 1}
- {name: relu1, type: ReLU, bottom: conv1, top: conv1}
- {name: pool1, type: Pooling, pool: MAX, kernel_size: 2, stride: 2}
- {name: conv2, type: Convolution, num_output: 4, kernel_size: 3, pad: 1}
- {name: ip, type: InnerProduct, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


@pytest.mark.parametrize(
    ("window", "spread"),
    [
        ("MAX, kernel_size: 2, stride: 2", True),
        ("AVE, kernel_size: 2, stride: 2", True),
        ("MAX, kernel_h: 1, kernel_w: 4, stride_h: 1, stride_w: 4", True),
        ("MAX, kernel_size: 2, stride_h: 4, stride_w: 5", False),  # its windows leave gaps
        ("MAX, kernel_size: 3, stride: 2", False),  # they overlap
        ("MAX, kernel_size: 4, stride: 4", False),  # the last of them reach over the edge
        ("AVE, kernel_h: 5, kernel_w: 6, stride_h: 5, stride_w: 6", False),  # 30 for each result
    ],
)
def test_the_gradient_of_a_pooling_goes_into_the_product_before_it(window, spread):
    step, arena = step_of(POOLED.replace("MAX, kernel_size: 2, stride: 2", window))
    run = run_both(step, arena, GPU_LIKE)
    assert_close(run)
    wide = [k for k in run.unit.schedule.kernels() if any(s.axes for s in k.stores)]
    products = [k for k in wide if k.kind == "contract"]
    assert [k.name for k in products] == ["d(relu1).select"] * spread
    step, arena = step_of(POOLED)
    kernels = run_both(step, arena, CPU_LIKE).unit.schedule.kernels()
    assert not any(s.axes for k in kernels if k.kind == "contract" for s in k.stores)


FOLDED = {
    "MAX, kernel_size: 2, stride: 2": True,
    "AVE, kernel_size: 2, stride: 2": True,
    "MAX, kernel_h: 1, kernel_w: 4, stride_h: 1, stride_w: 4": True,
    "MAX, kernel_h: 5, kernel_w: 1, stride_h: 5, stride_w: 1": True,
    "MAX, kernel_size: 2, stride_h: 4, stride_w: 5": False,  # its windows leave gaps
    "MAX, kernel_size: 3, stride: 2": False,  # they overlap
    "MAX, kernel_size: 4, stride: 4": False,  # the last of them reach over the edge
    "AVE, kernel_h: 5, kernel_w: 2, stride_h: 5, stride_w: 2": False,  # of 10 elements
}


@pytest.mark.parametrize(("window", "folded"), FOLDED.items())
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_pooling_goes_into_the_product_before_it(window, folded, phase):
    text = POOLED.replace("MAX, kernel_size: 2, stride: 2", window)
    if phase == "TRAIN":
        step, arena = step_of(text)
    else:
        graph = build(read_net(text=text, format="yaml"), "TEST")
        step, arena = Step(graph), plan_arena(graph)
    run = run_both(step, arena, GPU_LIKE)
    assert_close(run)
    (pool,) = (k for k in run.unit.schedule.kernels() if "pool1" in k.writes())
    assert (pool.kind == "contract") == folded
    # The mask of the ReLU is read from what is pooled, unless that is a mean.
    kept = "conv1" in run.unit.schedule.buffers
    assert kept == (not folded or (phase == "TRAIN" and "AVE" in window))
    told = [why for first, second, why in run.unit.refused if second == "pool1"]
    assert len(told) == (not folded)
    kernels = run_both(step, arena, CPU_LIKE).unit.schedule.kernels()
    assert not any(k.rows for k in kernels)
