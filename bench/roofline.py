"""What a training step takes at best: bytes over bandwidth, operations over their peak."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from compiler.graph import Graph
from schemas.program import Launch

LAUNCH = 2e-6  # seconds from one kernel of a graph to the next
WIDTH = {"fp32": 4, "tf32": 4, "bf16": 2}  # bytes of a number that products read


@dataclass(frozen=True, slots=True)
class Peak:
    """What a GPU does in a second: bytes of its memory, and operations by precision."""

    traffic: float
    flops: Mapping[str, float]


# Data sheets, without sparsity; of the memory, about nine tenths. Of sm_90, what an H100 SXM was
# measured to do in bf16, and half of it in tf32. An unknown target counts as an H100.
PEAKS = {
    "sm_80": Peak(1.8e12, {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12}),
    "sm_90": Peak(3.0e12, {"fp32": 67e12, "tf32": 399e12, "bf16": 798e12}),
    "sm_100": Peak(7.0e12, {"fp32": 80e12, "tf32": 1125e12, "bf16": 2250e12}),
    "gfx942": Peak(4.8e12, {"fp32": 163e12, "bf16": 1307e12}),
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


def seconds_of(launch: Launch, peak: Peak, precision: str) -> float:
    """Returns the time of a launch, and of its repetitions: of memory or of sums, and to begin."""
    moved = sum(k.bytes for k in launch.kernels) / peak.traffic
    summed = sum(
        k.flops / peak.flops[precision if k.kind == "contract" else "fp32"] for k in launch.kernels
    )
    return max(moved, summed) + LAUNCH * (launch.repeat.count if launch.repeat else 1)
