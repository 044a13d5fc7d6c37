"""Runs a net over its data and takes the mean of its outputs, as `caffe test` does."""

from __future__ import annotations

from netdef.net import SEED, Net
from runtime.feeder import Feeder
from runtime.scalars import Scalars
from runtime.testing import run_test
from schemas.errors import UsageError
from schemas.solver import SolverSpec

Outputs = dict[str, float | list[float]]


def evaluate(net: Net, iterations: int) -> Outputs:
    """Returns the mean of each output over so many batches of the net's own data.

    Outputs of one element are floats, others flat lists. Raises UsageError for a net without data.
    """
    if not net.graph.feeds:
        hint = "netdef predict runs it on files"
        message = f"net '{net.graph.name}' has no data layer in phase {net.phase}"
        raise UsageError(message, net.spec.span, hint)
    feeder = Feeder(net.executable, SEED, "test", net.opener)
    try:
        scalars = Scalars(net.executable, SolverSpec(), SEED)
        outputs = run_test(net.executable, feeder, scalars, iterations, 0)
        assert outputs is not None
        return outputs
    finally:
        feeder.close()
