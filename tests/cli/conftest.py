"""A small net with its solver, and a way to call commands without a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from netdef.cli import cli

ROOT = Path(__file__).resolve().parents[2]
NET = """\
name: tiny
layers:
- {name: data, type: Data, top: [data, label], source: digits8, batch_size: 16, scale: 0.0625}
- {name: ip1, type: InnerProduct, num_output: 12, weight_filler: xavier}
- {name: relu1, type: ReLU, top: ip1}
- {name: drop1, type: Dropout, top: ip1}
- {name: ip2, type: InnerProduct, num_output: 10, weight_filler: xavier}
- {name: accuracy, type: Accuracy, bottom: [ip2, label], phase: TEST}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip2, label]}
"""
SOLVER = """\
net: net.yaml
base_lr: 0.1
momentum: 0.9
max_iter: 12
display: 4
test_iter: 2
test_interval: 6
snapshot: 6
random_seed: 3
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with net.yaml and solver.yaml, which is the working folder."""
    (tmp_path / "net.yaml").write_text(NET)
    (tmp_path / "solver.yaml").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def netdef():
    """Calls a command; the result has exit_code, stdout and stderr."""

    def call(*words: object):
        return CliRunner().invoke(cli, [str(word) for word in words], prog_name="netdef")

    return call


def process(
    *words: object, cwd: Path, coding: str = "utf-8", **options: object
) -> subprocess.Popen[str]:
    """Starts a command as a process of its own, which writes in this encoding."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": coding}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    command = [sys.executable, "-m", "netdef", *map(str, words)]
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, cwd=cwd, env=environment, preexec_fn=heed, **pipes)
