"""The memory plan: what lives together lies apart, and nothing that was there before matters."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from compiler.frontend.build import build
from compiler.lowering.memory import nbytes
from compiler.passes.arena import plan_arena
from compiler.passes.update import accumulate_step, train_step
from compiler.pipeline import plan_unit
from netdef.engine import open_engine
from netdef.formats import read_net
from runtime.cpu import CpuExecutable
from schemas.program import ARENA, INPUTS
from schemas.solver import SolverSpec
from tests.compiler.test_cut import NET
from tests.compiler.test_narrow import LOOP
from tests.compiler.test_winograd import NET as TILED
from tests.harness import CPU_LIKE, assert_close, compiled_unit, run_both
from tests.strategies import nets
from tests.test_backends_agree import assert_near

SGD = SolverSpec(momentum=0.9, weight_decay=1e-2)
CLIPPED = replace(SGD, clip_gradients=0.5)
BACKENDS = [("cpu", None)]
if find_spec("triton"):
    BACKENDS.append(("triton", "interpreter"))


# The gradients of `frozen` stay zeros between those of its neighbours.
DEEP = """
layers:
- {name: data, type: Input, top: data, shape: [16, 29]}
- {name: label, type: Input, top: label, shape: [16]}
- {name: ip1, type: InnerProduct, bottom: data, num_output: 61}
- {name: act1, type: Sigmoid}
- {name: ip2, type: InnerProduct, num_output: 59}
- {name: act2, type: Sigmoid}
- {name: frozen, type: InnerProduct, num_output: 53, param: [{lr_mult: 0}, {lr_mult: 0}]}
- {name: act3, type: Sigmoid}
- {name: ip4, type: InnerProduct, num_output: 43}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip4, label]}
"""


def step_of(text, spec=SGD, make=train_step):
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    return make(graph, arena, spec), arena


def accumulated(graph, arena, spec):
    return accumulate_step(graph, arena)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets())
def test_what_lives_together_lies_apart(text):
    memory = compiled_unit(*step_of(text)).memory
    for (one, ours), (other, theirs) in combinations(memory.blocks.items(), 2):
        for a in ours:
            for b in theirs:
                together = a.first <= b.last and b.first <= a.last
                assert not together or a.end <= b.start or b.end <= a.start, (one, other)


@pytest.mark.parametrize("text", [NET, DEEP, LOOP], ids=["net", "deep", "loop"])
@pytest.mark.parametrize("spec", [SGD, CLIPPED], ids=["sgd", "clipped"])
@pytest.mark.parametrize("make", [train_step, accumulated])
def test_kernels_compute_the_step_in_planned_memory(text, spec, make):
    for traits in (CPU_LIKE, replace(CPU_LIKE, apart=300)):
        assert_close(run_both(*step_of(text, spec, make), traits), rtol=2e-4)


@pytest.mark.parametrize("fetched", [False, True])
def test_inputs_lie_apart_where_the_device_has_an_inlet(fetched):
    step, arena = step_of(DEEP)
    if fetched:
        outputs = step.graph.outputs | {"data": step.graph.inputs["data"]}
        step = replace(step, graph=replace(step.graph, outputs=outputs))
    for inlet in (False, True):
        unit = compiled_unit(step, arena, replace(CPU_LIKE, inlet=inlet))
        inputs = {unit.plan.storage[node].buffer for node in step.graph.inputs.values()}
        assert inputs == {"data", "label"}
        assert {unit.memory.places[n].slot for n in inputs} == {INPUTS if inlet else ARENA}
        assert unit.memory.blocks.keys().isdisjoint(inputs) == inlet
        apart = [slot for slot in unit.memory.slots if slot.name == INPUTS]
        needed = sum(nbytes(unit.schedule.buffers[n]) for n in inputs)
        assert [slot.nbytes for slot in apart] == [needed] * inlet
        assert not any(slot.persistent for slot in apart)


def test_gradients_lie_where_activations_lay():
    """One takes no memory before it is made, at a time when all activations are alive."""
    unit = compiled_unit(*step_of(DEEP))
    gradients = unit.memory.blocks["gradients"]
    births = {block.first for block in gradients}
    assert len(births) == 4 and 0 in births  # of the three layers that learn; the frozen one's
    first, last = gradients[0].start, gradients[-1].end
    shared = {
        name
        for name, (block, *_) in unit.memory.blocks.items()
        if first < block.end and block.start < last
    }
    assert {"gradients", "act1"} <= shared


@pytest.mark.parametrize("text, winograd", [(NET, False), (TILED, True)])
def test_a_plan_takes_little_more_than_what_is_alive_at_the_worst_launch(text, winograd):
    unit = compiled_unit(*step_of(text), replace(CPU_LIKE, winograd=winograd))
    every = [block for blocks in unit.memory.blocks.values() for block in blocks]
    alive = (
        sum(b.end - b.start for b in every if b.first <= i <= b.last)
        for i in range(len(unit.schedule.launches))
    )
    assert unit.memory.arena_bytes <= 1.001 * max(alive)


class Trained:
    """A net that trains on a backend, and the plan of its memory."""

    def __init__(self, backend, text, spec):
        self.engine = open_engine(*backend)
        self.graph = build(read_net(text=text, format="yaml"), "TRAIN")
        self.arena = plan_arena(self.graph)
        step = train_step(self.graph, self.arena, spec)
        self.exe = self.engine.load(step, self.arena)
        self.unit = self.engine.unit(step, self.arena)
        plan_unit(self.unit)

    def spoil(self):
        """Writes NaN to all of the arena but to what no kernel writes of the gradients."""
        (packed,) = (node for node in self.unit.graph.nodes() if node.prim == "pack")
        gap = np.ones(packed.type.size, bool)
        for start, part in zip(packed.attr("offsets"), packed.src, strict=True):
            gap[start : start + part.type.size] = False
        assert gap.any()
        memory = np.full(self.unit.memory.arena_bytes // 4, np.nan, np.float32)
        start = self.unit.memory.places[self.unit.plan.storage[packed].buffer].offset // 4
        memory[start : start + len(gap)][gap] = 0
        if isinstance(self.exe, CpuExecutable):
            self.exe.slot(ARENA)[:] = memory.view(np.uint8)
        else:
            self.exe.blocks[ARENA].write(0, memory.tobytes())

    def run(self, nan=False):
        """Returns losses and weights of two steps from the same weights; with `nan`, of NaN."""
        rng, found = np.random.default_rng(5), {}
        for key, info in self.graph.params.items():
            self.exe.write(key, rng.normal(0, 0.3, info.shape))
        for name, state in self.unit.graph.states.items():  # momentum, and what a sequence leaves
            self.exe.write(name, np.zeros(state.shape))
        for i in range(2):
            for name, node in self.graph.inputs.items():
                value = (
                    rng.normal(size=node.shape)
                    if name == "data"
                    else rng.integers(0, 2, node.shape)
                )
                self.exe.write(name, np.full(node.shape, np.nan) if nan else value)
            self.exe.write("iteration", i)
            self.exe.write("lr", 0.05)
            self.exe.run()
            found[f"loss {i}"] = self.exe.read("loss")
        return found | {key: self.exe.read(key) for key in self.graph.params}


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda one: one[0])
@pytest.mark.parametrize("spec", [SGD, CLIPPED], ids=["sgd", "clipped"])
@pytest.mark.parametrize("text", [NET, DEEP, LOOP], ids=["net", "deep", "loop"])
def test_what_lay_in_the_arena_does_not_matter(text, spec, backend):
    trained = Trained(backend, text, spec)
    clean = trained.run()
    assert_near(clean, Trained(("reference", None), text, spec).run())
    trained.spoil()
    spoiled = trained.run()
    assert np.isnan(trained.run(nan=True)["loss 1"]).all()
    after = trained.run()
    trained.engine.close()
    for name, array in clean.items():
        np.testing.assert_array_equal(spoiled[name], array, err_msg=name)
        np.testing.assert_array_equal(after[name], array, err_msg=name)
