"""HDF5Output: the rows of a whole run, or nothing; and back in through HDF5Data."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time

import numpy as np
import pytest

import netdef
from netdef.evaluating import evaluate
from netdef.net import load
from schemas.errors import BackendError, GraphError, ShapeError, SourceError
from schemas.program_file import pack_program, unpack_program
from tests.cli.conftest import process

h5py = pytest.importorskip("h5py")
NET = """\
name: dump
layers:
- {name: data, type: Data, top: [data, label], source: digits8, batch_size: 4}
- {name: ip, type: InnerProduct, num_output: 3, weight_filler: xavier}
- {name: relu, type: ReLU, top: ip}
- {name: dump, type: HDF5Output, bottom: [ip, label], file_name: out.h5, phase: TEST}
- {name: train, type: HDF5Output, bottom: [data, label], file_name: train.h5, phase: TRAIN}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""
SOLVER = """\
net: net.yaml
base_lr: 0.0001
max_iter: 6
test_iter: 2
test_interval: 3
test_initialization: false
random_seed: 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(NET.replace("num_output: 3", "num_output: 10"))
    (tmp_path / "solver.yaml").write_text(SOLVER)
    return tmp_path


def contents(path):
    with h5py.File(path) as file:
        assert sorted(file) == ["data", "label"]
        return file["data"][:], file["label"][:]


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.suffix in (".h5", ".tmp")]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_all_batches_of_a_test(folder, backend):
    net = load("net.yaml", backend=backend)
    outputs = evaluate(net, 5)
    assert list(outputs) == ["loss"] and list(net.outputs) == ["loss"]
    assert leftovers(folder) == ["out.h5"]
    data, label = contents("out.h5")
    net.close()
    assert data.shape == (20, 10) and data.dtype == label.dtype == np.float32
    again = load("net.yaml", backend=backend)
    for i in range(5):
        found = again.forward(blobs=["ip", "label"])
        assert np.array_equal(data[4 * i : 4 * i + 4], found["ip"].astype(np.float32))
        assert np.array_equal(label[4 * i : 4 * i + 4], found["label"])
    assert contents("out.h5")[0].shape == (20, 10)
    (folder / "out.h5").unlink()
    again.close()  # which ends the run: now the file is whole
    assert np.array_equal(contents("out.h5")[0], data) and leftovers(folder) == ["out.h5"]


def test_backward_writes_nothing(folder):
    net = load("net.yaml", "TRAIN", backend="reference")
    net.forward()
    net.backward()
    net.backward()
    net.close()
    assert contents("train.h5")[0].shape == (4, 1, 8, 8)


def test_training_writes_each_net_its_own(folder):
    solver = netdef.Solver("solver.yaml", backend="reference")
    assert solver.run()
    data, _ = contents("train.h5")
    assert data.shape == (24, 1, 8, 8)
    assert contents("out.h5")[0].shape == (8, 10)  # the last test alone
    solver.close()
    assert sorted(leftovers(folder)) == ["out.h5", "train.h5"]


def test_a_stored_program_knows_what_it_writes(folder):
    program = netdef.compile("net.yaml", target="cpu")
    (sink,) = unpack_program(pack_program(program), "n").sinks
    assert (sink.layer, sink.file) == ("dump", "out.h5")
    assert sink.tensors == {"data": "dump:data", "label": "dump:label"}
    assert program.outputs == ("loss",)


def test_steps_end_with_close(folder):
    solver = netdef.Solver("solver.yaml", backend="reference")
    solver.step(2)
    assert leftovers(folder) == [".train.h5.tmp"]
    solver.close()
    assert contents("train.h5")[0].shape == (8, 1, 8, 8)


def test_what_was_written_is_read_again(folder):
    net = load("net.yaml", backend="reference")
    evaluate(net, 2)
    net.close()
    (folder / "list.txt").write_text("out.h5\n")
    text = "layers:\n- {name: d, type: HDF5Data, top: [data], source: list.txt, batch_size: 8}\n"
    (folder / "again.yaml").write_text(text)
    found = load("again.yaml", backend="reference").forward()
    assert np.array_equal(found["data"], contents("out.h5")[0])


def test_a_failed_run_leaves_what_was_there(folder, monkeypatch):
    (folder / "out.h5").write_bytes(b"old")
    (folder / "train.h5").write_bytes(b"old")
    solver = netdef.Solver("solver.yaml", backend="reference")
    ran = solver._train.run
    calls = iter([None] * 4)

    def run(log=()):
        if next(calls, "end") == "end":
            raise KeyboardInterrupt
        ran(log)

    monkeypatch.setattr(solver._train, "run", run)
    with pytest.raises(KeyboardInterrupt):
        solver.run()
    solver.close()
    assert (folder / "train.h5").read_bytes() == b"old"
    assert contents("out.h5")[0].shape == (8, 10)  # the test at iteration 3 was whole
    assert sorted(leftovers(folder)) == ["out.h5", "train.h5"]


def test_a_stopped_run_leaves_nothing(folder, monkeypatch):
    solver = netdef.Solver("solver.yaml", backend="reference")
    ran = solver._train.run

    def run(log=()):
        ran(log)
        solver._loop.request_stop()  # as the first Ctrl-C does

    monkeypatch.setattr(solver._train, "run", run)
    assert not solver.run()
    assert leftovers(folder) == []
    solver.close()
    assert leftovers(folder) == []


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_part(folder, kill):
    words = ["test", "net.yaml", "--weights", "w.safetensors", "--backend", "reference"]
    net = load("net.yaml", backend="reference")
    net.save_weights("w.safetensors")
    net.close()
    with process(*words, "--iterations", "1000000", cwd=folder) as running:
        deadline = time.monotonic() + 60
        while not leftovers(folder) and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert leftovers(folder) == [".out.h5.tmp"], running.poll()
        while running.poll() is None and time.monotonic() < deadline:
            running.send_signal(kill)  # again: one that comes within a finaliser is lost
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.communicate(timeout=2)
        running.kill()
    assert leftovers(folder) == ([".out.h5.tmp"] if kill == signal.SIGKILL else [])
    net = load("net.yaml", backend="reference")  # a later run takes the name over
    evaluate(net, 1)
    net.close()
    assert leftovers(folder) == ["out.h5"]


def test_mistakes(folder, monkeypatch):
    text = (folder / "net.yaml").read_text()

    def loaded(*change):
        return load(text=text.replace(*change), format="yaml", backend="reference")

    with pytest.raises(SourceError, match=r"6:3: .*'dump' \(HDF5Output\): there is no folder 'no'"):
        loaded("out.h5", "no/out.h5")
    with pytest.raises(GraphError, match="needs 2 bottoms"):
        loaded("[ip, label], file_name", "[ip], file_name")
    with pytest.raises(ShapeError, match="writes rows in pairs: 'ip' .* and 'loss'"):
        loaded("[ip, label], file_name", "[ip, loss], file_name")
    (folder / "out.h5").mkdir()
    net = loaded("x", "x")
    net.forward()
    with pytest.raises(SourceError, match="'dump' .*: cannot write 'out.h5'"):
        net.close()
    assert leftovers(folder) == ["out.h5"]
    same = text.replace("train.h5", "out.h5")
    (folder / "net.yaml").write_text(same)
    with pytest.raises(SourceError, match="'dump' .*: 'out.h5' is written twice\n.*\n.*\n.*phase"):
        netdef.Solver("solver.yaml", backend="reference")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(BackendError, match=":6:3: (.|\n)*netdef.hdf5."):
        loaded("x", "x")
