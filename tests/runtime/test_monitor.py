"""Monitor: lines, metrics that survive a resume, run folders."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from runtime.monitor import METRICS, Monitor, new_run_folder
from schemas.errors import UsageError


def test_lines_and_metrics(tmp_path: Path) -> None:
    out = io.StringIO()
    monitor = Monitor(tmp_path, stream=out)
    monitor.start(0, 1000)
    monitor.train(0, 2.5, 0.01, None, {"loss": 2.5})
    monitor.train(100, 0.123, 0.0095, 210.4, {"loss": 0.1, "accuracy": 0.5})
    monitor.test(500, 0, {"accuracy": 0.98061, "loss": 0.07})
    monitor.test(500, 1, {"per_class": [0.5, 1.0], "loss": math.nan})
    monitor.close()
    assert out.getvalue().splitlines() == [
        "Iteration 0, loss = 2.5, lr = 0.01",
        "Iteration 100, loss = 0.123, lr = 0.0095, 210 it/s, loss = 0.1, accuracy = 0.5",
        "Iteration 500, test accuracy = 0.9806, loss = 0.07",
        "Iteration 500, test #1 per_class = [0.5, 1], loss = nan",
    ]
    records = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert records[1] == {
        "phase": "TRAIN",
        "iteration": 100,
        "loss": 0.123,
        "lr": 0.0095,
        "iterations_per_second": 210.4,
        "outputs": {"loss": 0.1, "accuracy": 0.5},
    }
    outputs = {"per_class": [0.5, 1.0], "loss": None}
    assert records[3] == {"phase": "TEST", "iteration": 500, "net": 1, "outputs": outputs}
    assert monitor.lines == 4


def test_rewind_cuts_what_will_come_again(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, quiet=True)
    for iteration in (0, 10, 20):
        monitor.train(iteration, 1.0, 0.1, None, {})
    monitor.close()
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"iteration": 5, "lo')  # a crash within a line
    monitor.rewind(20)
    monitor.train(20, 2.0, 0.1, None, {})
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [(r["iteration"], r["loss"]) for r in lines] == [(0, 1.0), (10, 1.0), (20, 2.0)]
    assert monitor.lines == 3
    monitor.close()


def test_bar_on_a_terminal() -> None:
    out = io.StringIO()
    monitor = Monitor(stream=out, bar=True)
    monitor.start(0, 100)
    assert monitor.live
    monitor.train(50, 1.25, 0.1, 99.0, {})
    monitor.advance(60)
    monitor.test(60, 0, {"accuracy": 0.5})
    monitor.close()
    assert "Iteration 60, test accuracy = 0.5" in out.getvalue() and "60/100" in out.getvalue()
    assert not monitor.live


def test_quiet_and_without_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = Monitor(quiet=True)
    monitor.train(0, 1.0, 0.1, None, {})
    monitor.write_config({})
    monitor.rewind(0)
    monitor.close()
    assert capsys.readouterr().out == ""
    Monitor().note("x")
    assert capsys.readouterr().out == "x\n"


def test_run_folders(tmp_path: Path) -> None:
    first, second = (new_run_folder("Le Net", root=tmp_path / "runs") for _ in range(2))
    assert first != second and first.name.startswith("Le_Net-")
    named = new_run_folder("x", "mine", tmp_path)
    Monitor(named).write_config({"base_lr": 0.1})
    assert json.loads((named / "solver.json").read_text()) == {"base_lr": 0.1}
    assert new_run_folder("x", "mine", tmp_path) == named  # nothing has been recorded
    (named / METRICS).write_text("")
    with pytest.raises(UsageError, match="there is already a run in"):
        new_run_folder("x", "mine", tmp_path)
