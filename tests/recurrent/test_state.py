"""The state between batches: carried, reset, in snapshots, apart in training and test nets."""

from __future__ import annotations

import numpy as np
import pytest

import netdef
from netdef.engine import open_engine
from netdef.formats import read_net
from netdef.net import Net, states
from tests.recurrent.nets import CELLS, cell, elman, load, numbers

# Rows of a data set as sequences of three: 18 rows are T = 6 (a loop), 6 are T = 2 (written out).
TRAINED = """
layers:
- {name: data, type: Data, top: [data, label], source: d.npz, batch_size: 18, phase: TRAIN}
- {name: data, type: Data, top: [data, label], source: d.npz, batch_size: 6, phase: TEST}
- {name: x, type: Reshape, bottom: data, shape: [-1, 3, 4]}
- {name: marks, type: Reshape, bottom: label, shape: [-1, 3]}
CELL
- {name: y, type: InnerProduct, bottom: h, axis: 2, num_output: 3, weight_filler: xavier}
- {name: loss, type: SoftmaxWithLoss, bottom: [y, marks], axis: 2}
"""
LSTM = "- {name: h, type: LSTM, bottom: x, num_output: 5, weight_filler: xavier}"
RULE = {
    **{"net": "net.yaml", "base_lr": 0.2, "momentum": 0.9, "max_iter": 6, "random_seed": 2},
    **{"test_iter": 3, "snapshot_after_train": "false", "test_interval": 100},
}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes solvers of the trained net, with other fields, in a folder with its data."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    data = rng.standard_normal((90, 4, 1, 1)).astype(np.float32)
    np.savez("d.npz", data=data, label=rng.integers(0, 3, 90))
    made = []

    def build(layers=LSTM, **fields):
        (tmp_path / "net.yaml").write_text(TRAINED.replace("CELL", layers.strip()))
        rule = "".join(f"{key}: {value}\n" for key, value in {**RULE, **fields}.items())
        (tmp_path / "solver.yaml").write_text(rule)
        made.append(netdef.Solver("solver.yaml", backend="cpu"))
        return made[-1]

    yield build
    for solver in made:
        solver.close()


def everything(solver):
    """Returns the weights and the states of a training net."""
    return {**solver.weights(), **states(solver._train)}


def assert_same(found, want):
    assert found.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("kind", CELLS)
def test_step_by_step_is_the_same_as_at_once(kind):
    x = numbers((3, 3, 4))
    net = load(cell(kind, 3))
    whole = net.forward(x=x)["h"]
    left = net.state
    net.reset_state()
    steps = [net.forward(x=x[t : t + 1])["h"] for t in range(3)]
    np.testing.assert_allclose(np.concatenate(steps), whole, atol=2e-6)
    for key, value in net.state.items():
        np.testing.assert_allclose(value, left[key], atol=2e-6)


def test_reset_state_begins_anew():
    net = load(elman(initial=", initial: 0.5"))
    x = numbers((6, 3, 4))
    first = net.forward(x=x)["h"]
    assert np.abs(net.forward(x=x)["h"] - first).max() > 1e-3
    last = net.forward(x=x)["h"][-1]
    np.testing.assert_array_equal(net.state["h/h"][0], last)
    net.reset_state()
    np.testing.assert_array_equal(net.state["h/h"], np.full((1, 3, 5), 0.5, np.float32))
    np.testing.assert_array_equal(net.forward(x=x)["h"], first)


@pytest.mark.parametrize("kind", CELLS)
def test_backward_twice_is_the_same_and_leaves_the_state(kind):
    net = load(cell(kind))
    x = numbers((6, 3, 4))
    net.forward(x=x)
    h = net.forward(x=x)["h"]
    left = net.state
    found = [net.backward(h=np.ones(h.shape))["x"] for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert_same(net.state, left)


def test_two_nets_on_one_engine_have_states_of_their_own():
    text = elman().replace("num_output", "weight_filler: xavier, num_output")
    spec, engine = read_net(text=text, format="yaml"), open_engine("cpu")
    one, two = (Net(spec, engine=engine) for _ in range(2))
    x = numbers((6, 3, 4))
    first = one.forward(x=x)["h"]
    np.testing.assert_array_equal(two.state["h/h"], np.zeros((1, 3, 5)))
    np.testing.assert_array_equal(two.forward(x=x)["h"], first)
    assert np.abs(one.forward(x=x)["h"] - first).max() > 1e-6
    engine.close()


@pytest.mark.parametrize("kind", ["LSTM", "LSTM by hand"])
def test_a_resumed_run_is_bit_identical(make, tmp_path, kind):
    layers = CELLS[kind].replace("num_output", "weight_filler: xavier, num_output")
    whole = make(layers)
    whole.step(6)
    half = make(layers)
    half.step(3)
    path = half.snapshot(tmp_path / "half")
    again = make(layers)
    again.restore(path)
    again.step(3)
    assert any(np.abs(value).max() > 0 for value in states(again._train).values())
    assert_same(everything(again), everything(whole))


def test_tests_have_their_own_state_and_do_not_disturb_training(make):
    plain = make()
    plain.step(6)
    tested = make(test_interval=2)
    tested.step(6)
    assert_same(everything(tested), everything(plain))
    own = states(tested._tests[0])
    assert set(own) == {"h/h@TEST", "h/c@TEST"} and own["h/h@TEST"].shape == (1, 3, 5)
    assert tested.plan.train.blobs["h"].shape == (6, 3, 5)
    assert tested.plan.tests[0].blobs["h"].shape == (2, 3, 5)
    assert np.abs(own["h/h@TEST"] - states(tested._train)["h/h"]).max() > 1e-4


def test_the_parts_of_one_iteration_go_on_from_each_other(make):
    """With a rate of nothing, three batches in one iteration are three iterations."""
    parts = make(iter_size=3, base_lr=1e-30)
    parts.step(2)
    plain = make(base_lr=1e-30)
    plain.step(6)
    assert_same(states(parts._train), states(plain._train))


def test_a_solver_may_say_that_no_state_is_carried(make):
    solver = make(carry_state="false")
    solver.step(2)
    assert states(solver._train) == {}
    assert solver.net.state == {}
