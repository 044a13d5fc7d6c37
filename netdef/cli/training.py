"""`netdef train`: one training run from a solver file."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netdef.cli import options, output
from netdef.cli.guard import warn
from netdef.cli.output import own_name
from netdef.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from netdef.cli.run_folder import Recording
    from netdef.solver import Solver
    from schemas.precision import Precision


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    solver: str
    resume: str | None
    weights: tuple[str, ...]
    reading: options.Reading
    sets: tuple[str, ...]
    backend: str
    precision: Precision | None
    threads: int | None
    run_dir: str | None
    quiet: bool

    def again(self, snapshot: Path, folder: Path) -> str:
        """Returns the command that goes on from a snapshot."""
        words = [own_name(), "train", self.solver, "--resume", str(snapshot)]
        for text in self.sets:
            words += ["--set", text]
        words += self.reading.words()
        words += ["--backend", self.backend] if self.backend != "auto" else []
        words += ["--precision", self.precision] if self.precision else []
        words += ["--threads", str(self.threads)] if self.threads else []
        # Snapshots beside their run's records are enough to find the run again.
        words += ["--run-dir", str(folder)] if snapshot.parent != folder else []
        return shlex.join(words)

    def then(self, solver: Solver, snapshot: Path) -> str:
        """Returns the command that uses what was trained."""
        plan = solver.plan
        graph = plan.tests[0] if plan.tests else plan.train
        words = [own_name(), "test" if plan.tests else "predict", graph.spec.file]
        words += ["--weights", str(snapshot.with_name(snapshot.name + ".safetensors"))]
        layers = {layer.name.text for layer in graph.spec.layers}
        for text in self.sets:
            if any(text.startswith(f"{name}.") for name in layers):
                words += ["--set", text]
        words += replace(self.reading, level=None, stages=()).words()
        return shlex.join(words) + ("" if plan.tests else " INPUT")


@click.command()
@click.argument("solver")
@click.option(
    "--resume",
    metavar="SNAPSHOT",
    help="Go on from a snapshot, or from the last one of a run folder, as if it had never stopped.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="FILE[,FILE]",
    help="Start from these weights (.safetensors or .caffemodel), found by layer names.",
)
@options.reading_options
@options.set_option
@options.backend_option
@options.precision_option
@options.threads_option
@click.option(
    "--run-dir",
    metavar="DIR",
    help="Folder for metrics, configuration and snapshots (runs/NET-DATE-TIME).",
)
@click.option("--quiet", is_flag=True, help="Show errors and warnings only.")
def train(
    solver: str,
    resume: str | None,
    weights: tuple[str, ...],
    reading: options.Reading,
    sets: tuple[str, ...],
    backend: str,
    precision: Precision | None,
    threads: int | None,
    run_dir: str | None,
    quiet: bool,
) -> int:
    """Train the net of SOLVER.

    \b
    Ctrl-C stops after the iteration under way, with a snapshot to resume from;
    a second one stops at once.
    """
    files = tuple(part for text in weights for part in text.split(",") if part)
    request = Request(
        solver, resume, files, reading, sets, backend, precision, threads, run_dir, quiet
    )
    return run(request)


def run(request: Request) -> int:
    """Trains, and returns the exit status."""
    from netdef.cli.run_folder import Recording, open_folder, write_record
    from netdef.solver import Solver
    from runtime.data import ungiven
    from schemas.errors import UsageError

    if request.resume is not None and request.weights:
        hint = "a snapshot holds the weights: leave --weights out"
        raise UsageError("--resume and --weights exclude each other", hint=hint)
    monitor = Recording(quiet=request.quiet)
    begun = time.perf_counter()
    solver = Solver(
        options.read_solver(request.solver, request.reading),
        request.backend,
        precision=request.precision,
        threads=request.threads,
        sets=request.sets,
        weights=request.weights,
        monitor=monitor,
        allow_python_layers=request.reading.python,
    )
    try:
        compiled = time.perf_counter() - begun
        plan = solver.plan
        for feed in (feed for graph in (plan.train, *plan.tests) for feed in graph.feeds):
            if feed.type == "MemoryData":
                raise ungiven(feed)
        notes = [*solver.spec.warnings, *plan.train.spec.warnings, *plan.train.warnings]
        warn([*notes, *(w for graph in plan.tests for w in graph.warnings), *solver.warnings])
        folder, differences = open_folder(solver, request.resume, request.run_dir)
        warn(differences)
        for line in introduce(solver, compiled, folder):
            monitor.note(line)
        write_record(solver, folder)
        return _go(solver, request, monitor, folder)
    finally:
        solver.close()


def _go(solver: Solver, request: Request, monitor: Recording, folder: Path) -> int:
    """Runs the solver to its end or to Ctrl-C, and says how it ended and what comes next."""
    from netdef.cli.run_folder import last_snapshot

    begun, first = time.perf_counter(), solver.iteration
    finished = solver.run()
    took = output.seconds(time.perf_counter() - begun)
    snapshot = last_snapshot(solver)
    if not finished:
        print(f"stopped after iteration {solver.iteration}", end="", file=sys.stderr)
        again = f"; resume with: {request.again(snapshot, folder)}" if snapshot else ""
        print(again, file=sys.stderr)
        return INTERRUPTED
    if solver.plan.tests and monitor.tested_at != solver.iteration:
        monitor.test(solver.iteration, 0, solver.test())
    done = output.amount(solver.iteration - first, "iteration")
    result = f"; test {monitor.last_test}" if monitor.last_test else ""
    monitor.note(f"done: {done} in {took}{result}; run folder {folder}")
    if snapshot is not None:
        monitor.note(f"next: {request.then(solver, snapshot)}")
    return 0


def introduce(solver: Solver, compiled: float, folder: Path) -> list[str]:
    """Returns a few lines that say what is about to run."""
    plan, spec = solver.plan, solver.spec
    program = solver.program
    parameters = sum(info.size for info in plan.train.params.values())
    rate = f"base_lr {spec.base_lr:g} ({spec.lr_policy})"
    goal = f"to iteration {spec.max_iter:,}"
    start = f", from {solver.iteration:,}" if solver.iteration else ""
    kernels = sum(len(launch.kernels) for launch in program.launches)
    return [
        f"net       {plan.train.name or plan.train.spec.file}: "
        f"{output.amount(len(plan.train.layers), 'layer')}, "
        f"{output.amount(parameters, 'parameter')}",
        f"solver    {spec.type}, {rate}, {goal}{start}, seed {solver.seed}",
        f"backend   {solver.backend} on {solver.device}, {program.meta['precision']}",
        f"step      {output.amount(kernels, 'kernel')} in "
        f"{output.launches(program)}, "
        f"{output.size(program.peak_bytes)} of memory, compiled in {output.seconds(compiled)}",
        f"folder    {folder}",
    ]
