"""The command line: the group of all commands and its entry point."""

from __future__ import annotations

import click

from netdef import __version__
from netdef.cli.guard import Guarded

__all__ = ["cli"]


# Each is loaded when it is called: `netdef --version` must not wait for all of them.
COMMANDS = {
    "train": "netdef.cli.training:train",
    "test": "netdef.cli.testing:test",
    "predict": "netdef.cli.predicting:predict",
    "sample": "netdef.cli.sampling:sample",
    "check": "netdef.cli.checking:check",
    "summary": "netdef.cli.summary:summary",
    "layers": "netdef.cli.layers:layers",
    "inspect": "netdef.cli.inspecting:inspect",
    "draw": "netdef.cli.drawing:draw",
    "time": "netdef.cli.timing:time_",
    "tune": "netdef.cli.tuning:tune",
    "deploy": "netdef.cli.deploying:deploy",
    "compile": "netdef.cli.compiling:compile_",
    "run": "netdef.cli.running:run",
    "convert": "netdef.cli.converting:convert",
    "schema": "netdef.cli.schema:schema",
}


@click.group(cls=Guarded, homes=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="netdef", message="%(prog)s %(version)s")
def cli() -> None:
    """Compile, train and look at neural networks that are written as files.

    NET is a net.yaml or a Caffe prototxt, SOLVER a solver.yaml or a Caffe solver prototxt.

    \b
    First steps:
      netdef check nets/lenet/net.yaml
      netdef train nets/lenet/solver.yaml
    """
