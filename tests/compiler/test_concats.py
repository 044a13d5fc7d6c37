"""Parts of concats are read where the concat has them, and stored there alone."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings

from compiler.ir.evaluate import evaluate
from compiler.ir.rewrite import mapped
from compiler.passes.concats import read_in_concats
from compiler.prims.registry import Env
from tests.compiler.test_siblings import GPU_LIKE, simplified, training
from tests.harness import assert_close, compiled_unit, leaf_values, run_both
from tests.strategies import nets

FIRE = """
layers:
- {name: data, type: Input, top: data, shape: [2, 3, 7, 6]}
- {name: label, type: Input, top: label, shape: [2]}
- {name: squeeze, type: Convolution, bottom: data, num_output: 4, kernel_size: 1}
- {name: relu, type: ReLU, bottom: squeeze, top: squeeze}
- {name: expand1, type: Convolution, bottom: squeeze, num_output: 5, kernel_size: 1}
- {name: relu1, type: ReLU, bottom: expand1, top: expand1}
- {name: expand3, type: Convolution, bottom: squeeze, num_output: 3, kernel_size: 3, pad: 1}
- {name: relu3, type: ReLU, bottom: expand3, top: expand3, negative_slope: 0.5}
- {name: both, type: Concat, bottom: [expand1, expand3], top: both}
- {name: ip, type: InnerProduct, bottom: both, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


def test_a_part_is_stored_in_the_concat_alone():
    unit = compiled_unit(*training(FIRE), GPU_LIKE)
    large = {b.name for b in unit.schedule.buffers.values() if b.size == 2 * 5 * 42}
    writers = [k for k in unit.schedule.kernels() if "both" in k.writes()]
    assert len(writers) == 2 and all(k.writes() == {"both"} for k in writers)
    assert not any(name.startswith("expand1") for name in large)
    assert_close(run_both(*training(FIRE), GPU_LIKE))


def test_reading_in_concats_changes_no_number():
    unit = simplified(FIRE)
    graph = mapped(unit.graph, read_in_concats(unit.graph))
    assert graph.roots() != unit.graph.roots()
    values = leaf_values(graph, unit.arena, unit.tables, np.random.default_rng(1), ("label",))
    want, got = (evaluate(g.roots(), Env(values)) for g in (unit.graph, graph))
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(other, one)


def test_what_comes_before_the_concat_does_not_wait_for_it():
    chained = FIRE.replace("expand3, type: Convolution, bottom: squeeze",
                           "expand3, type: Convolution, bottom: expand1")  # fmt: skip
    unit = compiled_unit(*training(chained), GPU_LIKE)
    (second,) = (
        k for k in unit.schedule.kernels() if k.layers[:1] == ("expand3",) and "both" in k.writes()
    )
    assert "both" not in second.reads() and "expand1" in second.reads()
    assert_close(run_both(*training(chained), GPU_LIKE))


def test_a_part_that_is_kept_is_stored_as_well():
    step, arena = training(FIRE)
    step.graph.outputs["expand1"] = step.graph.blobs["expand1"]
    run = run_both(step, arena, GPU_LIKE)
    assert "expand1" in run.outputs
    assert_close(run)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets())
def test_random_nets_train_as_unfused(text):
    assert_close(run_both(*training(text), GPU_LIKE), rtol=2e-4)
