"""`netdef test`: the mean outputs of a net over its test data."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from netdef.cli import options, output
from netdef.cli.guard import warn

if TYPE_CHECKING:
    from schemas.precision import Precision


@click.command()
@options.net_argument
@options.weights_option()
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Number of batches.",
)
@options.phase_option("TEST")
@options.reading_options
@options.layer_set_option
@options.backend_option
@options.precision_option
@options.threads_option
@options.json_option
def test(
    net: str,
    weights: str,
    iterations: int,
    phase: str,
    reading: options.Reading,
    sets: tuple[str, ...],
    backend: str,
    precision: Precision | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Test NET with trained weights.

    Prints the mean of each output (accuracy, loss ...) over the batches.
    """
    from netdef.evaluating import evaluate
    from netdef.net import load

    spec = options.read_net(net, sets, reading)
    loaded = load(spec, phase, backend, precision=precision, threads=threads)
    try:
        warn([*loaded.spec.warnings, *loaded.graph.warnings, *loaded.load_weights(weights)])
        begun = time.perf_counter()
        outputs = evaluate(loaded, iterations)
        took = time.perf_counter() - begun
    finally:
        loaded.close()
    if as_json:
        document = {"net": loaded.graph.name, "phase": phase, "iterations": iterations}
        output.print_json({**document, "seconds": took, "outputs": outputs})
        return
    batches = output.amount(iterations, "batch")
    print(f"{loaded.graph.name or net}, phase {phase}: {batches} in {output.seconds(took)}")
    for name, value in outputs.items():
        listed = [value] if isinstance(value, float) else value
        print(f"{name} = {', '.join(f'{x:.6g}' for x in listed)}")
