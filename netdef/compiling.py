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
from runtime.data import probe
from runtime.files import write_whole
from schemas.errors import SourceError, UsageError
from schemas.net import NetSpec
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
    train: SolverSpec | None = None,
    deploy: bool = False,
    instrument: Instrument | None = None,
) -> Program:
    """Compiles a net for a target: `cpu` (this machine), `sm_90`, `sm_80`, `gfx942`.

    With `train`, the whole training step (forward, backward, update) under that solver, else one
    forward pass of `phase`. Neither a GPU nor a driver is needed.
    """
    spec = path if isinstance(path, NetSpec) else read_net(str(path))
    graph = build(spec, "TRAIN" if train else phase, probe=probe, deploy=deploy)
    arena = plan_arena(graph)
    step = train_step(graph, arena, train) if train else Step(graph)
    name, own = backend_of(target)
    unit = Unit(step.graph, arena, get_backend(name, own), step.names, step.tables)
    if instrument is None:
        return compile_or_load(unit)
    from compiler.pipeline import compile_unit

    return compile_unit(unit, instrument)


def save_program(program: Program, path: str | Path) -> None:
    """Writes a program to a file (`.ndp`), whole or not at all. Raises SourceError."""
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
