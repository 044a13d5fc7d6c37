"""Loops over time: what is in them, what is not, how they grow with T, written out or not."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.backends import get_backend
from compiler.frontend.build import build
from compiler.kernels.kernel import load_axes
from compiler.kernels.kernel_text import render
from compiler.kernels.schedule import Loop
from compiler.lowering import launches
from compiler.lowering.traits import Traits
from compiler.passes.arena import plan_arena
from compiler.passes.update import Step, train_step
from compiler.pipeline import compile_unit
from compiler.unit import Unit
from netdef.formats import read_net
from netdef.net import backward_step
from schemas.solver import SolverSpec
from tests.harness import CPU_LIKE, assert_close, compiled_unit, run_both
from tests.recurrent.nets import CELLS, cell, load, numbers
from tests.strategies import cycles

TRAINED = """\
- {name: label, type: Input, shape: [STEPS, 3]}
- {name: y, type: InnerProduct, bottom: h, axis: 2, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [y, label], axis: 2}
"""
# One more time step takes so many numbers of the arena for each output of an LSTM and sequence, and
# one for each input: see docs/recurrence.md.
STEP = {"forward": 6, "backward": 14}


def step_of(kind, what, steps=6, text=None):
    """Returns a forward pass, a backward pass from dh, or a training step of one cell."""
    text = text or cell(kind, steps)
    text += TRAINED.replace("STEPS", str(steps)) if what == "training" else ""
    graph = build(read_net(text=text, format="yaml"), "TRAIN" if what == "training" else "TEST")
    arena = plan_arena(graph)
    if what == "training":
        return train_step(graph, arena, SolverSpec(momentum=0.9)), arena
    return (Step(graph) if what == "forward" else backward_step(graph, arena, ("h",))), arena


def canonical(kernel):
    """Returns a kernel's text with its buffers and axes named by their first appearance."""
    names = dict.fromkeys(n for n in _names(kernel) if n != "params")
    text = render(kernel).partition(" ")[2]
    for i, name in enumerate(names):
        text = re.sub(rf"(?<![\w./@~]){re.escape(name)}(?=\[)", f"buffer{i}", text)
    axes = dict.fromkeys(re.findall(r"(\w+)<\d+", text))
    for i, name in enumerate(axes):
        text = re.sub(rf"\b{name}\b", f"axis{i}", text)
    return text


def _names(kernel):
    return re.findall(r"([\w./~'@]+)\[", render(kernel).partition(" ")[2].partition("]")[2])


def shape_of(unit):
    """Returns for each launch whether it is a loop, and its kernels up to names."""
    return [
        (isinstance(launch, Loop), Counter(canonical(kernel) for kernel in launch))
        for launch in unit.schedule.launches
    ]


@pytest.mark.parametrize("what", ["forward", "backward"])
def test_an_lstm_by_hand_is_the_same_kernels(what):
    layer, by_hand = (shape_of(compiled_unit(*step_of(k, what))) for k in ("LSTM", "LSTM by hand"))
    assert by_hand == layer


def test_an_lstm_by_hand_is_the_same_numbers():
    x = numbers((6, 3, 4))
    found = []
    for kind in ("LSTM", "LSTM by hand"):
        net = load(cell(kind))
        blobs = [value for own in net.params.values() for value in own.values()]
        keys = [(layer, name) for layer, own in net.params.items() for name in own]
        assert [np.shape(b) for b in blobs] == [(20, 4), (20,), (20, 5)]
        for seed, (layer, name) in enumerate(keys):
            net.params[layer][name] = numbers(np.shape(net.params[layer][name]), seed) * 0.5
        h = net.forward(x=x)["h"]
        dx = net.backward(h=np.ones(h.shape))["x"]
        grads = [np.array(net.grads[layer][name]) for layer, name in keys]
        found.append([h, dx, *grads])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(params=[0, 100], ids=["loop", "written out"])
def limit(request, monkeypatch):
    monkeypatch.setattr(launches, "WRITTEN_OUT", request.param)
    return request.param


@pytest.mark.parametrize("what", ["forward", "backward", "training"])
@pytest.mark.parametrize("kind", CELLS)
def test_both_strategies_agree_with_the_graph(kind, what, limit):
    step, arena = step_of(kind, what)
    run = run_both(step, arena)
    assert any(isinstance(launch, Loop) for launch in run.unit.schedule.launches) == (limit == 0)
    assert_close(run, rtol=1e-5)


GPU_LIKE = Traits(parallel=64, last_adds=True, wide_epilogues=True, prologue=8, rows=(2,))


@settings(max_examples=30, deadline=None)
@given(cycles(), st.sampled_from([CPU_LIKE, GPU_LIKE]), st.booleans())
def test_random_cycles_run_as_unfused(text, traits, training):
    graph = build(read_net(text=text, format="yaml"), "TRAIN" if training else "TEST")
    arena = plan_arena(graph)
    step = train_step(graph, arena, SolverSpec(momentum=0.9)) if training else Step(graph)
    assert_close(run_both(step, arena, traits), rtol=2e-4)


@pytest.mark.parametrize("kind", CELLS)
def test_both_strategies_agree_on_the_cpu(kind, monkeypatch):
    x = numbers((6, 3, 4))
    found = []
    for few in (0, 100):
        monkeypatch.setattr(launches, "WRITTEN_OUT", few)
        net = load(cell(kind))
        net.forward(x=x)
        h = net.forward(x=x)["h"]
        dx = net.backward(h=np.ones(h.shape))["x"]
        grads = [np.array(v) for own in net.grads.values() for v in own.values()]
        found.append([h, dx, *grads, *net.state.values()])
    for one, other in zip(*found, strict=True):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, atol=1e-5 * scale)


