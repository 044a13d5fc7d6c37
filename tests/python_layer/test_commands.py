"""Commands on nets with Python layers: refused, allowed, trained, resumed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import netdef as api
from compiler import reuse
from compiler.cache import Cache
from netdef.cli import cli
from netdef.compiling import compile, save_program
from netdef.formats import read_net
from netdef.net import Net
from schemas.errors import BackendError, NetError

NET = """\
name: scaled
layers:
- {name: data, type: Data, top: [data, label], source: digits8, batch_size: 8, scale: 0.0625}
- {name: gain, type: Python, module: gain, layer: Gain, bottom: data, param: [{lr_mult: 3}]}
- {name: ip, type: InnerProduct, num_output: 10, weight_filler: xavier}
- {name: accuracy, type: Accuracy, bottom: [ip, label], phase: TEST}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""
SOLVER = """\
net: net.yaml
base_lr: 0.1
momentum: 0.9
max_iter: 6
test_iter: 2
test_interval: 6
snapshot: 3
random_seed: 3
"""
GAIN = """\
import caffe

class Gain(caffe.Layer):
    '''Every pixel times a learned number of its own.'''

    def setup(self, bottom, top):
        self.blobs.add_blob(*bottom[0].shape[1:])
        self.blobs[0].data[...] = 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data
"""
# The same of native layers.
NATIVE = "- {name: gain, type: Scale, num_axes: 3, bottom: data, filler: 2, param: [{lr_mult: 3}]}"
ROOT = Path(__file__).resolve().parents[2]
ALLOW = "--allow-python-layers"
COMMANDS = [
    ["summary", "net.yaml"],
    ["draw", "net.yaml", "-o", "net.svg"],
    ["inspect", "net.yaml", "--stage", "fused"],
    ["inspect", "net.yaml", "--stage", "kernels", "--target", "cpu"],
    ["time", "net.yaml", "--iterations", "1", "--backend", "cpu"],
    ["train", "solver.yaml", "--backend", "cpu", "--run-dir", "run", "--quiet"],
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in {"net.yaml": NET, "solver.yaml": SOLVER, "gain.py": GAIN}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object):
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="netdef")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: "_".join(words[:2]))
def test_commands_run_python_layers_only_where_allowed(folder, command):
    refused = run(*command)
    assert refused.exit_code == 2
    assert "net.yaml:4:" in refused.stderr and f"hint: if you trust it: {ALLOW}" in refused.stderr
    allowed = run(*command, ALLOW)
    assert allowed.exit_code == 0, allowed.stderr
    assert "Traceback" not in refused.stderr + allowed.stderr


@pytest.mark.parametrize("file", ["net.yaml", "solver.yaml"])
def test_check_asks_for_permission_and_looks_at_the_rest(folder, file):
    asked = run("check", file)
    assert asked.exit_code == 0
    assert "net.yaml:4:" in asked.stderr and f"hint: if you trust it: {ALLOW}" in asked.stderr
    assert "question: layer 'gain' (Python): may it run 'Gain' of" in asked.stderr
    assert "error" not in asked.stdout + asked.stderr
    assert run("check", file, "--strict").exit_code == 2
    allowed = run("check", file, ALLOW, "--strict")
    assert allowed.exit_code == 0 and "question" not in allowed.stderr
    (folder / "net.yaml").write_text(NET + "- {name: other, type: Pooling, bottom: data}\n")
    wrong = run("check", file)
    assert wrong.exit_code == 2 and "net.yaml:8:" in wrong.stderr and "question: " in wrong.stderr


def test_programs_that_call_python_are_not_kept_from_run_to_run(folder, monkeypatch):
    monkeypatch.setattr(reuse, "PROGRAMS", Cache(folder / "programs"))
    for factor in (2, 3):  # one net in two projects: only its code differs
        project = folder / str(factor)
        project.mkdir()
        (project / "net.yaml").write_text(NET)
        code = GAIN.replace("top[0].data[...] = bottom[0].data", f"top[0].data[...] = {factor}")
        (project / "gain.py").write_text(code)
        net = api.load(project / "net.yaml", backend="cpu", allow_python_layers=True)
        assert set(np.unique(net.forward(["gain"])["gain"])) == {2 * factor}
        net.close()
    assert not (folder / "programs").exists()


