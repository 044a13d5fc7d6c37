"""Weights and solver states of Caffe's: loaded by layer, resumed to the same trajectory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import netdef
from runtime.caffe_files import LayerWeights, SolverState, caffemodel, read_caffemodel, solverstate
from runtime.caffe_hdf5 import solverstate_hdf5
from runtime.params import HISTORY
from schemas.errors import NetError, SnapshotError, SourceError

NET = """
name: small
layers:
- {name: data, type: DummyData, top: [data, label], shape: [[4, 1, 6, 6], [4]],
   data_filler: [{type: uniform}, {type: constant, value: 1}]}
- {name: conv, type: Convolution, bottom: data, num_output: 3, kernel_size: 3,
   weight_filler: xavier, param: [{name: shared}, {lr_mult: 2}]}
- {name: again, type: Convolution, bottom: data, num_output: 3, kernel_size: 3,
   param: [{name: shared}, {lr_mult: 0}]}
- {name: sum, type: Eltwise, bottom: [conv, again]}
- {name: ip, type: InnerProduct, num_output: 5, weight_filler: xavier}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""
KEYS = ("shared", "conv/bias", "again/bias", "ip/weight", "ip/bias")  # Caffe's order
SOLVERS = {
    "SGD": "base_lr: 0.1\nmomentum: 0.9\n",
    "Nesterov": "type: Nesterov\nbase_lr: 0.1\nmomentum: 0.9\n",
    "RMSProp": "type: RMSProp\nbase_lr: 0.01\n",
    "AdaDelta": "type: AdaDelta\nbase_lr: 1\nmomentum: 0.9\ndelta: 1e-6\n",
    "Adam": "type: Adam\nbase_lr: 0.01\nmomentum: 0.9\niter_size: 2\n",
    "plain": "base_lr: 0.1\n",
}


def solver(tmp_path: Path, kind: str, more: str = "") -> netdef.Solver:
    (tmp_path / "net.yaml").write_text(NET)
    path = tmp_path / f"{kind}.yaml"
    path.write_text(f"net: net.yaml\nmax_iter: 9\nrandom_seed: 3\n{SOLVERS[kind]}{more}")
    return netdef.Solver(path, backend="reference")


def histories(one: netdef.Solver) -> list[np.ndarray]:
    """Returns what Caffe would write: a blob for each weight, one solver state after another."""
    found = []
    program = one.program
    for name, block in one._loop.blobs.read().items():
        if name.startswith(HISTORY):
            for key in KEYS:
                t = program.tensors[key]
                flat = np.ascontiguousarray(block, np.float32)
                steps = tuple(4 * s for s in t.strides)
                view = np.ndarray(t.view, np.float32, flat.data, t.offset, steps)
                found.append(view.reshape(t.shape).copy())
    return found or [np.zeros_like(one._train.read(key)) for key in KEYS]


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("end", ["", ".h5"])
def test_resumes_where_caffe_stopped(kind: str, end: str, tmp_path: Path) -> None:
    if end:
        pytest.importorskip("h5py")
    one = solver(tmp_path, kind)
    one.step(2)
    state = SolverState(2, f"/gone/x_iter_2.caffemodel{end}", tuple(histories(one)))
    one.net.save_weights(tmp_path / f"x_iter_2.caffemodel{end}")
    path = tmp_path / f"x_iter_2.solverstate{end}"
    path.write_bytes(solverstate_hdf5(state) if end else solverstate(state))
    two = solver(tmp_path, kind)
    two.restore(path)
    assert two.iteration == 2
    first, second = one._loop.blobs.read(), two._loop.blobs.read()
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.allclose(array, second[name], atol=1e-6), name


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_snapshot_format_writes_caffes_files_too(kind: str, form: str, tmp_path: Path) -> None:
    if form == "HDF5":
        pytest.importorskip("h5py")
    one = solver(tmp_path, kind, f"snapshot_format: {form}\n")
    one.step(2)
    one.snapshot(tmp_path / "x_iter_2")
    end = ".h5" if form == "HDF5" else ""
    assert {p.name for p in tmp_path.glob("x_iter_2*")} == {
        *("x_iter_2.json", "x_iter_2.safetensors"),
        *(f"x_iter_2.caffemodel{end}", f"x_iter_2.solverstate{end}"),
    }
    for path in ("x_iter_2", f"x_iter_2.solverstate{end}"):
        two = solver(tmp_path, kind)
        two.restore(tmp_path / path)
        assert two.iteration == 2
        for name, array in one._loop.blobs.read().items():
            assert np.allclose(array, two._loop.blobs.read()[name], atol=1e-6), name


