"""Compiles a net to a Program without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compiler.arena import plan_arena
from compiler.backends import get_backend
from compiler.build import build
from compiler.reuse import compile_or_load
from compiler.unit import Unit
from compiler.update import Step, train_step
from netdef.formats import read_net
from netdef.python_layers import with_python
from runtime.data import probe
from runtime.files import write_whole
from schemas.errors import BackendError, SourceError, UsageError
from schemas.net import NetSpec
from schemas.precision import Precision
from schemas.program import Program
from schemas.program_file import pack_program, unpack_program
from schemas.solver import SolverSpec

if TYPE_CHECKING:
    from compiler.pipeline import Instrument

CPU_TARGETS = ("cpu", "host", "native")


def backend_of(target: str) -> tuple[str, str | None]:
    """Returns the backend and its target name for what the user calls the target."""
    if target in CPU_TARGETS:
        return "cpu", None
    if target == "reference":
        return "reference", None
    if target.startswith(("sm_", "gfx")):
        return "triton", target
    raise UsageError(
        f"unknown target '{target}'", hint="known: cpu, sm_80, sm_90, sm_100, gfx942, reference"
    )


def compile(
    path: str | Path | NetSpec,
    target: str = "cpu",
    *,
    phase: str = "TEST",
    precision: Precision | None = None,
    train: SolverSpec | None = None,
    deploy: bool = False,
    instrument: Instrument | None = None,
    allow_python_layers: bool = False,
) -> Program:
    """Compiles a net for a target: `cpu` (this machine), `sm_90`, `sm_80`, `gfx942`.

    With `train`, the whole training step (forward, backward, update) under that solver, else one
    forward pass of `phase`. `precision` None is the solver's, or what suits the target. Neither a
    GPU nor a driver is needed.
    """
    spec = path if isinstance(path, NetSpec) else read_net(str(path))
    spec = with_python(spec, allow_python_layers)
    graph = build(spec, "TRAIN" if train else phase, probe=probe, deploy=deploy)
    arena = plan_arena(graph)
    step = train_step(graph, arena, train) if train else Step(graph)
    name, own = backend_of(target)
    asked, where = precision, None
    if asked is None and train is not None:
        asked, where = train.precision, train.where("precision")
    backend = get_backend(name, own, asked, where)
    unit = Unit(step.graph, arena, backend, step.names, step.tables)
    if instrument is None:
        return compile_or_load(unit)
    from compiler.pipeline import compile_unit

    return compile_unit(unit, instrument)


def save_program(program: Program, path: str | Path) -> None:
    """Writes a program to a file (`.ndp`), whole or not at all.

    Raises SourceError, and BackendError for a program that does not run without Python layers.
    """
    if program.python_layers:
        listed = ", ".join(f"'{name}'" for name in program.python_layers)
        message = f"program '{program.name}' calls Python layers, which no file can hold: {listed}"
        raise BackendError(message, hint="run the net itself, with allow_python_layers=True")
    try:
        write_whole(Path(path), pack_program(program))
    except OSError as error:
        raise SourceError(f"cannot write {path}: {error.strerror or error}") from None


def load_program(path: str | Path) -> Program:
    """Reads a program from a file. Raises SourceError for anything but a whole program file."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    return unpack_program(content, str(path))
