"""`netdef tune`: searches the tilings of a net's contractions, and keeps those that are faster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netdef.cli import options, output

if TYPE_CHECKING:
    from compiler.passes.arena import Arena
    from compiler.passes.update import Step
    from netdef.tuning import Contraction, Search
    from schemas.precision import Precision

HEADS = ("kernel", "kernels", "of the model", "found", "ms", "ms found", "of it")


@click.command()
@click.argument("file", metavar="NET_OR_SOLVER")
@click.option("-o", "--output", "out", metavar="FILE.json", help="Table to write, or to add to.")
@options.reading_options
@options.shape_option
@options.set_option
@options.backend_option
@options.precision_option
@options.threads_option
def tune(
    file: str,
    out: str | None,
    reading: options.Reading,
    shapes: tuple[str, ...],
    sets: tuple[str, ...],
    backend: str,
    precision: Precision | None,
    threads: int | None,
) -> None:
    """Search faster tilings of the convolutions and products of NET_OR_SOLVER on this machine.

    A model of the processor chooses how big the tiles of a contraction are. This command times its
    choice beside others, in the training step and in a forward pass, and keeps what is at least 3 %
    faster in a table that later compilations of any net look into. Ctrl-C keeps what was found so
    far.

    The table lies in the user's folder for caches (~/.cache/netdef/tilings), one file for each
    processor or kind of GPU; -o writes another file, which only takes effect if it is put there.
    To forget it, delete the file.

    On the cpu, results are the same bits with any table. On a GPU another tile adds up a sum in
    other blocks: there, runs are repeated bit by bit with the same table.
    """
    from compiler import tilings
    from netdef.engine import open_engine
    from netdef.tuning import Search, clock_of, merge
    from schemas.errors import GraphError, UsageError

    if out is not None:
        output.check_ending(out, ".json")
    steps = list(_steps(file, sets, reading, options.read_shapes(shapes)))
    engine = open_engine(backend, threads=threads, precision=precision)
    found: list[Contraction] = []
    try:
        clock, device = clock_of(engine), engine.backend.tilings.device
        table = Path(out) if out is not None else tilings.file_of(device)
        if table is None:
            raise UsageError("there is no folder for caches", hint="give -o a name")
        print(f"{file} on {engine.describe()}, {engine.backend.precision}")
        seen: set[str] = set()
        for step, arena in steps:
            search = Search(engine, step, arena, clock, seen)
            seen |= search.contractions.keys()
            found += search.contractions.values()
            for n, _ in enumerate(search.run(), 1):
                merge(table, device, search.contractions)
                _progress(step, n, search)
    finally:
        engine.close()
    if not found:
        graph = steps[0][0].graph
        message = f"net '{graph.name}' has no contraction with tiles to choose"
        raise GraphError(message, graph.spec.span, "convolutions and large products have some")
    _show(found)
    print(f"{table}: what is faster is taken from now on")


def _steps(
    file: str, sets: tuple[str, ...], reading: options.Reading, shapes: dict[str, options.Shape]
) -> Iterator[tuple[Step, Arena]]:
    """Yields the training step of a net or solver, if it has one, and its forward passes."""
    from netdef.formats import apply_set, read_spec
    from netdef.probing import phases_used
    from netdef.solver import nets_of
    from netdef.stepping import step_of
    from schemas.net import NetSpec

    spec = read_spec(file, lenient=reading.lenient)
    if isinstance(spec, NetSpec):
        net, _ = apply_set(spec, None, sets)
        assert net is not None
        net = reading.net(net)
        for phase in phases_used(net):
            yield step_of(net, phase, shapes)[:2]
        return
    nets, spec = nets_of(reading.solver(spec), sets, reading.python)
    for net, state in nets:
        yield step_of(replace(net, state=state), state.phase, shapes, spec)[:2]


def _progress(step: Step, n: int, search: Search) -> None:
    many = len(search.contractions)
    print(
        f"phase {step.graph.phase}, round {n} of {search.rounds}: "
        f"{len(search.found())} of {output.amount(many, 'contraction')} faster"
    )


def _show(found: list[Contraction]) -> None:
    """Prints what became faster, and what that is of all."""
    from compiler.tilings import in_words

    rows = [
        (c.kernels[0], str(len(c.kernels)), in_words(c.tunable.tilings[0]), in_words(c.best),
         f"{1e3 * c.before:.3f}", f"{1e3 * c.after:.3f}", f"{c.ratio:.0%}")
        for c in found if c.best is not None
    ]  # fmt: skip
    if rows:
        print()
        output.print_table(HEADS, rows, right=("kernels", *HEADS[4:]))
    print(f"\n{len(rows)} of {output.amount(len(found), 'contraction')} faster in other tiles")
