"""The command line: the group of all commands and its entry point."""

from __future__ import annotations

import click

from netdef import __version__
from netdef.cli.checking import check
from netdef.cli.compiling import compile_
from netdef.cli.converting import convert
from netdef.cli.deploying import deploy
from netdef.cli.drawing import draw
from netdef.cli.guard import Guarded
from netdef.cli.inspecting import inspect
from netdef.cli.layers import layers
from netdef.cli.predicting import predict
from netdef.cli.schema import schema
from netdef.cli.summary import summary
from netdef.cli.testing import test
from netdef.cli.timing import time_
from netdef.cli.training import train

__all__ = ["cli", "main"]


@click.group(cls=Guarded, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="netdef", message="%(prog)s %(version)s")
def cli() -> None:
    """Compile, train and look at neural networks that are written as files.

    NET is a net.yaml or a Caffe prototxt, SOLVER a solver.yaml or a Caffe solver prototxt.

    \b
    First steps:
      netdef check nets/lenet/net.yaml
      netdef train nets/lenet/solver.yaml
    """


for command in (
    train, test, predict, check, summary, layers, inspect, draw, time_, deploy, compile_,
    convert, schema
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """Runs the command line and ends the process with its exit status."""
    cli(prog_name="netdef")