def contractions(unit):
    """Returns how many contractions each loop has, and how many there are outside of loops."""
    inside, outside = [], 0
    for launch in unit.schedule.launches:
        count = sum(kernel.kind == "contract" for kernel in launch)
        if isinstance(launch, Loop):
            inside.append(count)
        else:
            outside += count
    return inside, outside


@pytest.mark.parametrize("kind", ["LSTM", "LSTM by hand"])
def test_what_is_not_recurrent_is_outside_of_the_loop(kind):
    assert contractions(compiled_unit(*step_of(kind, "forward"))) == ([1], 1)
    # The gradients of both weights and of x, and the product with x: once, over all steps.
    assert contractions(compiled_unit(*step_of(kind, "backward"))) == ([1, 1], 4)


def cpu_unit(kind, what, steps, text=None):
    step, arena = step_of(kind, what, steps, text)
    unit = Unit(step.graph, arena, get_backend("cpu"), step.names, step.tables)
    compile_unit(unit)
    return unit


def in_loops(unit):
    """Returns for each kernel of a loop the length of its code."""
    loops = [launch for launch in unit.schedule.launches if isinstance(launch, Loop)]
    return [{k.name: len(unit.compiled.text[f"{k.name}.ll"]) for k in loop} for loop in loops]


@pytest.mark.parametrize("what", ["forward", "training"])
@pytest.mark.parametrize("kind", CELLS)
def test_more_steps_are_no_larger_a_program(kind, what):
    """Loops are the same from ten steps on; what is outside goes over T*N rows like any batch."""
    units = [cpu_unit(kind, what, steps) for steps in (10, 1000, 10_000)]
    ten, few, many = map(in_loops, units)
    assert ten == few == many != []
    kernels, launches, code = zip(*map(size_of, units), strict=True)
    assert len(set(kernels)) == len(set(launches)) == 1
    assert max(code) <= 1.1 * code[0]


def test_more_steps_split_no_more_sums():
    """Sums over all steps, of a size for which the cpu backend splits long ones."""
    text = cell("LSTM", 10).replace("3, 4]", "50, 32]").replace("num_output: 5", "num_output: 64")
    found = []
    for steps in (10, 1000):
        step, arena = step_of("LSTM", "backward", steps, text.replace("[10,", f"[{steps},"))
        made = compiled_unit(step, arena, get_backend("cpu").traits).schedule
        found.append([kernel.name for kernel in made.kernels()])
    assert found[0] == found[1]


def size_of(unit):
    """Returns how many kernels and launches a program has, and the length of its code."""
    made = unit.schedule
    return len(made.kernels()), len(made.launches), sum(map(len, unit.compiled.text.values()))


@pytest.mark.parametrize("what", STEP)
@pytest.mark.parametrize("batch, size", [(3, 5), (4, 8), (1, 16)])
def test_the_memory_of_an_lstm_grows_by_a_constant_a_step(what, batch, size):
    text = (
        cell("LSTM", 6)
        .replace("3, 4]", f"{batch}, 4]")
        .replace("num_output: 5", "num_output: SIZE")
    )
    text = text.replace("SIZE", str(size))
    bytes_at = {}
    for steps in (640, 1280, 1920):
        step, arena = step_of("LSTM", what, steps, text.replace("[6,", f"[{steps},"))
        bytes_at[steps] = compiled_unit(step, arena).memory.arena_bytes
    more = [bytes_at[b] - bytes_at[a] for a, b in ((640, 1280), (1280, 1920))]
    assert more == [640 * 4 * batch * (STEP[what] * size + 4)] * 2


def test_turned_weights_of_a_loop_have_memory_of_their_own():
    """The loop's weight and the output layer's, of another size, are both copied turned."""
    text = """
layers:
- {name: x, type: Input, shape: [6, 2, 8]}
- {name: label, type: Input, shape: [6, 2]}
- {name: l1, type: LSTM, bottom: x, num_output: 8}
- {name: ip, type: InnerProduct, axis: 2, num_output: 65}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label], axis: 2}
"""
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    assert_close(run_both(train_step(graph, arena, SolverSpec()), arena))


@pytest.mark.parametrize("kind, size", [("LSTM", 24), ("LSTM", 96), ("GRU", 64), ("RNN", 64)])
def test_weights_that_all_steps_read_lie_panel_by_panel(kind, size):
    text = cell(kind).replace("num_output: 5", f"num_output: {size}")
    unit = cpu_unit(kind, "forward", 6, text)
    (loop,) = (launch for launch in unit.schedule.launches if isinstance(launch, Loop))
    reads = {a.name for k in loop if k.kind == "contract" for x in k.loads() for a in load_axes(x)}
    assert "panel" in reads
    results = []
    for backend in ("cpu", "reference"):
        net = load(text, backend)
        h = net.forward(x=numbers((6, 3, 4)))["h"]
        dx = net.backward(h=np.ones(h.shape))["x"]
        results.append([h, dx, *(np.array(v) for own in net.grads.values() for v in own.values())])
    for one, other in zip(*results, strict=True):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, atol=1e-5 * scale)
