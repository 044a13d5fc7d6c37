"""`netdef train` from end to end: run folder, resume, Ctrl-C, test and predict after it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time

import numpy as np
import pytest

from tests.cli.conftest import process


def train(netdef, *words):
    result = netdef("train", "solver.yaml", "--backend", "reference", *words)
    assert result.exit_code == 0, result.stderr + result.output
    return result


def test_a_run_from_start_to_end(tiny, netdef):
    result = train(netdef, "--run-dir", "run", "--set", "ip1.num_output=9")
    lines = result.stdout.splitlines()
    assert lines[0] == "net       tiny: 6 layers, 685 parameters"
    assert lines[1] == "solver    SGD, base_lr 0.1 (fixed), to iteration 12, seed 3"
    assert lines[2] == "backend   reference on NumPy, fp64"
    assert re.fullmatch(
        r"step      \d+ kernels in \d+ launches, .*iB of memory, compiled in .*", lines[3]
    )
    assert lines[4] == "folder    run"
    done = r"done: 12 iterations in \S+ s; test accuracy = \S+, loss = \S+; run folder run"
    assert re.fullmatch(done, lines[-2])
    assert lines[-1] == (
        "next: netdef test net.yaml --weights run/snapshot_iter_12.safetensors "
        "--set ip1.num_output=9"
    )
    config = json.loads((tiny / "run/solver.json").read_text())
    assert (config["max_iter"], config["backend"], config["random_seed"]) == (12, "reference", 3)
    assert "num_output: 9" in (tiny / "run/net.yaml").read_text()
    rows = [json.loads(line) for line in (tiny / "run/metrics.jsonl").read_text().splitlines()]
    assert [r["iteration"] for r in rows if r["phase"] == "TRAIN"] == [0, 4, 8]
    assert [r["iteration"] for r in rows if r["phase"] == "TEST"] == [0, 6, 12]
    again = shlex.split(lines[-1].removeprefix("next: netdef "))
    tested = netdef(*again, "--backend", "reference", "--iterations", "2")
    assert tested.exit_code == 0
    assert re.search(r"^accuracy = [\d.]+$", tested.stdout, re.MULTILINE)


def test_the_last_test_is_of_the_last_iteration(tiny, netdef):
    train(netdef, "--run-dir", "run", "--set", "max_iter=7")
    last = json.loads((tiny / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert (last["phase"], last["iteration"]) == ("TEST", 7)


def test_resume_is_bit_identical(tiny, netdef):
    train(netdef, "--run-dir", "whole")
    train(netdef, "--run-dir", "parts", "--set", "max_iter=6")
    resumed = train(netdef, "--resume", "parts/snapshot_iter_6")
    assert "to iteration 12, from 6" in resumed.stdout and resumed.stderr == ""
    for file in ("snapshot_iter_12.safetensors",):
        assert (tiny / "whole" / file).read_bytes() == (tiny / "parts" / file).read_bytes()
    texts = [(tiny / run / "metrics.jsonl").read_text() for run in ("whole", "parts")]
    whole, parts = ([json.loads(line) for line in text.splitlines()] for text in texts)
    for row in (*whole, *parts):
        row.pop("iterations_per_second", None)
    assert whole == parts


def test_resume_says_what_has_changed(tiny, netdef):
    train(netdef, "--run-dir", "run", "--set", "max_iter=6")
    result = train(netdef, "--resume", "run", "--set", "base_lr=0.05")
    assert result.stderr == (
        "warning: the run goes on, but not exactly as it would have: "
        "base_lr was 0.1 and is 0.05 now\n"
    )


def test_resume_refuses_another_net(tiny, netdef):
    train(netdef, "--run-dir", "run", "--set", "max_iter=6")
    before = (tiny / "run/metrics.jsonl").read_bytes()
    words = ["--backend", "reference", "--resume", "run", "--set", "ip1.num_output=5"]
    result = netdef("train", "solver.yaml", *words)
    assert result.exit_code == 2
    assert "has shape (5, 64) in the net and (12, 64) in" in result.stderr
    assert result.stderr.endswith("errors\n")
    assert (tiny / "run/metrics.jsonl").read_bytes() == before


def test_a_second_run_does_not_overwrite_the_first(tiny, netdef):
    train(netdef, "--run-dir", "run", "--set", "max_iter=1")
    result = netdef("train", "solver.yaml", "--run-dir", "run", "--backend", "reference")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: there is already a run in run\n  hint: ")


def test_caffe_files_train_from_anywhere(tiny, netdef):
    folder = tiny / "examples/mnist"
    folder.mkdir(parents=True)
    (folder / "train_test.prototxt").write_text(
        'layer { name: "mnist" type: "Data" top: "data" top: "label"\n'
        '  data_param { source: "mnist_lmdb" batch_size: 8 } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"\n'
        "  inner_product_param { num_output: 10 } }\n"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }\n'
    )
    (folder / "solver.prototxt").write_text(
        'net: "caffe/examples/mnist/train_test.prototxt"\nbase_lr: 0.001\nmax_iter: 2\n'
    )
    words = ["--set", "mnist.source=digits8", "--backend", "reference", "--quiet"]
    result = netdef("train", folder / "solver.prototxt", *words, "--run-dir", "r")
    assert result.exit_code == 0, result.stderr
    assert result.output == ""
    assert (tiny / "r/snapshot_iter_2.safetensors").is_file()


def test_labels_without_a_class_are_refused(tiny, netdef):
    np.savez("mine.npz", data=np.zeros((20, 8, 8)), label=np.arange(20) % 12)
    words = ["--backend", "reference", "--set", "data.source=mine.npz"]
    result = netdef("train", "solver.yaml", *words)
    assert result.exit_code == 2
    assert result.stderr == (
        "net.yaml:3:3: error: layer 'data' (Data): its labels go from 0 to 11, but 'ip2' has "
        "scores of 10 classes, 0 to 9 (layer 'loss')\n"
        "    - {name: data, type: Data, top: [data, label], source: digits8, batch_size: 16, "
        "scale: 0.0625}\n      ^\n"
        "  hint: set num_output of the layer that makes 'ip2' to the number of classes\n"
    )
    assert not (tiny / "runs").exists()
    ignored = ["--set", "ip2.num_output=11", "--set", "loss.ignore_label=11"]
    more = ["--set", "accuracy.ignore_label=11", "--set", "max_iter=1"]
    assert netdef("train", "solver.yaml", *words, *ignored, *more).exit_code == 0


def test_predict_reads_arrays_and_pictures(tiny, netdef):
    train(netdef, "--run-dir", "run", "--set", "max_iter=2")
    random = np.random.default_rng(0)
    items = random.integers(0, 16, (3, 1, 8, 8)).astype(np.uint8)
    np.save("three.npy", items)
    np.savez("one.npz", data=items[0, 0])
    words = ["net.yaml", "--weights", "run/snapshot_iter_2.safetensors", "--backend", "reference"]
    result = netdef("predict", *words, "three.npy", "one.npz", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [(one["file"], one["item"]) for one in found] == [
        ("three.npy", 0),
        ("three.npy", 1),
        ("three.npy", 2),
        ("one.npz", None),
    ]
    assert found[0]["outputs"] == found[3]["outputs"]
    assert sum(found[0]["outputs"]["prob"]) == pytest.approx(1)
    image = pytest.importorskip("PIL.Image")
    image.fromarray(items[0, 0]).save("one.png")
    shown = netdef("predict", *words, "one.png")
    assert shown.stdout.startswith("one.png\n  prob[")
    best = max(found[0]["outputs"]["prob"])
    assert f"= {best:.4f}\n" in shown.stdout


def test_predict_refuses_another_shape(tiny, netdef):
    train(netdef, "--run-dir", "run", "--set", "max_iter=2")
    np.save("x.npy", np.zeros((3, 5, 5)))
    words = ["net.yaml", "--weights", "run/snapshot_iter_2.safetensors", "--backend", "reference"]
    result = netdef("predict", *words, "x.npy")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: x.npy has shape (3, 5, 5); an item of 'data' is 1x8x8\n"
        "  hint: the first axis counts the items, if there are several\n"
    )


def test_ctrl_c_leaves_a_snapshot_and_says_how_to_go_on(tiny, netdef):
    words = ["--run-dir", "run", "--backend", "reference"]
    slow = ["--set", "max_iter=1000000", "--set", "snapshot=0", "--set", "test_interval=900000"]
    with process("train", "solver.yaml", *words, *slow, cwd=tiny) as running:
        metrics = tiny / "run/metrics.jsonl"
        deadline = time.monotonic() + 60
        while not metrics.exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    found = re.fullmatch(r"stopped after iteration (\d+); resume with: netdef (.*)\n", stderr)
    assert found, stderr
    assert (tiny / f"run/snapshot_iter_{found[1]}.safetensors").is_file()
    again = shlex.split(found[2])
    resumed = netdef(*again, "--set", f"max_iter={int(found[1]) + 1}")
    assert resumed.exit_code == 0, resumed.stderr
    assert f"from {int(found[1]):,}" in resumed.stdout
