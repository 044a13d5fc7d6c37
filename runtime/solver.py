"""Training: Caffe's loop over steps, tests, displays and snapshots."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.caffe_resume import read_resume
from runtime.caffe_snapshot import check_format, write_caffe_snapshot
from runtime.data import open_source
from runtime.executable import Executable
from runtime.feeder import Feeder, Opener
from runtime.losses import Losses
from runtime.monitor import Monitor
from runtime.params import Blobs, weight_shapes
from runtime.scalars import Scalars
from runtime.schedule import check_schedule, learning_rate
from runtime.sinks import Sinks, check_files
from runtime.snapshot import (
    Snapshot,
    check_snapshot,
    check_writable,
    default_prefix,
    write_snapshot,
)
from runtime.testing import run_test
from schemas.errors import Diagnostics, SnapshotError, SpecError
from schemas.solver import SolverSpec

Outputs = dict[str, float | list[float]]
READ_EVERY = 256  # steps: how late a loss that is not displayed may be found to be NaN


class Training:
    """One training run. Order and formulas are those of Caffe's Solver::Step and Solver::Solve.

    `train` is a whole step (forward, backward, update). With `iter_size` > 1 it only accumulates
    gradients: it runs `iter_size` times, then `apply` makes the update. `tests` share the memory
    of its weights. The caller initialises the weights and closes the executables; `close` stops the
    data threads. `seed` is what all random numbers of the data depend on. `openers` open the data
    sources of `train` and of each test net.

    Signals, files and a terminal are the caller's choice (`catch_signals`, `Monitor`). Raises
    SpecError where the solver file lacks something.
    """

    def __init__(
        self,
        spec: SolverSpec,
        train: Executable,
        *,
        apply: Executable | None = None,
        tests: Sequence[Executable] = (),
        seed: int = 0,
        monitor: Monitor | None = None,
        prefix: Path | None = None,
        openers: Sequence[Opener] = (),
    ) -> None:
        assert (apply is not None) == (spec.iter_size > 1), "apply goes with iter_size > 1"
        _check(spec, len(tests))
        self.spec = spec
        self.train = train
        self.apply = apply
        self.tests = tuple(tests)
        check_files([sink for exe in (train, *tests) for sink in exe.program.sinks])
        self._sinks = Sinks(train.program.sinks)
        self.seed = seed & (2**64 - 1)
        self.monitor = monitor or Monitor(quiet=True)
        self.prefix = prefix or default_prefix(spec, self.monitor.folder)
        self.iteration = 0
        self.losses = Losses(train, spec)
        self.blobs = Blobs([train, apply] if apply else [train], self.tests)
        self._openers = openers or [open_source] * (1 + len(self.tests))
        self._open()
        self._stop = False
        self._snapshot_wanted = False
        self._saved_at = -1
        self._mark: tuple[float, int] | None = None  # when the last display was, and where

    def step(self, count: int) -> bool:
        """Runs `count` iterations; returns False if a request to stop ended them early.

        What HDF5Output layers of the training net write appears at the end of `run`, or with
        `close`; a run that is stopped or fails leaves nothing.
        """
        last = self.iteration + count
        spec = self.spec
        try:
            while self.iteration < last and not self._stop:
                if self._test_due() and not self._run_tests():
                    break
                self._iterate()
                if self._snapshot_wanted or _divides(spec.snapshot, self.iteration):
                    self._snapshot_wanted = False
                    self._save()
            self.losses.collect()
            if self._stop:
                self._sinks.discard()
            return not self._stop
        except BaseException:
            self._sinks.discard()
            raise
        finally:
            self._stop = False

    def run(self) -> bool:
        """Runs to `max_iter`; returns False if a request to stop ended it, after a snapshot."""
        spec = self.spec
        if spec.snapshot or spec.snapshot_after_train:
            check_writable(self.prefix)
            check_format(spec)
        self.monitor.start(self.iteration, spec.max_iter)
        try:
            finished = self.step(max(0, spec.max_iter - self.iteration))
            if finished:
                self._sinks.finish()
            if finished and spec.snapshot_after_train:
                self._save()
            if finished and _divides(spec.test_interval, self.iteration):
                finished = self._run_tests()
            if not finished:
                self._save()
            return finished
        finally:
            self._stop = False
            self.monitor.close()

    def test(self, index: int = 0) -> Outputs:
        """Returns the mean of each output of a test net over its `test_iter` batches.

        Outputs of more than one element are lists. The sources go on from test to test, as in
        Caffe.
        """
        outputs = self._test(index, stoppable=False)
        assert outputs is not None
        return outputs

    def snapshot(self, stem: Path | None = None) -> Path:
        """Writes a snapshot, by default PREFIX_iter_N; returns the path of its manifest.

        Raises NetError, before anything is written, if the loss or a weight is not finite.
        """
        self.losses.collect()
        tensors = self.blobs.read()
        for key in weight_shapes(self.train.program):
            if not np.isfinite(tensors[key]).all():
                raise SnapshotError(
                    f"'{key}' holds NaN or infinite values at iteration {self.iteration}",
                    hint="no snapshot was written; lower base_lr, or set clip_gradients",
                )
        positions = {k: p for feeder in self._feeders() for k, p in feeder.positions.items()}
        manifest = write_snapshot(
            stem or Path(f"{self.prefix}_iter_{self.iteration}"),
            Snapshot(
                self.spec.type,
                self.iteration,
                self.seed,
                tensors,
                positions,
                tuple(self.losses.window),
                self.monitor.lines,
            ),
        )
        stem = manifest.with_suffix("")
        write_caffe_snapshot(stem, self.spec, self.train.program, tensors, self.iteration)
        self.monitor.note(f"Iteration {self.iteration}, snapshot {manifest.with_suffix('')}")
        return manifest

    def restore(self, path: Path) -> None:
        """Goes on where a snapshot was written, bit for bit; its seed replaces this one's.

        `path` is the stem, either file, a folder, or Caffe's .solverstate. Raises SnapshotError,
        and changes nothing, unless all of it fits.
        """
        snapshot = read_resume(path, self.train.program, self.blobs, self.spec, self.seed)
        check_snapshot(snapshot, self.spec.type, self.blobs.shapes, str(path))
        for feeder in self._feeders():
            feeder.close()
        self._sinks.discard()
        self.blobs.write(snapshot.tensors)
        self.seed = snapshot.seed
        self.iteration = snapshot.iteration
        self._saved_at = snapshot.iteration
        self._mark = None
        self._open()
        for feeder in self._feeders():
            feeder.seek(snapshot.positions)
        self.losses.restart(snapshot.iteration, snapshot.losses)
        self.monitor.rewind(snapshot.iteration)

    def request_stop(self) -> None:
        """Ends `step` or `run` after the iteration under way; safe in a signal handler."""
        self._stop = True

    def request_snapshot(self) -> None:
        """Asks for a snapshot after the iteration under way; safe in a signal handler."""
        self._snapshot_wanted = True

    def close(self) -> None:
        """Stops the data threads, and ends what HDF5Output layers write."""
        for feeder in self._feeders():
            feeder.close()
        self._sinks.finish()

    def _open(self) -> None:
        """Opens the data sources with the present seed, at their beginning."""
        first, *others = self._openers
        self._feeder = Feeder(self.train, self.seed, "train", first)
        self._test_feeders = [
            Feeder(exe, self.seed, f"test{i}", opener)
            for i, (exe, opener) in enumerate(zip(self.tests, others, strict=True))
        ]
        self._scalars = Scalars(self.train, self.spec, self.seed)
        self._apply_scalars = Scalars(self.apply, self.spec, self.seed) if self.apply else None

    def _save(self) -> None:
        """Writes the snapshot of this iteration, unless that is done."""
        if self._saved_at != self.iteration:
            self.snapshot()
            self._saved_at = self.iteration

    def _feeders(self) -> list[Feeder]:
        return [self._feeder, *self._test_feeders]

    def _iterate(self) -> None:
        """Runs one iteration: `iter_size` passes and one update."""
        spec = self.spec
        rate = learning_rate(spec, self.iteration)
        for part in range(spec.iter_size):
            self._feeder.feed()
            self._scalars.write(self.iteration, rate, part)
            self.train.run(log=self.losses.names)
            self.losses.ran()
            self._sinks.collect(self.train)
        if self.apply is not None and self._apply_scalars is not None:
            self._apply_scalars.write(self.iteration, rate, 0)
            self.apply.run()
        self._mark = self._mark or (time.perf_counter(), self.iteration)
        if _divides(spec.display, self.iteration):
            self._display(rate)
        elif self.losses.unread >= READ_EVERY:
            self.losses.collect()
        self.iteration += 1
        if self.monitor.live:
            self.monitor.advance(self.iteration)

    def _display(self, rate: float) -> None:
        self.losses.collect()
        assert self._mark is not None
        (begun, first), now = self._mark, time.perf_counter()
        steps = self.iteration - first
        speed = steps / (now - begun) if steps and now > begun else None
        self._mark = (now, self.iteration)
        losses = self.losses
        self.monitor.train(self.iteration, losses.smoothed, rate, speed, losses.outputs)

    def _test_due(self) -> bool:
        first = self.iteration > 0 or self.spec.test_initialization
        return first and _divides(self.spec.test_interval, self.iteration)

    def _run_tests(self) -> bool:
        """Runs all test nets; returns False, as if none had begun, if a request to stop comes."""
        before = [feeder.positions for feeder in self._test_feeders]
        states = self.blobs.read(self.blobs.tested)
        begun = time.perf_counter()
        results = []
        for index in range(len(self.tests)):
            outputs = self._test(index, stoppable=True)
            if outputs is None:
                for feeder, positions in zip(self._test_feeders, before, strict=True):
                    feeder.seek(positions)
                self.blobs.write(states)
                return False
            results.append(outputs)
        for index, outputs in enumerate(results):
            self.monitor.test(self.iteration, index, outputs)
        if self._mark is not None:  # the speed of training leaves out the time of tests
            self._mark = (self._mark[0] + time.perf_counter() - begun, self._mark[1])
        return True

    def _test(self, index: int, stoppable: bool) -> Outputs | None:
        outputs = run_test(
            self.tests[index],
            self._test_feeders[index],
            Scalars(self.tests[index], self.spec, self.seed),
            self.spec.test_iters[index],
            self.iteration,
            (lambda: self._stop) if stoppable else (lambda: False),
        )
        for feeder in self._feeders():
            feeder.forget()  # nets may share the memory of their inputs
        if outputs is not None and self.spec.test_compute_loss:
            weights = self.tests[index].program.loss_weights
            outputs["test_loss"] = sum(w * float(np.sum(outputs[n])) for n, w in weights.items())
        return outputs


def _divides(interval: int, iteration: int) -> bool:
    return interval > 0 and iteration % interval == 0


def _check(spec: SolverSpec, tests: int) -> None:
    diagnostics = Diagnostics()
    check_schedule(spec, diagnostics)
    if len(spec.test_iters) != tests:
        message = f"{len(spec.test_iters)} values of test_iter for {tests} test nets"
        diagnostics.error(SpecError(message, spec.where("test_iters")))
    if spec.iter_size < 1:
        message = f"iter_size must be 1 or more, not {spec.iter_size}"
        diagnostics.error(SpecError(message, spec.where("iter_size")))
    diagnostics.raise_if_any()
