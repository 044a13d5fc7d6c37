"""MemoryData: arrays from the caller through the public API, transformed as the layer says."""

from __future__ import annotations

import numpy as np
import pytest

import netdef
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
    (tmp_path / "net.yaml").write_text(NET.format(fields="height: 6, width: 8"))
    (tmp_path / "solver.yaml").write_text("net: net.yaml\nbase_lr: 0.1\nmax_iter: 2\n")
    with pytest.raises(netdef.NetError, match="nobody gives it data(.|\n)*npz"):
        netdef.Solver(tmp_path / "solver.yaml", backend="reference")


def test_items_that_do_not_fit():
    net = loaded("height: 4, width: 4, crop_size: 4")
    with pytest.raises(netdef.NetError, match="crop_size 4 does not fit into 3 x 3 pixels"):
        net.forward(data=ITEMS[:, :, :3, :3], label=LABELS)
    with pytest.raises(netdef.NetError, match=r"input 'data' has shape \(4, 3, 4, 4\), not"):
        net.forward(data=ITEMS[:, :1], label=LABELS)
