"""When Python layers are called, with what, and what they keep from call to call."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import Step, train_step
from compiler.pipeline import compile_unit
from compiler.unit import Unit
from runtime.calls import calls_of
from runtime.params import initialise
from runtime.python_modules import Surroundings
from schemas.errors import BackendError
from schemas.program_file import pack_program, unpack_program
from schemas.solver import SolverSpec
from tests.harness import NullBackend
from tests.python_layer.nets import BACKENDS, MODULE, engine_of, layer, net_of, spec_of

every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b[0])
X = "- {name: x, type: Input, shape: [2, 3]}\n"
BATCHES = layer("Digits", name="data", top=["data", "label"])
CLASSIFIER = """
- {name: ip, type: InnerProduct, bottom: data, num_output: 3, weight_filler: xavier}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""
FED = "- {name: data, type: Input, shape: [4, 1, 6, 6]}\n- {name: label, type: Input, shape: [4]}"


@pytest.fixture(autouse=True)
def calls():
    """What the layers note of their calls."""
    with Surroundings(None).active():
        noted: list[object] = importlib.import_module(MODULE).CALLS
    noted.clear()
    return noted


def batch(index: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    return {"data": rng.normal(size=(4, 1, 6, 6)), "label": rng.integers(0, 3, 4)}


@every_backend
def test_a_source_of_data_goes_on_with_each_forward_and_not_with_backward(backend):
    net, fed = net_of(BATCHES + CLASSIFIER, backend), net_of(FED + CLASSIFIER, backend)
    for index in range(3):
        got = net.forward(["data", "label"])
        for name, value in batch(index).items():
            np.testing.assert_allclose(got[name], value, rtol=1e-6)
        want = fed.forward(**batch(index))
        np.testing.assert_allclose(got["loss"], want["loss"], rtol=1e-5)
        for _ in range(2):
            net.backward()
            fed.backward()
            weight = fed.grads["ip"]["weight"]
            np.testing.assert_allclose(net.grads["ip"]["weight"], weight, rtol=0, atol=1e-5)
    net.close()
    fed.close()


def test_beside_a_filter_a_layer_is_made_and_called_once():
    net = net_of(BATCHES + "\n- {name: f, type: Filter, bottom: [data, label]}")
    for index in range(3):
        got, want = net.forward(["data"]), batch(index)
        np.testing.assert_allclose(got["data"], want["data"], rtol=1e-6)
        chosen = want["data"][want["label"] != 0]
        np.testing.assert_allclose(got["f"][: len(chosen)], chosen, rtol=1e-6)
        assert got["f"].shape == want["data"].shape and not got["f"][len(chosen) :].any()
    net.close()


def weights_after(text: str, backend, steps: int, feed: bool) -> dict[str, np.ndarray]:
    engine = engine_of(backend)
    graph = build(spec_of(text), "TRAIN")
    arena = plan_arena(graph)
    exe = engine.load(train_step(graph, arena, SolverSpec(momentum=0.9)), arena)
    initialise(exe, 1, graph.first)
    exe.write("lr", 0.1)
    for index in range(steps):
        for name, value in batch(index).items() if feed else ():
            exe.write(name, value)
        exe.run()
    found = {key: exe.read(key) for key in graph.params}
    engine.close()
    return found


@every_backend
def test_training_on_a_source_of_data(backend):
    got = weights_after(BATCHES + CLASSIFIER, backend, 4, feed=False)
    want = weights_after(FED + CLASSIFIER, backend, 4, feed=True)
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-5)


@every_backend
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_state_lives_from_call_to_call(backend, phase):
    net = net_of(layer("Count", name="count"), backend, phase)
    seen = [net.forward()["count"].tolist() for _ in range(3)]
    assert seen == [[n, phase == "TEST"] for n in (1, 2, 3)]
    net.close()


@every_backend
def test_calls_come_in_the_order_of_the_net_whoever_reads_them(backend, calls):
    sinks = [layer("Sink", name=n, bottom=[b], top=[], param_str=n) for n, b in ("bz", "ax", "cz")]
    times = layer("Times", name="z", bottom=["x"], param_str="10")
    net = net_of(X + "\n".join([times, *sinks, "- {type: Silence, name: s, bottom: z}"]), backend)
    for _ in range(2):
        assert net.forward(x=np.ones((2, 3))) == {}
    assert calls == [("b", "TRAIN", 60), ("a", "TRAIN", 6), ("c", "TRAIN", 60)] * 2
    net.close()


