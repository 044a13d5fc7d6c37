"""`netdef summary`: a table of a net's layers, shapes, parameters and work."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output
from netdef.cli.guard import warn

if TYPE_CHECKING:
    from compiler.summary import Summary

HEADS = ("layer", "type", "output", "parameters", "MACs", "activations")
RIGHT = HEADS[3:]


@click.command()
@options.net_argument
@options.phase_option()
@options.shape_option
@options.layer_set_option
@options.json_option
def summary(
    net: str, phase: str | None, shapes: tuple[str, ...], sets: tuple[str, ...], as_json: bool
) -> None:
    """Show a table of NET's layers.

    Output shapes, learned parameters, multiply-accumulates of one forward pass over the batch, and
    the memory of the outputs. Nothing is allocated or compiled: a net of any size can be counted.

    Of a weight file (.caffemodel, .caffemodel.h5, .safetensors): its layers and their blobs.
    """
    from compiler.summary import summarize
    from netdef.cli.weights_summary import is_weights, show_weights
    from netdef.probing import build_anyhow, shown_phase

    if is_weights(net):
        show_weights(net, as_json)
        return
    spec = options.read_net(net, sets)
    phase = phase or shown_phase(spec)
    graph, warnings = build_anyhow(spec, phase, options.read_shapes(shapes))
    warn(warnings)
    found = summarize(graph)
    if as_json:
        output.print_json(document(graph.name, phase, found))
        return
    count = output.amount(len(found.rows), "layer")
    print(f"{graph.name or net}, phase {phase}: {count}\n")
    heads: tuple[str, ...] = (*HEADS, "cycle")
    lines = [*rows(found), (*total(found), "")]
    if not any(row.cycle for row in found.rows):
        heads, lines = HEADS, [line[:-1] for line in lines]
    output.print_table(heads, lines[:-1], lines[-1], RIGHT)


def rows(found: Summary) -> list[tuple[str, ...]]:
    """Returns a line of text cells for each layer; the last says which cycle it is on."""
    return [
        (
            row.layer,
            row.type,
            " ".join(output.shape_text(shape) for _, shape in row.tops) or "-",
            output.count(row.parameters) if row.parameters else "",
            output.count(row.macs) if row.macs else "",
            output.size(row.activation_bytes) if row.activation_bytes else "in place",
            f"{row.cycle.number}: {row.cycle}" if row.cycle else "",
        )
        for row in found.rows
    ]


def total(found: Summary) -> tuple[str, ...]:
    counts = (output.count(found.parameters), output.count(found.macs))
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
        "activation_bytes": found.activation_bytes,
    }