def test_train_resume_test_and_predict(folder):
    train = ("train", "solver.yaml", ALLOW, "--backend", "cpu")
    first = run(*train, "--run-dir", "a")
    assert first.exit_code == 0
    (next_,) = (line for line in first.stdout.splitlines() if "next: " in line)
    assert ALLOW in next_
    (weights,) = (folder / "a").rglob("*iter_6.safetensors")
    assert (
        run(*train, "--run-dir", "b", "--resume", str(weights).replace("6.", "3.")).exit_code == 0
    )
    (resumed,) = (folder / "b").rglob("*iter_6.safetensors")
    assert resumed.read_bytes() == weights.read_bytes()
    tested = run("test", "net.yaml", "--weights", weights, ALLOW, "--iterations", 2)
    assert tested.exit_code == 0 and "accuracy = " in tested.stdout
    np.save("item.npy", np.ones((1, 8, 8), np.float32))
    predicted = run("predict", "net.yaml", "--weights", weights, "item.npy", ALLOW)
    assert predicted.exit_code == 0 and "prob[" in predicted.stdout
    for words in (["test", "net.yaml"], ["predict", "net.yaml", "item.npy"]):
        assert run(*words, "--weights", weights).exit_code == 2


def solver_of(folder, **more):
    return api.Solver(folder / "solver.yaml", "cpu", allow_python_layers=True, **more)


def test_a_resumed_run_is_the_run(folder):
    whole = solver_of(folder)
    whole.step(6)
    half = solver_of(folder)
    half.step(3)
    half.snapshot(folder / "half")
    rest = solver_of(folder)
    rest.restore(folder / "half")
    rest.step(3)
    for key, value in whole.weights().items():
        np.testing.assert_array_equal(value, rest.weights()[key])
    assert whole.weights()["gain/blob0"].shape == (1, 8, 8)
    for solver in (whole, half, rest):
        solver.close()


def test_the_solver_trains_as_with_native_layers(folder):
    mine = solver_of(folder)
    mine.step(6)
    text = "\n".join(NATIVE if "Python" in line else line for line in NET.splitlines())
    (folder / "net.yaml").write_text(text)
    theirs = api.Solver(folder / "solver.yaml", "cpu")
    theirs.step(6)
    both = zip(mine.weights().values(), theirs.weights().values(), strict=True)
    for got, want in both:
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
    assert mine.test()["loss"] == pytest.approx(theirs.test()["loss"], rel=1e-4)
    mine.close()
    theirs.close()


def test_the_api_asks_for_permission(folder):
    for ask in (
        lambda: api.load("net.yaml", backend="cpu"),
        lambda: api.Solver("solver.yaml", "cpu"),
        lambda: api.compile("net.yaml"),
    ):
        with pytest.raises(NetError, match="that is not allowed"):
            ask()


def test_caffemodels_hold_the_blobs_of_a_python_layer(folder):
    net = api.load("net.yaml", backend="cpu", allow_python_layers=True)
    net.params["gain"]["blob0"] = np.arange(64).reshape(1, 8, 8)
    net.save_weights("x.caffemodel")
    net.params["gain"]["blob0"] = np.zeros((1, 8, 8))
    net.load_weights("x.caffemodel")
    np.testing.assert_array_equal(net.params["gain"]["blob0"].ravel(), np.arange(64))
    net.close()


def test_no_program_file_holds_a_python_layer(folder):
    refused = run("compile", "net.yaml", "-o", "x.ndp")
    assert refused.exit_code == 2 and "net.yaml:4:" in refused.stderr
    assert "a program file stands alone, without Python code" in refused.stderr
    program = compile("net.yaml", allow_python_layers=True)
    assert program.python_layers == ("gain",)
    with pytest.raises(BackendError, match="calls Python layers, which no file can hold: 'gain'"):
        save_program(program, "x.ndp")
    assert not (folder / "x.ndp").exists()


def test_an_exception_ends_training_with_status_2(folder):
    (folder / "gain.py").write_text(
        GAIN.replace("        if propagate", "        1 / 0\n        if p")
    )
    failed = run("train", "solver.yaml", ALLOW, "--run-dir", "a", "--backend", "cpu")
    assert failed.exit_code == 2
    assert "net.yaml:4:" in failed.stderr and "ZeroDivisionError" in failed.stderr
    assert 'gain.py", line 18, in backward' in failed.stderr
    assert "a bug in netdef" not in failed.stderr


