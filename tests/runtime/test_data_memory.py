"""MemoryData: arrays from the caller through the public API, transformed as the layer says."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

import netdef
from netdef.cli import cli
from tests.runtime.data_files import images

ITEMS = images(4, 3, 6, 8)
LABELS = np.array([0, 2, 1, 2])
NET = """\
layers:
- {{name: data, type: MemoryData, top: [data, label], batch_size: 4, channels: 3, {fields}}}
- {{name: copy, type: Power, bottom: data}}
- {{name: ip, type: InnerProduct, bottom: data, num_output: 3, weight_filler: xavier}}
- {{name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}}
"""


def loaded(fields, phase="TEST", **options):
    text = NET.format(fields=fields)
    return netdef.load(text=text, format="yaml", phase=phase, backend="reference", **options)


def test_arrays_are_taken_as_they_are():
    net = loaded("height: 6, width: 8")
    assert net.inputs == {"data": (4, 3, 6, 8), "label": (4,)}
    out = net.forward(data=ITEMS, label=LABELS)
    assert np.array_equal(out["copy"], ITEMS) and out["loss"].shape == ()
    assert np.array_equal(net.forward()["copy"], ITEMS)  # they stay until others are given
    more = np.concatenate([ITEMS, ITEMS[:1]])
    assert net.forward(data=more, label=np.zeros(5))["copy"].shape == (5, 3, 6, 8)
    net.backward()
    assert net.grads["ip"]["weight"].shape == (3, 144)


def test_the_layers_transform():
    net = loaded("height: 4, width: 4, crop_size: 4, mean_value: [1, 2, 3], scale: 0.5")
    want = (ITEMS[:, :, 1:5, 2:6] - np.array([1.0, 2, 3]).reshape(3, 1, 1)) * 0.5
    assert np.array_equal(net.forward(data=ITEMS, label=LABELS)["copy"], want)
    raw = loaded("height: 4, width: 4, crop_size: 4, scale: 0.5", deploy=True)
    part = ITEMS[:, :, :4, :4]
    assert np.array_equal(raw.forward(data=part)["copy"], part)  # a net for use: as it is


def test_crops_are_new_each_time_in_training_and_backward_uses_the_last():
    net = loaded("height: 4, width: 4, crop_size: 4, mirror: true", "TRAIN")
    first, second = (net.forward(data=ITEMS, label=LABELS)["copy"] for _ in range(2))
    assert first.shape == second.shape == (4, 3, 4, 4) and not np.array_equal(first, second)
    net.backward()
    assert np.array_equal(net._last[1]["data"], second)
    again = loaded("height: 4, width: 4, crop_size: 4, mirror: true", "TRAIN")
    assert np.array_equal(again.forward(data=ITEMS, label=LABELS)["copy"], first)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("height: 4, width: 5, crop_size: 4", "crop_size 4 is not the height and width"),
        ("height: 4, width: 4, mean_value: 1, mean_file: m.npy", "mean_file and mean_value are"),
        ("height: 4, width: 4, force_color: true, force_gray: true", "force_gray are both true"),
    ],
)
def test_contradictions(fields, message):
    with pytest.raises(netdef.NetError, match=message):
        loaded(fields)


def test_without_data_there_is_no_run(tmp_path):
    net = loaded("height: 6, width: 8")
    with pytest.raises(
        netdef.NetError, match=r"2:3: .*'data' \(MemoryData\): nobody gives it data"
    ):
        net.forward()
    solver = solver_of(tmp_path, "Memory")
    for run in (lambda: solver.step(1), solver.test):
        with pytest.raises(netdef.NetError, match=r"2:3: (.|\n)*set_input_arrays(.|\n)*test_nets"):
            run()
    assert solver.iteration == 0
    command = ["train", str(tmp_path / "solver.yaml"), "--run-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, [*command, "--backend", "reference"])
    assert result.exit_code and "nobody gives it data" in result.stderr and ".npz" in result.stderr
    assert not (tmp_path / "run").exists()


def solver_of(path, kind, fields="height: 4, width: 4, crop_size: 4, mirror: true", **options):
    """Returns a solver whose training and test net read arrays (Memory) or an .npz file (Npz)."""
    text = NET.format(fields=fields).replace("batch_size: 4", "batch_size: 2")
    if kind == "Npz":
        np.savez(path / "items.npz", data=ITEMS, label=LABELS)
        text = text.replace("type: MemoryData", "type: Data, source: items.npz")
        text = text.replace("channels: 3, height: 4, width: 4, ", "")
    (path / "net.yaml").write_text(text)
    (path / "solver.yaml").write_text(
        "{net: net.yaml, base_lr: 0.01, momentum: 0.9, max_iter: 9, test_iter: 3,"
        " test_interval: 100, random_seed: 3, snapshot_prefix: here}"
    )
    return netdef.Solver(path / "solver.yaml", **{"backend": "reference", **options})


def given(solver):
    solver.net.set_input_arrays(ITEMS, LABELS)
    for net in solver.test_nets:
        net.set_input_arrays(ITEMS[::-1], LABELS[::-1].reshape(4, 1, 1, 1))
    return solver


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_solver_reads_the_arrays_as_it_reads_a_data_set(tmp_path, backend):
    memory = given(solver_of(tmp_path, "Memory", backend=backend))
    npz = solver_of(tmp_path, "Npz", backend=backend)
    memory.test_nets[0].set_input_arrays(ITEMS, LABELS)
    for solver in (memory, npz):
        solver.step(5)  # batches of 2 of 4 items: it begins again, with other crops
    for key, value in npz.weights().items():
        assert np.array_equal(memory.weights()[key], value)
    assert memory.test() == npz.test()
    assert memory.test_nets[0] is memory.test_nets[0]


@pytest.mark.parametrize("early", [True, False], ids=["set_then_restore", "restore_then_set"])
def test_a_run_goes_on_with_the_same_arrays(tmp_path, early):
    whole = given(solver_of(tmp_path, "Memory"))
    whole.step(3)
    whole.snapshot(tmp_path / "at3")
    outputs = []
    again = solver_of(tmp_path, "Memory")
    if early:
        given(again)
    again.restore(tmp_path / "at3")
    if not early:
        given(again)
    for solver in (whole, again):
        solver.step(4)
        outputs.append(solver.test())
    assert outputs[0] == outputs[1]
    for key, value in whole.weights().items():
        assert np.array_equal(again.weights()[key], value)


def test_what_is_set_between_steps_is_what_the_next_step_reads(tmp_path):
    one, other = (given(solver_of(tmp_path, "Memory")) for _ in range(2))
    for solver in (one, other):
        solver.step(2)
    other.net.set_input_arrays(-ITEMS, LABELS)
    for solver in (one, other):
        solver.step(1)
    assert not np.array_equal(one.weights()["ip/weight"], other.weights()["ip/weight"])


def test_a_net_alone_reads_them_batch_by_batch():
    net = loaded("height: 6, width: 8, scale: 2")
    net.forward(data=ITEMS + 1, label=LABELS)
    items = np.concatenate([ITEMS, ITEMS + 3]).astype(np.uint8)
    net.set_input_arrays(items, np.tile(LABELS, 2))
    for part in (items[:4], items[4:], items[:4]):
        assert np.array_equal(net.forward()["copy"], part.astype(np.float32) * 2)
    alone = NET.format(fields="height: 6, width: 8").replace("[data, label]", "data")
    alone = "".join(line for line in alone.splitlines(True) if "loss" not in line)
    net = netdef.load(text=alone, format="yaml", backend="reference")
    net.set_input_arrays(ITEMS)
    assert np.array_equal(net.forward()["copy"], ITEMS)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (np.zeros((6, 3, 6, 8)), np.zeros(6), "6 items are no multiple of batch_size 4(.|\n)*4 it"),
        (np.zeros((3, 3, 6, 8)), np.zeros(3), "3 items are no multiple of batch_size 4(.|\n)*4 it"),
        (np.zeros((0, 3, 6, 8)), np.zeros(0), r"data \(0, 3, 6, 8\) for layer 'data'"),
        (np.zeros((4, 3, 8, 6)), np.zeros(4), r"data \(4, 3, 8, 6\) for layer 'data'"),
        (np.zeros((4, 144)), np.zeros(4), r"data is \(n, 3, 6, 8\)"),
        (np.zeros(()), np.zeros(4), r"data is \(n, 3, 6, 8\)"),
        (np.zeros((4, 3, 6, 8)), np.zeros((4, 3)), r"labels \(4, 3\) for 4 items"),
        (np.zeros((4, 3, 6, 8)), np.zeros(3), r"labels \(3,\) for 4 items"),
        (np.zeros((4, 3, 6, 8)), np.full(4, 3), "labels go from 3 to 3, but 'ip' has scores of 3"),
        (np.zeros((4, 3, 6, 8)), None, "give data and labels"),
        (np.array(["a"] * 4), np.zeros(4), "'data' must be an array of numbers"),
    ],
)
def test_arrays_that_do_not_fit(data, labels, message):
    net = loaded("height: 6, width: 8")
    with pytest.raises(netdef.NetError, match=message):
        net.set_input_arrays(data, labels)
    with pytest.raises(netdef.NetError, match="nobody gives it data"):
        net.forward()


def test_only_a_net_with_memory_data_has_input_arrays():
    net = loaded("height: 6, width: 8", deploy=True)
    with pytest.raises(netdef.NetError, match="0 MemoryData layers"):
        net.set_input_arrays(ITEMS, LABELS)


def test_items_that_do_not_fit():
    net = loaded("height: 4, width: 4, crop_size: 4")
    with pytest.raises(netdef.NetError, match="crop_size 4 does not fit into 3 x 3 pixels"):
        net.forward(data=ITEMS[:, :, :3, :3], label=LABELS)
    with pytest.raises(netdef.NetError, match=r"input 'data' has shape \(4, 3, 4, 4\), not"):
        net.forward(data=ITEMS[:, :1], label=LABELS)
