"""The training loop on a linear model: order, tests, resume, NaN, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.monitor import METRICS, Monitor
from runtime.params import initialise
from runtime.signals import catch_signals
from runtime.snapshot import read_snapshot
from runtime.solver import Training
from schemas.errors import GraphError, NetError, SnapshotError, SpecError
from schemas.solver import SolverSpec
from tests.runtime.fake import FakeExecutable, feed_of

ROOT = Path(__file__).parents[2]
SPEC = SolverSpec(
    base_lr=0.001,
    lr_policy="step",
    gamma=0.9,
    stepsize=5,
    max_iter=40,
    display=5,
    average_loss=7,
    test_iters=(3,),
    test_interval=10,
)


def training(
    spec: SolverSpec, folder: Path, seed: int = 11, feed: Any = None, **options: Any
) -> Training:
    """Returns a new run with its own memory and first weights."""
    one = feed or feed_of("TRAIN", shuffle=True, mirror=True)
    accumulate = spec.iter_size > 1
    train = FakeExecutable("accumulate" if accumulate else "step", one)
    apply = FakeExecutable("apply", one, train.memory) if accumulate else None
    tests = [FakeExecutable("test", feed_of("TEST"), train.memory) for _ in spec.test_iters]
    initialise(train, seed)
    options.setdefault("monitor", Monitor(folder, quiet=True))
    return Training(
        spec, train, apply=apply, tests=tests, seed=seed, prefix=folder / "s", **options
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    for line in lines:
        line.pop("iterations_per_second", None)
    return lines


def weights(run: Training) -> bytes:
    blobs = run.blobs.read()
    return b"".join(blobs[key].tobytes() for key in sorted(blobs))


def test_order_of_tests_and_displays(tmp_path: Path) -> None:
    with closing(training(SPEC, tmp_path)) as run:
        assert run.run()
        assert run.iteration == 40
        rows = [(m["phase"], m["iteration"]) for m in metrics(tmp_path)]
        expected = []
        for i in range(0, 40, 5):
            expected += [("TEST", i)] if i % 10 == 0 else []
            expected += [("TRAIN", i)]
        assert rows == [*expected, ("TEST", 40)]
        train, test = run.train, run.tests[0]
        assert isinstance(train, FakeExecutable) and isinstance(test, FakeExecutable)
        assert train.runs == 40 and test.runs == 5 * 3
        scalars = train.scalars[12]
        assert scalars["iteration"] == 12 and scalars["seed_lo"] == 11 and scalars["first"] == 1
        assert scalars["lr"] == np.float32(0.001 * 0.9**2)
        assert metrics(tmp_path)[-2]["lr"] == 0.001 * 0.9**7
        assert sorted(os.listdir(tmp_path)) == [METRICS, "s_iter_40.json", "s_iter_40.safetensors"]


def test_no_test_before_the_first_step(tmp_path: Path) -> None:
    with closing(training(replace(SPEC, test_initialization=False), tmp_path)) as run:
        run.step(11)
    assert [m["iteration"] for m in metrics(tmp_path) if m["phase"] == "TEST"] == [10]


def test_loss_is_a_mean_over_the_last_iterations(tmp_path: Path) -> None:
    with closing(training(replace(SPEC, display=1, average_loss=1), tmp_path / "a")) as run:
        run.step(13)
    each = [m["loss"] for m in metrics(tmp_path / "a") if m["phase"] == "TRAIN"]
    with closing(training(replace(SPEC, display=12), tmp_path / "b")) as run:
        run.step(13)
    shown = [m for m in metrics(tmp_path / "b") if m["phase"] == "TRAIN"]
    assert shown[-1]["loss"] == pytest.approx(np.mean(each[6:13]), rel=1e-12)
    assert shown[-1]["outputs"] == {"loss": each[12]}
    assert each[12] < 0.8 * each[0]


def test_means_over_a_test_net(tmp_path: Path) -> None:
    with closing(training(replace(SPEC, test_compute_loss=True), tmp_path)) as run:
        outputs = run.test()
        again = run.test()
        exe = run.tests[0]
        losses, errors = [], []
        with closing(training(SPEC, tmp_path)) as other:
            for _ in range(3):
                other._test_feeders[0].feed()
                one = other.tests[0]
                assert isinstance(one, FakeExecutable)
                one.own.update({n: np.zeros(()) for n in ("lr", "rate_scale", "first")})
                one.own.update({n: np.zeros(()) for n in ("iteration", "seed_lo", "seed_hi")})
                one.run()
                losses.append(float(one.read("loss")))
                errors.append(one.read("error").astype(np.float64))
    assert outputs["loss"] == pytest.approx(np.mean(losses)) == outputs["test_loss"]
    assert outputs["error"] == pytest.approx(np.mean(errors, axis=0))
    assert again["loss"] != outputs["loss"]  # the source goes on
    assert isinstance(exe, FakeExecutable)
    assert [s["iteration"] for s in exe.scalars] == [0, 1, 2] * 2


@pytest.mark.parametrize("iter_size", [1, 3])
@pytest.mark.parametrize("stop", [7, 20, 30])
def test_resume_is_bit_identical(tmp_path: Path, stop: int, iter_size: int) -> None:
    spec = replace(SPEC, iter_size=iter_size)
    with closing(training(spec, tmp_path / "whole")) as whole:
        whole.run()
    with closing(training(spec, tmp_path / "parts")) as first:
        first.step(stop)
        first.snapshot()
        first.step(6)  # goes on, and crashes
    with closing(training(spec, tmp_path / "parts", seed=99)) as second:
        second.restore(tmp_path / "parts" / f"s_iter_{stop}")
        assert second.iteration == stop and second.seed == 11
        second.run()
        assert weights(second) == weights(whole)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    ends = [read_snapshot(tmp_path / name / "s_iter_40") for name in ("parts", "whole")]
    assert replace(ends[0], tensors={}) == replace(ends[1], tensors={})


def test_iter_size_accumulates(tmp_path: Path) -> None:
    with closing(training(replace(SPEC, iter_size=2, test_iters=(), display=1), tmp_path)) as run:
        run.step(2)
        train, apply = run.train, run.apply
        assert isinstance(train, FakeExecutable) and isinstance(apply, FakeExecutable)
        assert [(s["iteration"], s["first"]) for s in train.scalars] == [
            (0, 1),
            (1, 0),
            (2, 1),
            (3, 0),
        ]
        assert apply.runs == 2 and [s["iteration"] for s in apply.scalars] == [0, 2]
    assert len(metrics(tmp_path)) == 2


def test_adam_scale(tmp_path: Path) -> None:
    spec = replace(SPEC, type="Adam", momentum=0.9, momentum2=0.99)
    with closing(training(spec, tmp_path)) as run:
        run.step(3)
        assert isinstance(run.train, FakeExecutable)
        scale = run.train.scalars[2]["rate_scale"]
    assert scale == pytest.approx((1 - 0.99**3) ** 0.5 / (1 - 0.9**3), rel=1e-6)


@pytest.mark.parametrize("display", [0, 1])
def test_loss_that_is_not_a_number(tmp_path: Path, display: int) -> None:
    spec = replace(SPEC, base_lr=1e4, lr_policy="fixed", display=display, test_iters=(), snapshot=4)
    with closing(training(spec, tmp_path)) as run:
        with pytest.raises(NetError, match="the loss is (inf|nan) at iteration") as caught:
            run.run()
    assert "lower base_lr" in str(caught.value)
    for name in os.listdir(tmp_path):
        if name.endswith(".json"):  # what was written before is finite
            arrays = read_snapshot(tmp_path / name).tensors.values()
            assert all(np.isfinite(a).all() for a in arrays)


def test_weights_that_are_not_numbers_are_not_saved(tmp_path: Path) -> None:
    with closing(training(SPEC, tmp_path)) as run:
        run.train.write("ip/weight", np.full(64, np.nan))
        with pytest.raises(SnapshotError, match="'ip/weight' holds NaN"):
            run.snapshot()
    assert not list(tmp_path.glob("*.safetensors"))


def test_restore_of_something_else_changes_nothing(tmp_path: Path) -> None:
    with closing(training(SPEC, tmp_path)) as run:
        run.step(3)
        run.snapshot(tmp_path / "mine")
    with closing(training(replace(SPEC, type="Adam"), tmp_path)) as other:
        before = weights(other)
        with pytest.raises(SnapshotError, match="written by solver SGD; this one is Adam"):
            other.restore(tmp_path / "mine")
        assert weights(other) == before and other.iteration == 0


def test_periodic_snapshots(tmp_path: Path) -> None:
    with closing(training(replace(SPEC, snapshot=20), tmp_path)) as run:
        run.run()
    assert len(list(tmp_path.glob("s_iter_*.json"))) == 2
    with closing(training(replace(SPEC, snapshot_after_train=False), tmp_path / "none")) as run:
        run.run()
    assert not list((tmp_path / "none").glob("s_iter_*"))


def test_stop_within_a_test_goes_back_before_it(tmp_path: Path) -> None:
    with closing(training(SPEC, tmp_path)) as run:
        run.step(10)
        exe = run.tests[0]
        assert isinstance(exe, FakeExecutable)
        ran = exe.run

        def stopping(log: tuple[str, ...] = ()) -> None:
            ran(log)
            run.request_stop()

        exe.run = stopping  # type: ignore[method-assign]
        assert not run.run() and run.iteration == 10
        assert read_snapshot(tmp_path / "s_iter_10").positions == {
            "train/data": 10,
            "test0/data": 3,
        }
        exe.run = ran  # type: ignore[method-assign]
        assert run.run()


def test_request_of_a_snapshot(tmp_path: Path) -> None:
    with closing(training(SPEC, tmp_path)) as run:
        with catch_signals(run):
            if hasattr(signal, "SIGHUP"):
                os.kill(os.getpid(), signal.SIGHUP)
            else:
                run.request_snapshot()
            run.step(2)
    assert (tmp_path / "s_iter_1.json").exists()


def test_errors_of_the_solver_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="2 values of test_iter for 1 test nets"):
        one = feed_of("TRAIN")
        test = FakeExecutable("test", one)
        Training(replace(SPEC, test_iters=(1, 2)), FakeExecutable("step", one), tests=[test])
    with pytest.raises(SpecError, match="unknown lr_policy"):
        training(replace(SPEC, lr_policy="stepp"), tmp_path)
    with pytest.raises(GraphError, match="has no loss"):
        train = FakeExecutable("step", feed_of("TRAIN"))
        train.program = replace(train.program, loss_weights={})
        Training(replace(SPEC, test_iters=()), train)


SCRIPT = """
import sys, time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tests.runtime.test_solver import SPEC, training
from runtime.monitor import Monitor
from runtime.signals import catch_signals
folder = Path(sys.argv[1])
run = training(replace(SPEC, max_iter=10**9, test_iters=()), folder, monitor=Monitor(folder))
step = run.train.run
def slow(log=()):
    print("step", flush=True)
    time.sleep(float(sys.argv[2]))
    step(log)
run.train.run = slow
with catch_signals(run), closing(run):
    sys.exit(0 if run.run() else 130)
"""


def started(folder: Path, pause: float) -> subprocess.Popen[str]:
    """Returns a training process within its first step, which takes `pause` seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(pause)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "step\n"
    return process


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_interrupt_stops_after_a_snapshot(tmp_path: Path) -> None:
    process = started(tmp_path, 0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == ""
    snapshot = read_snapshot(tmp_path)
    assert out.splitlines()[-1].startswith(f"Iteration {snapshot.iteration}, snapshot ")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    process = started(tmp_path, 60)
    for _ in range(100):  # two that come too close count as one
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode != 0 and err.rstrip().endswith("KeyboardInterrupt")
    assert not list(tmp_path.glob("s_iter_*"))
