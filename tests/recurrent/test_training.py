"""Recurrent nets in training: carried states, snapshots, lengths, perplexity."""

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


MASKED = """
layers:
- {name: data, type: Data, top: [items, length], source: set.npz, batch_size: 3}
- {name: x, type: Permute, bottom: items, order: [1, 0, 2]}
- {name: masked, type: SequenceMask, bottom: [x, length]}
"""


@pytest.mark.parametrize(("longest", "fits"), [(5, True), (6, False)])
def test_a_length_beyond_the_sequence_is_a_located_error(tmp_path, longest, fits):
    items = np.ones((3, 5, 2, 1, 1), np.float32)
    np.savez(tmp_path / "set.npz", data=items, label=np.array([0, 2, longest]))
    (tmp_path / "net.yaml").write_text(MASKED)
    net = netdef.load(tmp_path / "net.yaml", backend="reference")
    if fits:
        found = net.forward()["masked"].reshape(5, 3, 2)[..., 0]
        assert found.sum(axis=0).tolist() == [0, 2, 5]
        return
    with pytest.raises(netdef.NetError) as caught:
        net.forward()
    text = str(caught.value)
    assert "net.yaml:3:3" in text and "its lengths go from 0 to 6" in text
    assert "a sequence has 5 steps (layer 'masked')" in text


def test_masked_labels_do_not_count(tmp_path):
    """fill: -1 and ignore_label: -1: the loss is that of the steps within the lengths."""
    text = """
layers:
- {name: scores, type: Input, shape: [4, 2, 3]}
- {name: label, type: Input, shape: [4, 2]}
- {name: length, type: Input, shape: [2]}
- {name: masked, type: SequenceMask, bottom: [label, length], fill: -1}
- {name: loss, type: SoftmaxWithLoss, axis: 2, bottom: [scores, masked], ignore_label: -1}
"""
    net = netdef.load(text=text, format="yaml", backend="cpu")
    rng = np.random.default_rng(0)
    scores, label = rng.normal(size=(4, 2, 3)), rng.integers(0, 3, (4, 2))
    loss = net.forward(scores=scores, label=label, length=np.array([3, 1]))["loss"]
    log_p = scores - np.log(np.exp(scores).sum(axis=2, keepdims=True))
    steps = [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert loss == pytest.approx(-np.mean([log_p[t, n, label[t, n]] for t, n in steps]), rel=1e-5)


def test_too_few_classes_for_text_is_a_located_error():
    text = """
layers:
- {name: data, type: TextData, top: [data, label], batch_size: 2, steps: 3}
- {name: embed, type: Embed, bottom: data, input_dim: 98, num_output: 50}
- {name: loss, type: SoftmaxWithLoss, axis: 2, bottom: [embed, label]}
"""
    net = netdef.load(text=text, format="yaml", backend="reference")
    with pytest.raises(netdef.NetError, match="from 0 to 97, but 'embed' has scores of 50 classes"):
        net.forward()


TEXT_NET = """
name: chars
unroll: 6
layers:
- {name: data, type: TextData, top: [data, label, begins], batch_size: 4}
- {name: embed, type: Embed, bottom: data, input_dim: 98, num_output: 98, weight_filler: xavier}
- {name: lstm, type: LSTM, bottom: [embed, begins], num_output: 8, weight_filler: xavier}
- {name: scores, type: InnerProduct, axis: 2, num_output: 98, weight_filler: xavier}
- {name: loss, type: SoftmaxWithLoss, axis: 2, bottom: [scores, label]}
"""


def test_tests_of_a_net_of_text_tell_its_perplexity(folder):
    (folder / "net.yaml").write_text(TEXT_NET)
    solver = solver_in(folder)
    solver.step(2)
    found = solver.test()
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    assert solver.plan.train.inputs["data"].shape == (6, 4)  # steps: the net's unroll
    (folder / "net.yaml").write_text(NET)
    assert set(solver_in(folder).test()) == {"loss"}
