"""`netdef compile`: a net as a file that runs without netdef's compiler."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from netdef.cli import options, output
from netdef.cli.guard import warn


@click.command("compile")
@options.net_argument
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    metavar="TARGET",
    help="cpu (this machine), sm_80, sm_90, sm_100, gfx942, interpreter (Triton's) or reference.",
)
@options.precision_option
@options.phase_option("TEST")
@functools.partial(options.reading_options, python=False)
@click.option("--deploy", is_flag=True, help="Leave data, label and loss layers out.")
@options.weights_option(required=False)
@click.option("--solver", metavar="SOLVER", help="Compile the whole training step of this solver.")
@options.shape_option
@options.layer_set_option
@click.option("-o", "--output", "path", required=True, metavar="FILE.ndp", help="File to write.")
def compile_(net: str, target: str, path: str, **given: Any) -> None:
    """Compile NET for a target and write the program to a file, with its weights.

    Neither a GPU nor its driver is needed. 'netdef run' runs the file. It is a zip: manifest.json
    says what is in it (docs/ndp.md).
    """
    from netdef.compiling import compile, save_program, with_weights
    from netdef.formats import read_solver
    from netdef.python_layers import without_python
    from schemas.errors import UsageError

    output.check_ending(path, ".ndp")
    if not Path(path).parent.is_dir():  # asked before the long work
        raise UsageError(f"there is no folder '{Path(path).parent}' to write '{path}' to")
    rule = read_solver(given["solver"]) if given["solver"] is not None else None
    alone = without_python(options.read_net(net, given["sets"], given["reading"]))
    program = compile(
        alone,
        target,
        phase=given["phase"],
        precision=given["precision"],
        train=rule,
        deploy=given["deploy"],
        shapes=options.read_shapes(given["shapes"]),
    )
    weights = given["weights"]
    if weights is not None:
        program, warnings = with_weights(program, weights)
        warn(warnings)
    save_program(program, path)
    kernels = sum(len(launch.kernels) for launch in program.launches)
    code = sum(map(len, program.code.values()))
    print(
        f"{path}: {program.name} for {program.target}, {output.amount(kernels, 'kernel')} in "
        f"{output.launches(program)}, {output.size(code)} of code, "
        f"{output.size(program.peak_bytes)} of memory"
    )
    if weights is None and program.params:
        print("weights: the first values of the net's fillers (--weights gives it trained ones)")