def test_inspect_shows_the_calls(folder):
    shown = {
        stage: run("inspect", "net.yaml", "--stage", stage, ALLOW, "--phase", "TRAIN").stdout
        for stage in ("graph", "backward", "fused")
    }
    assert "way=forward" in shown["graph"] and "\nalways %" in shown["graph"]
    assert "way=backward" in shown["backward"] and "always" not in shown["backward"]
    # The data needs no gradient, the learned blob does.
    assert "gain.forward(" in shown["fused"] and "gain.backward(" in shown["fused"]
    assert "# gain: net.yaml:4:" in shown["fused"]


SOURCE = """\
layers:
- {name: data, type: Python, module: batches, layer: Batches, top: [data, label]}
- {name: ip, type: InnerProduct, bottom: data, num_output: 3, weight_filler: xavier}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


def test_in_use_a_python_source_is_an_input_and_does_not_run(folder):
    (folder / "net.yaml").write_text(SOURCE)
    (folder / "batches.py").write_text("raise AssertionError('this ran')\n")
    net = Net(read_net("net.yaml"), "TEST", deploy=True, inputs={"data": (1, 2, 2, 2)})
    net.save_weights("w.safetensors")
    net.close()
    np.save("item.npy", np.ones((2, 2, 2), np.float32))
    words = ["predict", "net.yaml", "--weights", "w.safetensors", "item.npy"]
    predicted = run(*words, "--input-shape", "data=1,2,2,2")
    assert predicted.exit_code == 0 and "prob[" in predicted.stdout
    asked = run(*words)
    assert asked.exit_code == 2 and "the shape of the input 'data' is not given" in asked.stderr
    assert "net.yaml:2:" in asked.stderr and "--input-shape data=N,C,H,W" in asked.stderr


def test_a_net_for_use_keeps_its_python_layers_and_loses_its_python_sources(folder):
    net = api.load("net.yaml", backend="cpu", allow_python_layers=True)
    net.save_weights("w.safetensors")
    net.close()
    words = ["deploy", "net.yaml", "--weights", "w.safetensors", "-o", "use.yaml"]
    assert run(*words).exit_code == 2
    assert run(*words, ALLOW).exit_code == 0
    made = api.load("use.yaml", backend="cpu", allow_python_layers=True)
    made.load_weights("use.safetensors")
    assert made.inputs == {"data": (8, 1, 8, 8)} and made.params["gain"]["blob0"].min() == 2
    made.close()
    (folder / "net.yaml").write_text(SOURCE)
    source = run("deploy", "net.yaml", "-o", "other.yaml", "--input-shape", "data=1,2,2,2")
    assert source.exit_code == 0 and "Python" not in (folder / "other.yaml").read_text()


def test_weights_of_a_net_with_python_layers_convert(folder):
    net = api.load("net.yaml", backend="cpu", allow_python_layers=True)
    net.save_weights("w.caffemodel")
    net.close()
    words = ["convert", "w.caffemodel", "w.safetensors", "--net", "net.yaml"]
    assert run(*words).exit_code == 2
    assert run(*words, ALLOW).exit_code == 0
    assert "gain" in run("summary", "w.safetensors").stdout


def test_the_example_of_the_docs_is_a_euclidean_loss(folder):
    text = (ROOT / "docs" / "python_layers.md").read_text()
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    code, net = (textwrap.dedent(block).strip("\n") for block in blocks[:2])
    (folder / "losses.py").write_text(code + "\n")
    head = "- {name: %s, type: Input, shape: [3, 2]}\n"
    found = []
    for loss in (net, "- {name: loss, type: EuclideanLoss, bottom: [ip, target]}"):
        (folder / "net.yaml").write_text("layers:\n" + head % "ip" + head % "target" + loss)
        made = api.load("net.yaml", "TRAIN", "cpu", allow_python_layers=True)
        rng = np.random.default_rng(1)
        outputs = made.forward(ip=rng.normal(size=(3, 2)), target=rng.normal(size=(3, 2)))
        found.append([float(outputs["loss"].sum()), *made.backward().values()])
        made.close()
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
