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
    from compiler.ir.graph import Graph

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
    notes: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """Returns the line for a file that is right."""
        if not self.phases:
            return f"{self.file}: ok (solver; its net is not here)"
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
            "notes": self.notes,
        }


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@options.reading_options
@options.shape_option
@options.json_option
def check(
    files: tuple[str, ...],
    strict: bool,
    reading: options.Reading,
    shapes: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check nets and solvers without running them.

    Reads each FILE, connects its layers and works out all shapes, for each phase the net has, and
    each stage that its rules name. Data need not be there: where nothing tells the shape of an
    item, one is assumed, with a question. Exit status 2 if a file has errors.
    """
    given = options.read_shapes(shapes)
    verdicts = []
    for file in files:
        verdict = judge(file, given, reading)
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


def judge(
    file: str, shapes: Mapping[str, Shape], reading: options.Reading = options.PLAIN
) -> Verdict:
    """Reads and builds one file; never raises NetError."""
    from netdef.checks import check_net, check_solver
    from netdef.formats import read_spec
    from schemas.net import NetSpec

    verdict = Verdict(file)
    try:
        spec = read_spec(file, lenient=reading.lenient)
        if isinstance(spec, NetSpec):
            found = check_net(reading.net(spec), shapes, stages=not reading.stages)
        else:
            verdict.kind = "solver"
            found = check_solver(reading.solver(spec), shapes, reading.python)
        verdict.phases = found.phases
        verdict.errors += found.errors
        verdict.warnings += found.warnings
        verdict.notes = found.notes
        _count(verdict, found.graphs)
    except NetError as error:
        verdict.errors += error.flatten()
    verdict.errors = _distinct(verdict.errors)
    verdict.warnings = _distinct(verdict.warnings)
    return verdict


def show(verdict: Verdict) -> None:
    """Prints what is wrong with a file, or that it is right."""
    from schemas.errors import Question

    asked = [w for w in verdict.warnings if isinstance(w, Question)]
    for error in (*asked, *verdict.errors):
        print(error.render(), file=sys.stderr)
    for warning in verdict.warnings:
        if warning not in asked:
            print(warning.render("warning"), file=sys.stderr)
    for note in verdict.notes:
        print(f"{verdict.file}: {note}", file=sys.stderr)
    sys.stderr.flush()
    if not verdict.errors:
        print(verdict.line, flush=True)


def _count(verdict: Verdict, graphs: list[Graph]) -> None:
    """Notes the numbers of the first phase, and warns of a net larger than this machine."""
    from compiler.passes.arena import plan_arena
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
