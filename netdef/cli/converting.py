"""`netdef convert`: a net, a solver or weights in another file format."""

from __future__ import annotations

from pathlib import Path

import click

from netdef.cli import options, output
from netdef.cli.guard import warn


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--net", metavar="NET", help="Net of the weights: it tells the names of their blobs.")
@options.reading_options
@options.shape_option
def convert(
    source: str,
    target: str,
    net: str | None,
    reading: options.Reading,
    shapes: tuple[str, ...],
) -> None:
    """Convert a file; the extensions say from what to what.

    \b
    Nets and solvers:  .yaml  .prototxt  .netdef.pb  .netdef.pbtxt
    Weights:           .safetensors  .caffemodel  .caffemodel.h5

    Files convert without loss: what a net.yaml leaves out or writes as blocks is filled in. Without
    --net, the blobs of weights are called weight and bias by their number.
    """
    from netdef.converting import convert_spec, convert_weights
    from runtime.weights import format_of
    from schemas.errors import UsageError

    kinds = [format_of(Path(file)) is not None for file in (source, target)]
    if not any(kinds):
        content, warnings = convert_spec(source, target, reading.lenient)
        warn(warnings)
        output.write_file(Path(target), content)
        return
    if not all(kinds):
        hint = "weights are .safetensors, .caffemodel or .caffemodel.h5"
        raise UsageError(f"'{source}' and '{target}' are not of one kind", hint=hint)
    layers = None
    if net is not None:
        from compiler.assemble import layer_blobs
        from netdef.probing import build_anyhow, shown_phase

        spec = options.read_net(net, (), reading)
        graph, _ = build_anyhow(spec, shown_phase(spec), options.read_shapes(shapes))
        layers = layer_blobs(graph)
    warn(convert_weights(Path(source), Path(target), layers))
