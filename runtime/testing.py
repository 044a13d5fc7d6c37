"""One pass over a test net: the mean of each output over several batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.executable import Executable
from runtime.feeder import Feeder
from runtime.scalars import Scalars
from runtime.sinks import Sinks
from schemas.program import Program

Array = np.ndarray[Any, Any]
Outputs = dict[str, float | list[float]]
LARGEST = 709.0  # whose exponential a float can hold
READ_EVERY = 256  # runs between two reads of the logged outputs


def run_test(
    exe: Executable,
    feeder: Feeder,
    scalars: Scalars,
    batches: int,
    iteration: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Outputs | None:
    """Returns the mean of each net output over `batches` runs, summed in float64.

    Outputs of one element are floats, others flat lists; a net of one loss that reads text has its
    perplexity besides. Returns None if `stopped` says so.
    HDF5Output layers write the rows of this pass, unless it is stopped or fails.
    """
    with Sinks(exe.program.sinks) as sinks:
        means = _run(exe, feeder, scalars, batches, iteration, stopped, sinks)
    return means if means is None else means | _perplexity(exe.program, means)


def _perplexity(program: Program, means: Outputs) -> Outputs:
    """Returns exp(loss) of a net of characters: among how many it hesitates, on average.

    It is that of the mean loss, not a mean over batches as a layer would give.
    """
    losses = [means[name] for name in program.loss_weights]
    if len(losses) != 1 or not any(feed.type == "TextData" for feed in program.feeds):
        return {}
    loss = losses[0]
    assert isinstance(loss, float)
    return {"perplexity": math.exp(loss) if loss < LARGEST else math.inf}


def _run(
    exe: Executable,
    feeder: Feeder,
    scalars: Scalars,
    batches: int,
    iteration: int,
    stopped: Callable[[], bool],
    sinks: Sinks,
) -> Outputs | None:
    program = exe.program
    single = tuple(n for n in program.outputs if math.prod(program.tensors[n].shape) == 1)
    sums: dict[str, Array] = {n: np.zeros(1) for n in single}
    waiting = 0
    for batch in range(batches):
        if stopped():
            exe.drain()
            sinks.discard()
            return None
        feeder.feed()
        scalars.write(iteration, 0.0, batch, batches)
        exe.run(log=single)
        sinks.collect(exe)
        waiting += 1
        if waiting == READ_EVERY or batch == batches - 1:
            for row in exe.drain() if single else []:
                for name in single:
                    sums[name] += row[name]
            waiting = 0
        for name in program.outputs:
            if name not in single:
                value = np.asarray(exe.read(name), np.float64).ravel()
                sums[name] = sums[name] + value if name in sums else value
    means = {n: (sums[n] / max(1, batches)).tolist() for n in program.outputs if n in sums}
    return {n: mean[0] if n in single else mean for n, mean in means.items()}
