"""What a training step takes at best: bytes over bandwidth, operations over their peak."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from compiler.ir.graph import Graph
from compiler.kernels.kernel import Kernel, load_axes
from compiler.kernels.schedule import Loop, Schedule
from schemas.program import ITEMSIZE, Launch

LAUNCH = 2e-6  # seconds from one kernel of a graph to the next
MEETING = 1.5e-6  # seconds until all programs of a loop have met: said to be 1 to 2, not measured
CACHE_SPEED = 2  # the L2 cache's bandwidth over the memory's, about
WIDTH = {"fp32": 4, "tf32": 4, "bf16": 2}  # bytes of a number that products read


@dataclass(frozen=True, slots=True)
class Peak:
    """What a GPU does in a second: bytes of its memory, and operations by precision.

    `cache` is half of its L2 cache, in bytes: what a loop may find there again in its next step.
    """

    traffic: float
    flops: Mapping[str, float]
    cache: float


# Data sheets, without sparsity; of the memory, about nine tenths. Of sm_90, what an H100 SXM was
# measured to do in bf16, and half of it in tf32. An unknown target counts as an H100.
PEAKS = {
    "sm_80": Peak(1.8e12, {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12}, 20e6),
    "sm_90": Peak(3.0e12, {"fp32": 67e12, "tf32": 399e12, "bf16": 798e12}, 25e6),
    "sm_100": Peak(7.0e12, {"fp32": 80e12, "tf32": 1125e12, "bf16": 2250e12}, 63e6),
    "gfx942": Peak(4.8e12, {"fp32": 163e12, "bf16": 1307e12}, 2e6),
}


def ideal(graph: Graph, precision: str) -> int:
    """Returns the bytes that a training step moves if nothing is moved twice.

    Forward, each blob is written once and read once by each layer; a layer that works in place is
    part of the one before. Backward, a layer reads the gradient of its tops and its bottoms, and
    writes the gradients of these. A learned number is read forward and for the data gradient; its
    gradient is written and read; value and momentum are each read and written, and so is, once,
    the copy that narrower products read.
    """
    width = WIDTH[precision]
    learned = 2 * width + 6 * WIDTH["fp32"] + (width if width < WIDTH["fp32"] else 0)
    numbers = 0
    for layer in graph.layers:
        tops = {name: math.prod(shape) for name, shape in layer.tops}
        bottoms = {name: math.prod(shape) for name, shape in layer.bottoms}
        if not bottoms or tops.keys() & bottoms.keys():
            continue
        reached = sum(size for name, size in bottoms.items() if name not in graph.inputs)
        numbers += 2 * (sum(tops.values()) + sum(bottoms.values())) + reached
    return numbers * width + learned * sum(info.size for info in graph.params.values())


@dataclass(frozen=True, slots=True)
class Steps:
    """The time steps of a loop that is one launch; its programs meet after each row of kernels.

    `again` is how many bytes it reads at the same places in each step: its recurrent weights, and
    what its kernels hand on to each other within a step.
    """

    count: int
    rows: int
    again: int

    def cached(self, peak: Peak) -> int:
        """Returns the bytes that come from the cache: in each step but the first, if they fit."""
        return self.again * (self.count - 1) if self.again <= peak.cache else 0


def loops_of(schedule: Schedule) -> dict[str, Steps]:
    """Returns the loops by name, which is that of the launch if one goes through all steps."""
    return {
        one.name: Steps(one.count, len(one.rows), sum(_again(schedule, one, k) for k in one))
        for one in schedule.launches
        if isinstance(one, Loop)
    }


def _again(schedule: Schedule, loop: Loop, kernel: Kernel) -> int:
    """Returns the bytes that a kernel reads where no pointer moves, as its traffic counts them."""
    total = 0
    for name in kernel.reads() - schedule.byte_moves(loop, kernel).keys():
        buffer, loads = schedule.buffers[name], {x for x in kernel.loads() if x.buffer == name}
        read = sum(math.prod(axis.size for axis in load_axes(x)) for x in loads)
        total += min(buffer.size, read) * ITEMSIZE[buffer.dtype]
    return total


def seconds_of(launch: Launch, peak: Peak, precision: str, steps: Steps | None = None) -> float:
    """Returns the time of a launch, and of its repetitions: of memory or of sums, and to begin."""
    cached = steps.cached(peak) if steps else 0
    moved = sum(k.bytes for k in launch.kernels) - cached + cached / CACHE_SPEED
    summed = sum(
        k.flops / peak.flops[precision if k.kind == "contract" else "fp32"] for k in launch.kernels
    )
    begun = LAUNCH * (launch.repeat.count if launch.repeat else 1)
    if steps and launch.meta.get("cooperative"):
        begun += MEETING * steps.count * steps.rows
    return max(moved / peak.traffic, summed) + begun