def test_a_format_that_needs_a_missing_package(tmp_path: Path, monkeypatch) -> None:
    one = solver(tmp_path, "SGD", "snapshot_format: HDF5\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(NetError, match=r"HDF5 files need the package h5py\n.*netdef\[hdf5\]"):
        one.run()
    assert one.iteration == 0


def test_states_that_do_not_fit(tmp_path: Path) -> None:
    one = solver(tmp_path, "SGD")
    path = tmp_path / "x.solverstate"
    blobs = tuple(histories(one))
    path.write_bytes(solverstate(SolverState(2, "a\\y.caffemodel", blobs)))
    with pytest.raises(SnapshotError, match=r"which are not there\n.*put y.caffemodel beside"):
        one.restore(path)
    one.net.save_weights(tmp_path / "y.caffemodel")
    path.write_bytes(solverstate(SolverState(2, "y.caffemodel", blobs[1:])))
    with pytest.raises(SnapshotError, match="has 4 histories; SGD keeps 5 for the 5 blobs"):
        one.restore(path)
    path.write_bytes(solverstate(SolverState(2, "y.caffemodel", blobs[::-1])))
    with pytest.raises(SnapshotError, match="'shared' has shape"):
        one.restore(path)
    path.write_bytes(b"\xff")
    with pytest.raises(SourceError, match="damaged"):
        one.restore(path)
    assert one.iteration == 0


@pytest.mark.parametrize("end", [".caffemodel", ".caffemodel.h5", ".safetensors"])
def test_weights_round_trip(end: str, tmp_path: Path) -> None:
    if end.endswith("h5"):
        pytest.importorskip("h5py")
    one, two = (netdef.load(text=NET, phase="TRAIN", backend="reference") for _ in "ab")
    for number, key in enumerate(KEYS):
        one._main.write(key, np.full(one._main.program.tensors[key].shape, number + 0.5))
    one.save_weights(tmp_path / f"w{end}")
    two.load_weights(tmp_path / f"w{end}")
    for key in KEYS:
        assert np.array_equal(one._main.read(key), two._main.read(key)), key


def test_weights_by_caffes_rules(tmp_path: Path) -> None:
    net = netdef.load(text=NET, phase="TRAIN", backend="reference")
    weight = np.arange(240.0, dtype="f4").reshape(1, 1, 5, 48)
    fits = [LayerWeights("ip", "", {0: weight, 1: np.ones((1, 1, 1, 5))})]
    more = [*fits, LayerWeights("fc8", "", {0: np.ones(3)}), LayerWeights("relu", "", {})]
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel("", more))
    told = net.load_weights(path)
    assert "a.caffemodel: layer 'fc8' ignored: not in the net" in told
    assert not any("relu" in text for text in told)
    assert np.array_equal(net.params["ip"]["weight"], weight[0, 0])
    other = tmp_path / "b.caffemodel"
    other.write_bytes(caffemodel("", [LayerWeights("conv", "", {0: np.ones((3, 1, 3, 3))})]))
    with pytest.raises(NetError, match="layer 'conv' has 1 blob; in the net it has 'shared', "):
        net.load_weights(f"{path},{other}")
    other.write_bytes(
        caffemodel("", [LayerWeights("ip", "", {0: np.ones((7, 48)), 1: np.ones(5)})])
    )
    with pytest.raises(SourceError, match=r"\(5, 48\) in the net and \(7, 48\) in b.caffemodel"):
        net.load_weights(other)
    other.write_bytes(caffemodel("", [LayerWeights("ip", "", dict.fromkeys(range(3), weight))]))
    with pytest.raises(NetError, match="layer 'ip' has 3 blobs; in the net it has 'ip/weight', "):
        net.load_weights(other)


def test_a_net_is_written_with_its_types(tmp_path: Path) -> None:
    net = netdef.load(text=NET, phase="TRAIN", backend="reference")
    net.save_weights(tmp_path / "w.caffemodel")
    name, layers = read_caffemodel(tmp_path / "w.caffemodel")
    assert name == "small"
    assert [(x.name, x.type, len(x.blobs)) for x in layers] == [
        ("data", "DummyData", 0),
        ("conv", "Convolution", 2),
        ("again", "Convolution", 2),
        ("sum", "Eltwise", 0),
        ("ip", "InnerProduct", 2),
        ("loss", "SoftmaxWithLoss", 0),
    ]


def test_the_solvers_own_weights(tmp_path: Path) -> None:
    one = solver(tmp_path, "SGD")
    one.net.save_weights(tmp_path / "w.caffemodel")
    path = tmp_path / "fine.yaml"
    path.write_text("net: net.yaml\nmax_iter: 1\nbase_lr: 0.1\nweights: w.caffemodel\n")
    two = netdef.Solver(path, backend="reference")
    assert np.array_equal(one.weights()["ip/weight"], two.weights()["ip/weight"])
