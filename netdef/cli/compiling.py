"""`netdef compile`: a net as a file that runs without netdef's compiler."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netdef.cli import options, output

if TYPE_CHECKING:
    from schemas.precision import Precision


@click.command("compile")
@options.net_argument
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    metavar="TARGET",
    help="cpu (this machine), sm_80, sm_90, sm_100, gfx942 or reference.",
)
@options.precision_option
@options.phase_option("TEST")
@functools.partial(options.reading_options, python=False)
@click.option("--deploy", is_flag=True, help="Leave data, label and loss layers out.")
@click.option("--solver", metavar="SOLVER", help="Compile the whole training step of this solver.")
@click.option("-o", "--output", "path", required=True, metavar="FILE.ndp", help="File to write.")
def compile_(
    net: str,
    target: str,
    precision: Precision | None,
    phase: str,
    reading: options.Reading,
    deploy: bool,
    solver: str | None,
    path: str,
) -> None:
    """Compile NET for a target and write the program to a file.

    Neither a GPU nor its driver is needed. The file is a zip: manifest.json says what is in it.
    """
    from netdef.compiling import compile, save_program
    from netdef.formats import read_solver
    from netdef.python_layers import without_python
    from schemas.errors import UsageError

    if not Path(path).parent.is_dir():  # asked before the long work
        raise UsageError(f"there is no folder '{Path(path).parent}' to write '{path}' to")
    spec = read_solver(solver) if solver is not None else None
    alone = without_python(options.read_net(net, (), reading))
    program = compile(alone, target, phase=phase, precision=precision, train=spec, deploy=deploy)
    save_program(program, path)
    kernels = sum(len(launch.kernels) for launch in program.launches)
    code = sum(map(len, program.code.values()))
    print(
        f"{path}: {program.name} for {program.target}, {output.amount(kernels, 'kernel')} in "
        f"{output.launches(program)}, {output.size(code)} of code, "
        f"{output.size(program.peak_bytes)} of memory"
    )
