"""`netdef draw`: a picture of a net's layers."""

from __future__ import annotations

from pathlib import Path

import click

from netdef.cli import options, output


@click.command()
@options.net_argument
@click.option("-o", "--output", "path", required=True, metavar="FILE.svg", help="File to write.")
@options.phase_option()
@options.reading_options
@options.shape_option
@click.option(
    "--unroll",
    type=click.IntRange(min=0),
    default=0,
    metavar="STEPS",
    help="Draw so many time steps of each cycle side by side.",
)
def draw(
    net: str,
    path: str,
    phase: str | None,
    reading: options.Reading,
    shapes: tuple[str, ...],
    unroll: int,
) -> None:
    """Draw NET's layers as an SVG picture.

    Layers that work in place stand in the box of the layer they follow; dashed lines are labels.
    The layers of a cycle stand in a frame; what reads another time step is dashed and violet.
    """
    from netdef import drawing
    from netdef.probing import build_anyhow, shown_phase

    output.check_ending(path, ".svg")
    spec = options.read_net(net, (), reading)
    graph, _ = build_anyhow(spec, phase or shown_phase(spec), options.read_shapes(shapes))
    output.write_file(Path(path), drawing.draw(graph, unroll).encode())
    print(f"{path}: {output.amount(len(graph.layers), 'layer')}, phase {graph.phase}")
