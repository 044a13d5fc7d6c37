"""`netdef check`: reads and builds files, and says whether they are right."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output
from netdef.cli.guard import MISTAKE
from schemas.errors import NetError

if TYPE_CHECKING:
    from compiler.graph import Graph
    from netdef.probing import Prober

Shape = tuple[int, ...]


@dataclass
class Verdict:
    """What is known of one file."""

    file: str
    kind: str = "net"
    name: str = ""
    phases: tuple[str, ...] = ()
    layers: int = 0
    parameters: int = 0
    errors: list[NetError] = field(default_factory=list)
    warnings: list[NetError] = field(default_factory=list)

    @property
    def line(self) -> str:
        """Returns the line for a file that is right."""
        counts = (
            f"{output.amount(self.layers, 'layer')}, {output.amount(self.parameters, 'parameter')}"
        )
        title = f"{self.name}: " if self.name else ""
        kind = "solver of " if self.kind == "solver" else ""
        return f"{self.file}: ok ({kind}{title}{counts})"

    def document(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "ok": not self.errors,
            "kind": self.kind,
            "name": self.name,
            "phases": self.phases,
            "layers": self.layers,
            "parameters": self.parameters,
            "errors": [_plain(e) for e in self.errors],
            "warnings": [_plain(w) for w in self.warnings],
        }


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@options.shape_option
@options.python_option
@options.json_option
def check(
    files: tuple[str, ...], strict: bool, shapes: tuple[str, ...], python: bool, as_json: bool
) -> int:
    """Check nets and solvers without running them.

    Reads each FILE, connects its layers and works out all shapes, for each phase the net has.
    Exit status 2 if a file has errors.
    """
    given = options.read_shapes(shapes)
    verdicts = []
    for file in files:
        verdict = judge(file, given, python)
        if strict:
            verdict.errors += verdict.warnings
            verdict.warnings = []
        verdicts.append(verdict)
        if not as_json:
            show(verdict)
    if as_json:
        documents = [verdict.document() for verdict in verdicts]
        output.print_json(documents[0] if len(documents) == 1 else documents)
    else:
        errors = sum(len(verdict.errors) for verdict in verdicts)
        if errors > 1:
            print(f"{errors} errors", file=sys.stderr)
    return MISTAKE if any(verdict.errors for verdict in verdicts) else 0


def judge(file: str, shapes: Mapping[str, Shape], python: bool = False) -> Verdict:
    """Reads and builds one file; never raises NetError. `python`: its Python layers may run."""
    from netdef.formats import read_spec
    from netdef.python_layers import with_python
    from schemas.net import NetSpec

    verdict = Verdict(file)
    try:
        spec = read_spec(file)
        if isinstance(spec, NetSpec):
            _net(verdict, with_python(spec, python), shapes)
        else:
            _solver(verdict, spec, shapes, python)
    except NetError as error:
        verdict.errors += error.flatten()
    verdict.errors = _distinct(verdict.errors)
    verdict.warnings = _distinct(verdict.warnings)
    return verdict


def show(verdict: Verdict) -> None:
    """Prints what is wrong with a file, or that it is right."""
    for error in verdict.errors:
        print(error.render(), file=sys.stderr)
    for warning in verdict.warnings:
        print(warning.render("warning"), file=sys.stderr)
    sys.stderr.flush()
    if not verdict.errors:
        print(verdict.line, flush=True)


def _net(verdict: Verdict, spec: Any, shapes: Mapping[str, Shape]) -> None:
    from netdef.probing import build_anyhow, phases_used

    graphs = []
    verdict.phases = phases_used(spec)
    for phase in verdict.phases:
        try:
            graph, warnings = build_anyhow(spec, phase, shapes)
        except NetError as error:
            verdict.errors += error.flatten()
            continue
        graphs.append(graph)
        verdict.warnings += warnings
    _count(verdict, graphs)


def _solver(verdict: Verdict, spec: Any, shapes: Mapping[str, Shape], python: bool) -> None:
    from netdef.probing import Prober
    from netdef.solver import plan_solver
    from runtime.schedule import check_schedule
    from schemas.errors import Diagnostics

    verdict.kind = "solver"
    diagnostics = Diagnostics()
    check_schedule(spec, diagnostics)
    diagnostics.raise_if_any()
    prober: Prober = Prober(shapes)
    plan = plan_solver(spec, probe=prober, allow_python_layers=python)
    verdict.phases = ("TRAIN", *("TEST" for _ in plan.tests))
    graphs = [plan.train, *plan.tests]
    for graph in graphs:
        verdict.warnings += [*graph.spec.warnings, *graph.warnings]
    verdict.warnings += prober.warnings
    _count(verdict, graphs)


def _count(verdict: Verdict, graphs: list[Graph]) -> None:
    """Notes the numbers of the first phase, and warns of a net larger than this machine."""
    from compiler.arena import plan_arena
    from netdef.engine import LARGEST_MACHINE, check_fits, least_bytes, machine_memory
    from schemas.errors import ResourceError

    for graph in graphs[:1]:
        verdict.name = graph.name
        verdict.layers = len(graph.layers)
        verdict.parameters = sum(info.size for info in graph.params.values())
    memory = machine_memory()
    for graph in graphs:
        try:
            check_fits([graph], arena := plan_arena(graph), memory)
        except ResourceError as error:
            hopeless = least_bytes(graph, arena) > LARGEST_MACHINE
            (verdict.errors if hopeless else verdict.warnings).append(error)


def _distinct(errors: list[NetError]) -> list[NetError]:
    """Returns each error once: most of them are found in both phases."""
    return list({error.render(): error for error in errors}.values())


def _plain(error: NetError) -> dict[str, Any]:
    span = error.span
    return {
        "message": error.message,
        "file": span.file if span else None,
        "line": span.line if span else None,
        "column": span.column if span else None,
        "hint": error.hint,
    }
