"""`netdef summary`: a table of a net's layers, shapes, parameters and work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output
from netdef.cli.guard import warn

if TYPE_CHECKING:
    from compiler.summary import Summary

HEADS = ("layer", "type", "output", "parameters", "MACs", "activations")


@click.command()
@options.net_argument
@options.phase_option()
@options.reading_options
@options.shape_option
@options.layer_set_option
@options.json_option
def summary(
    net: str,
    phase: str | None,
    reading: options.Reading,
    shapes: tuple[str, ...],
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show a table of NET's layers.

    Output shapes, learned parameters, multiply-accumulates (MACs) of one item's forward pass, each
    one multiplication and one addition, and the memory of the outputs of the whole batch. An item
    of a recurrent net is a sequence. Nothing is allocated or compiled: a net of any size can be
    counted.

    Of a weight file (.caffemodel, .caffemodel.h5, .safetensors): its layers and their blobs.
    """
    from compiler.summary import summarize
    from netdef.cli.weights_summary import is_weights, show_weights
    from netdef.probing import build_anyhow, shown_phase

    if is_weights(net):
        show_weights(net, as_json)
        return
    spec = options.read_net(net, sets, reading)
    phase = phase or shown_phase(spec)
    graph, warnings = build_anyhow(spec, phase, options.read_shapes(shapes))
    warn(warnings, net)
    found = summarize(graph)
    if as_json:
        output.print_json(document(graph.name, phase, found))
        return
    count = output.amount(len(found.rows), "layer")
    batch, an_item = (f", batches of {found.batch}", " an item") if found.batch > 1 else ("", "")
    print(f"{graph.name or net}, phase {phase}: {count}{batch}\n")
    heads = [*(head + an_item * (head == "MACs") for head in HEADS), "cycle"]
    lines = [*rows(found), (*total(found), "")]
    if not any(row.cycle for row in found.rows):
        heads, lines = heads[:-1], [line[:-1] for line in lines]
    output.print_table(heads, lines[:-1], lines[-1], heads[3:6])
    print(f"\n{in_words(found)}")


def rows(found: Summary) -> list[tuple[str, ...]]:
    """Returns a line of text cells for each layer; the last says which cycle it is on."""
    return [
        (
            row.layer,
            row.type,
            shapes_text([shape for _, shape in row.tops]),
            output.count(row.parameters) if row.parameters else "",
            output.count(row.macs // found.batch) if row.macs else "",
            output.size(row.activation_bytes) if row.activation_bytes else "in place",
            f"{row.cycle.number}: {row.cycle}" if row.cycle else "",
        )
        for row in found.rows
    ]


def shapes_text(shapes: Sequence[tuple[int, ...]]) -> str:
    """Returns the shapes of a layer's tops, equal neighbours as one: `6 of 64x1x14x14`."""
    runs = [(shape, len(list(run))) for shape, run in groupby(map(output.shape_text, shapes))]
    return " ".join(f"{count} of {shape}" if count > 1 else shape for shape, count in runs) or "-"


def in_words(found: Summary) -> str:
    """Returns the totals as one says them: 61.0 M parameters (232.6 MiB), 724 M MACs an item."""
    memory = output.size(4 * found.parameters)  # as float32
    parameters, macs = output.short(found.parameters), output.short(found.macs_an_item)
    an_item = " an item" if found.batch > 1 else ""
    return f"{parameters} parameters ({memory}), {macs} multiply-accumulates{an_item}"


def total(found: Summary) -> tuple[str, ...]:
    counts = (output.count(found.parameters), output.count(found.macs_an_item))
    return ("total", "", "", *counts, output.size(found.activation_bytes))


def document(name: str, phase: str, found: Summary) -> dict[str, Any]:
    """Returns the summary as plain data."""
    return {
        "net": name,
        "phase": phase,
        "layers": [
            {
                "layer": row.layer,
                "type": row.type,
                "bottoms": {name: list(shape) for name, shape in row.bottoms},
                "tops": {name: list(shape) for name, shape in row.tops},
                "parameters": row.parameters,
                "macs": row.macs,
                "activation_bytes": row.activation_bytes,
                "cycle": asdict(row.cycle) if row.cycle else None,
            }
            for row in found.rows
        ],
        "parameters": found.parameters,
        "macs": found.macs,
        "batch": found.batch,
        "macs_an_item": found.macs_an_item,
        "activation_bytes": found.activation_bytes,
    }
