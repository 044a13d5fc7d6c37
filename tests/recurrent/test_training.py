"""Recurrent nets in training: carried states in snapshots, not in weights; Caffe's solver states."""

from __future__ import annotations

import numpy as np
import pytest

import netdef
from netdef.evaluating import evaluate
from runtime.snapshot import read_snapshot

NET = """
name: adder
layers:
- {name: data, type: AddingData, top: [x, sum], batch_size: 8, steps: 6}
- {name: lstm, type: LSTM, bottom: x, num_output: 5, weight_filler: xavier}
- {name: answer, type: InnerProduct, axis: 2, num_output: 1, weight_filler: xavier}
- {name: parts, type: Slice, axis: 0, slice_point: 5, bottom: answer, top: [early, late]}
- {name: quiet, type: Silence, bottom: early, top: []}
- {name: last, type: Reshape, bottom: late, shape: [-1, 1]}
- {name: loss, type: EuclideanLoss, bottom: [last, sum]}
"""
SOLVER = """
net: net.yaml
type: Adam
momentum: 0.9
base_lr: 0.01
max_iter: 8
test_interval: 4
test_iter: 2
random_seed: 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.yaml").write_text(NET)
    (tmp_path / "solver.yaml").write_text(SOLVER)
    return tmp_path


def solver_in(folder):
    return netdef.Solver(folder / "solver.yaml", backend="reference")


def test_a_resumed_run_is_the_same_run(folder):
    whole = solver_in(folder)
    whole.step(8)
    first = solver_in(folder)
    first.step(5)
    second = solver_in(folder)
    second.restore(first.snapshot(folder / "five"))
    second.step(3)
    for key, value in whole.weights().items():
        np.testing.assert_array_equal(second.weights()[key], value)
    for key, value in whole.net.state.items():
        np.testing.assert_array_equal(second.net.state[key], value)
    assert second.test() == whole.test()  # the test net too goes on where it stood


def test_the_states_of_a_run_are_no_weights(folder):
    solver = solver_in(folder)
    solver.step(5)
    path = solver.snapshot(folder / "five")
    held = read_snapshot(path).tensors
    assert {"history:lstm/h", "history:test0/lstm/h@TEST"} <= set(held)
    net = netdef.load(folder / "net.yaml", backend="reference")
    assert net.load_weights(path.with_suffix(".safetensors")) == []
    assert not net.state["lstm/h"].any()
    assert evaluate(net, 2)["loss"] > 0
