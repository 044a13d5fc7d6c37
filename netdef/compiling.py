"""Compiles a net to a Program that stands alone, without running it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from compiler.backends import get_backend
from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from compiler.reuse import compile_or_load
from compiler.unit import Unit
from netdef import __version__
from netdef.engine import forward_step
from netdef.filtering import next_filter
from netdef.formats import read_net
from netdef.net import SEED
from netdef.probing import Prober, written
from netdef.python_layers import with_python
from netdef.spec_text import net_yaml
from runtime.contents import Contents
from runtime.files import write_whole
from runtime.params import initialise
from runtime.weights import load_weights, weight_files
from schemas.errors import BackendError, SourceError, UsageError
from schemas.net import NetSpec
from schemas.precision import Precision
from schemas.program import Program
from schemas.program_file import pack_program
from schemas.solver import SolverSpec

Shape = tuple[int, ...]
CPU_TARGETS = ("cpu", "host", "native")


def backend_of(target: str) -> tuple[str, str | None]:
    """Returns the backend and its target name for what the user calls the target."""
    if target in CPU_TARGETS:
        return "cpu", None
    if target == "reference":
        return "reference", None
    if target == "interpreter" or target.startswith(("sm_", "gfx")):
        return "triton", target
    known = "cpu, sm_80, sm_90, sm_100, gfx942, interpreter, reference"
    raise UsageError(f"unknown target '{target}'", hint=f"known: {known}")


def compile(
    path: str | Path | NetSpec,
    target: str = "cpu",
    *,
    phase: str = "TEST",
    precision: Precision | None = None,
    train: SolverSpec | None = None,
    deploy: bool = False,
    weights: str | Path | None = None,
    shapes: Mapping[str, Shape] | None = None,
    allow_python_layers: bool = False,
) -> Program:
    """Compiles a net for a target: `cpu` (this machine), `sm_90`, `sm_80`, `gfx942`.

    With `train`, the whole training step (forward, backward, update) under that solver, else one
    forward pass of `phase`. `precision` None is the solver's, or what suits the target. Neither a
    GPU nor a driver is needed. The program begins with the `weights` of a file, without one with
    those that `netdef.load` gives the net. `shapes` of inputs and data layers are as for
    --input-shape.
    """
    spec = path if isinstance(path, NetSpec) else read_net(str(path))
    spec = with_python(spec, allow_python_layers)
    phase, given = "TRAIN" if train else phase, shapes or {}
    inputs = written(spec, given)
    graph = build(spec, phase, probe=Prober(given), inputs=inputs, deploy=deploy)
    if train is None and (layer := next_filter(graph)) is not None:
        message = f"layer '{layer.name}' (Filter): how many items it gives is known only in a run"
        raise BackendError(message, layer.span, hint="netdef.load runs such a net")
    arena = plan_arena(graph)
    step = train_step(graph, arena, train) if train else forward_step(graph)
    name, own = backend_of(target)
    asked, where = precision, None
    if asked is None and train is not None:
        asked, where = train.precision, train.where("precision")
    backend = get_backend(name, own, asked, where)
    unit = Unit(step.graph, arena, backend, step.names, step.tables)
    contents = Contents(compile_or_load(unit))
    initialise(contents, SEED, graph.first)
    program = _signed(contents.filled(), spec, "training" if train else "forward")
    return program if weights is None else with_weights(program, weights)[0]


def with_weights(program: Program, path: str | Path) -> tuple[Program, list[str]]:
    """Returns the program with the weights of a file, or several, and what does not match.

    Raises SourceError for a file that cannot be read or does not fit.
    """
    contents, files = Contents(program), weight_files(path)
    warnings = [text for file in files for text in load_weights(contents, file)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    made = contents.filled()
    return replace(made, meta={**made.meta, "weights": digests}), warnings


def _signed(program: Program, spec: NetSpec, step: str) -> Program:
    """Returns the program with what it was made from; no time: equal nets make equal files."""
    net = hashlib.sha256(net_yaml(spec).encode()).hexdigest()
    made = {"netdef": __version__, "net": net, "step": step, "weights": []}
    return replace(program, meta={**program.meta, **made})


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