FORK = """\
- {name: x, type: Input, shape: [2, 3]}
- {name: y, type: Input, shape: [2, 4]}
- {name: a, type: InnerProduct, bottom: x, num_output: 4, weight_filler: xavier, param: %s}
%s
- {name: end, type: Reduction, operation: SUMSQ, bottom: %s, loss_weight: 1}
"""
LEARNED, FROZEN = "[]", "[{lr_mult: 0}, {lr_mult: 0}]"


@every_backend
@pytest.mark.parametrize(
    "bottoms, param, down",
    [
        (["a", "y"], LEARNED, [True, False]),
        (["y", "a"], LEARNED, [False, True]),
        (["a", "a"], LEARNED, [True, True]),
        (["a", "y"], FROZEN, None),
    ],
)
def test_gradients_are_asked_for_where_something_is_learned(backend, bottoms, param, down, calls):
    fork = layer("Butterfly", name="f", bottom=bottoms, top=["s", "d"])
    text = FORK % (param, fork, "s")
    graph = build(spec_of(text), "TRAIN")
    engine, arena = engine_of(backend), plan_arena(graph)
    learned = any(info.lr_mult for info in graph.params.values())
    step = train_step(graph, arena, SolverSpec()) if learned else Step(graph)
    exe = engine.load(step, arena)
    exe.run()
    assert calls == ([("butterfly", down)] if down else [])
    engine.close()


def test_net_backward_asks_for_the_gradients_of_all_inputs(calls):
    fork = layer("Butterfly", name="f", bottom=["a", "y"], top=["s", "d"])
    net = net_of(FORK % (LEARNED, fork, "d"))
    net.forward(x=np.ones((2, 3)), y=np.ones((2, 4)))
    net.backward()
    assert calls == [("butterfly", [True, True])]
    net.close()


@every_backend
def test_first_values_are_those_that_setup_gives(backend):
    net = net_of(
        "- {name: x, type: Input, shape: [1, 2, 1, 1]}\n" + layer("Affine", name="a"), backend
    )
    assert {k: v.tolist() for k, v in net.params["a"].items()} == {
        "blob0": [1, 1],
        "blob1": [0, 0],
    }
    net.params["a"]["blob1"] = np.array([5, 7])
    assert net.forward(x=np.zeros((1, 2, 1, 1)))["a"].ravel().tolist() == [5, 7]
    net.close()


@every_backend
def test_layers_compute_in_the_usual_mode_of_the_processor(backend):
    """The native step flushes denormal numbers to zero."""
    net = net_of(layer("Tiny", name="tiny"), backend)
    assert net.forward()["tiny"] == 64
    net.close()


def test_another_batch_size_sets_the_layer_up_again():
    net = net_of(X + layer("Times", name="y", param_str="2"))
    for rows in (2, 5, 2):
        assert (net.forward(x=np.ones((rows, 3)))["y"] == np.full((rows, 3), 2)).all()
    net.close()


def test_launches_hold_one_call_each():
    text = (
        X + layer("Times", name="y", param_str="2") + "\n" + layer("Times", name="z", param_str="3")
    )
    graph = build(spec_of(text), "TEST")
    unit = Unit(graph, plan_arena(graph), NullBackend())
    compile_unit(unit)
    kinds = [[kernel.kind for kernel in launch] for launch in unit.schedule.launches]
    assert sum(row == ["host"] for row in kinds) == 2
    assert not any("host" in row and len(row) > 1 for row in kinds)


def test_a_program_says_that_it_needs_its_layers():
    graph = build(spec_of(X + layer("Times", name="y", param_str="2")), "TEST")
    program = engine_of(("cpu", None)).compile(Step(graph), plan_arena(graph))
    assert program.python_layers == ("y",)
    again = unpack_program(pack_program(program), "x.ndp")
    assert again == program
    with pytest.raises(BackendError, match="needs its Python layers: 'y'") as error:
        calls_of(again, None)
    assert "allow_python_layers" in (error.value.hint or "")
