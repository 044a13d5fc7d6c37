"""A run that is killed with SIGKILL goes on from its last snapshot as if nothing had happened."""

from __future__ import annotations

import json
import time

import pytest

from tests.cli.conftest import process

LENGTH = 3000  # iterations: far more than pass before the kill
OPTIONS = [
    *("--backend", "cpu", "--threads", "1", "--set", f"max_iter={LENGTH}"),
    *("--set", "snapshot=40", "--set", "test_interval=150", "--set", "display=1"),
    *("--set", "average_loss=7", "--set", "lr_policy=inv", "--set", "gamma=0.01"),
    *("--set", "power=0.75", "--set", "clip_gradients=1", "--set", "data.shuffle=true"),
]


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "iterations_per_second"} for row in found]


def wait_for(found, running):
    deadline = time.monotonic() + 60
    while not found() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert running.poll() is None, running.communicate()


@pytest.mark.parametrize("kills", [1, 3])
def test_a_killed_run_goes_on_bit_identically(kills, tiny, netdef):
    folder = tiny / "killed"
    words = ["train", "solver.yaml", *OPTIONS, "--run-dir", "killed"]
    for kill in range(kills):
        before = len(list(folder.glob("snapshot_iter_*.json")))
        again = ["--resume", "killed"] if kill else []
        with process(*words, *again, cwd=tiny) as running:
            wait_for(lambda n=before: len(list(folder.glob("*_iter_*.json"))) > n, running)
            running.kill()
            running.communicate()
    last = max(int(p.stem.rpartition("_")[2]) for p in folder.glob("snapshot_iter_*.json"))
    assert last < LENGTH
    end = str(last + 60)
    short = [f"max_iter={end}" if word.startswith("max_iter=") else word for word in OPTIONS]
    resumed = netdef("train", "solver.yaml", *short, "--resume", "killed")
    assert resumed.exit_code == 0, resumed.stderr
    assert f"from {last:,}" in resumed.stdout and resumed.stderr == ""
    whole = netdef("train", "solver.yaml", *short, "--run-dir", "whole")
    assert whole.exit_code == 0, whole.stderr
    name = f"snapshot_iter_{end}.safetensors"
    assert (folder / name).read_bytes() == (tiny / "whole" / name).read_bytes()
    assert rows(folder) == rows(tiny / "whole")
    assert not [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]
