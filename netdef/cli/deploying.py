"""`netdef deploy`: the net for use of a net for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from netdef.cli import options, output
from netdef.cli.guard import warn

if TYPE_CHECKING:
    from netdef.deploying import Deployed


@click.command()
@options.net_argument
@options.weights_option(required=False)
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="Net file to write.")
@options.reading_options
@options.shape_option
@options.layer_set_option
def deploy(
    net: str,
    weights: str | None,
    out: str,
    reading: options.Reading,
    shapes: tuple[str, ...],
    sets: tuple[str, ...],
) -> None:
    """Write the net for use of NET: inputs in place of data, no labels, losses or dropout.

    OUT is .yaml, .prototxt, .netdef.pb or .netdef.pbtxt. With --weights, batch statistics and
    slopes are folded into the layers before them, and the new weights are written beside OUT:
    .caffemodel beside a .prototxt, else .safetensors.
    """
    from netdef.converting import spec_bytes
    from netdef.deploying import deployed_net, weights_beside, write_weights
    from schemas.errors import UsageError

    spec = options.read_net(net, sets, reading)
    beside = weights_beside(out)
    written = [Path(out)] + ([beside] if weights else [])
    given = [net, *(weights.split(",") if weights else ())]
    for path in written:
        if any(path.resolve() == Path(file.strip()).resolve() for file in given):
            raise UsageError(f"'{path}' would be written over itself", hint="give -o another name")
    made = deployed_net(spec, options.read_shapes(shapes), weights)
    content = spec_bytes(made.spec, out)
    warn(made.warnings)
    if weights:
        write_weights(beside, made)
    output.write_file(Path(out), content)
    _show(out, beside if weights else None, len(spec.layers), made)


def _show(out: str, beside: Path | None, before: int, made: Deployed) -> None:
    """Prints what was written, and what the user has to know of it."""
    print(f"{out}: {output.amount(len(made.spec.layers), 'layer')}, {before} before")
    if beside is not None:
        folded = output.amount(len(made.folded), "layer")
        print(f"{beside}: weights, {folded} folded into the one before")
    elif made.unfolded:
        left = output.amount(made.unfolded, "layer")
        print(f"{left} of batch statistics or slopes left as they are: --weights folds what it can")
    for name, fields in made.treatment.items():
        listed = ", ".join(f"{key} {_plain(value)}" for key, value in fields.items())
        print(f"input '{name}' takes values as the data layer gave them: {listed}")


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
