"""`netdef train` on every kind of data set: learns, resumes in the middle of an epoch, mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtime.data.datum import datum
from tests.cli.conftest import SOLVER
from tests.runtime.data_files import encoded, write_hdf5, write_lmdb, write_pictures

COUNT, CLASSES = 21, 3  # batches of 8 and 5: passes end within a batch, snapshots within a pass
LABELS = np.arange(COUNT) % CLASSES
# A class is where the bright corner is.
PICTURES = np.random.default_rng(0).integers(0, 60, (COUNT, 3, 6, 6)).astype(np.uint8)
for _i, _label in enumerate(LABELS):
    PICTURES[_i, _label, :4, :4] += 150


def lmdb(folder):
    write_lmdb(folder / "set", [datum(p, int(i)) for p, i in zip(PICTURES, LABELS, strict=True)])
    return "data_param { source: 'set' batch_size: 8 backend: LMDB }"


def lmdb_floats(folder):
    items = PICTURES * 1.0
    write_lmdb(folder / "set", [datum(p, int(i)) for p, i in zip(items, LABELS, strict=True)])
    return "data_param { source: 'set' batch_size: 8 backend: LMDB scale: 0.5 }"


def lmdb_encoded(folder):
    pairs = zip(PICTURES, LABELS, strict=True)
    write_lmdb(folder / "set", [datum(encoded(p), int(i)) for p, i in pairs])
    return "data_param { source: 'set' batch_size: 8 backend: LMDB rand_skip: 5 }"


def image_list(folder):
    write_pictures(folder, PICTURES, LABELS)
    return "image_data_param { source: 'list.txt' batch_size: 5 shuffle: true }"


def windows(folder):
    write_pictures(folder, PICTURES, LABELS)
    lines = []
    for i, label in enumerate(LABELS):
        boxes = [f"{label} 0.8 0 0 5 5"] if label else ["1 0.1 0 0 5 5"]
        lines += [f"# {i}", f"p_{i}.png", "3 6 6", str(len(boxes)), *boxes]
        (folder / f"p {i}.png").rename(folder / f"p_{i}.png")
    (folder / "windows.txt").write_text("\n".join(lines))
    return "window_data_param { source: 'windows.txt' batch_size: 8 fg_fraction: 0.6 }"


def hdf5(folder):
    parts = [{"data": PICTURES[s] / 255.0, "label": LABELS[s]} for s in (slice(9), slice(9, None))]
    write_hdf5(folder, *parts)
    return "hdf5_data_param { source: 'list.txt' batch_size: 8 shuffle: true }"


TRANSFORM = "transform_param { crop_size: 4 mirror: true mean_value: 60 }"
SETS = {
    "lmdb": ("Data", lmdb, TRANSFORM),
    "lmdb floats": ("Data", lmdb_floats, TRANSFORM),
    "lmdb pictures": ("Data", lmdb_encoded, TRANSFORM),
    "pictures": ("ImageData", image_list, TRANSFORM),
    "windows": ("WindowData", windows, TRANSFORM),
    "hdf5": ("HDF5Data", hdf5, ""),
}


@pytest.fixture(params=SETS)
def trained(request, tmp_path, monkeypatch):
    """A folder with a data set, a net in prototxt that reads it, and a solver."""
    kind, make, transform = SETS[request.param]
    monkeypatch.chdir(tmp_path)
    scale = 0.02 if kind != "HDF5Data" else 1
    net = f"""\
name: "small"
layer {{ name: "data" type: "{kind}" top: "data" top: "label" {make(tmp_path)} {transform} }}
layer {{ name: "small" type: "Power" bottom: "data" top: "small" power_param {{ scale: {scale} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "small" top: "ip"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include {{ phase: TEST }} }}
"""
    (tmp_path / "net.prototxt").write_text(net)
    solver = SOLVER.replace("net.yaml", "net.prototxt").replace("base_lr: 0.1", "base_lr: 0.05")
    (tmp_path / "solver.yaml").write_text(solver)
    return tmp_path


def train(netdef, *words):
    result = netdef("train", "solver.yaml", "--backend", "reference", *words)
    assert result.exit_code == 0, result.stderr + result.output
    return result


def test_it_learns_and_resumes_bit_identically(trained, netdef):
    train(netdef, "--run-dir", "whole", "--set", "max_iter=40", "--set", "snapshot=20")
    for end in (1, 7):  # 5, 8, 35 or 56 items of 21: within a pass
        words = ["--set", "snapshot=0", "--set", f"max_iter={end}"]
        train(netdef, "--run-dir", f"parts{end}", *words)
        words = ["--resume", f"parts{end}", "--set", "max_iter=40", "--set", "snapshot=20"]
        train(netdef, *words)
        for name in ("snapshot_iter_20.safetensors", "snapshot_iter_40.safetensors"):
            one = (trained / "whole" / name).read_bytes()
            assert one == (trained / f"parts{end}" / name).read_bytes()
    words = ["--weights", "whole/snapshot_iter_40.safetensors", "--iterations", "21", "--json"]
    result = netdef("test", "net.prototxt", "--backend", "reference", *words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["outputs"]["accuracy"] > 0.9


@pytest.mark.parametrize("trained", ["lmdb", "pictures", "hdf5"], indirect=True)
def test_labels_without_a_class_are_refused(trained, netdef):
    words = ["--backend", "reference", "--run-dir", "run", "--set", "ip.num_output=2"]
    result = netdef("train", "solver.yaml", *words)
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert "labels go from 0 to 2, but 'ip' has scores of 2 classes" in result.stderr
    assert "net.prototxt:2:" in result.stderr


@pytest.mark.parametrize("trained", ["pictures"], indirect=True)
def test_a_picture_that_is_gone_ends_the_run_with_its_line(trained, netdef):
    (trained / "p 3.png").unlink()
    result = netdef("train", "solver.yaml", "--backend", "reference", "--run-dir", "run")
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert "list.txt:4:1: error: there is no file" in result.stderr
    assert "p 3.png 0\n" in result.stderr


@pytest.mark.parametrize("trained", ["lmdb"], indirect=True)
@pytest.mark.parametrize("backend", ["cpu"])
def test_on_the_cpu_backend(trained, netdef, backend):
    words = ["--backend", backend, "--threads", "1", "--set", "max_iter=6"]
    result = netdef("train", "solver.yaml", "--run-dir", "run", *words)
    assert result.exit_code == 0, result.stderr
