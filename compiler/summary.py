"""Counts a net, layer by layer: shapes, parameters, work, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.ir.graph import Cycle, Graph
from schemas.program import ITEMSIZE

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer. `parameters` counts what it owns: shared blobs count once, at their owner."""

    layer: str
    type: str
    bottoms: tuple[tuple[str, Shape], ...]
    tops: tuple[tuple[str, Shape], ...]
    parameters: int
    macs: int  # multiply-accumulates of one forward pass over the batch
    activation_bytes: int  # of the tops; one worked on in place takes none
    cycle: Cycle | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """All layers and their totals."""

    rows: tuple[Row, ...]
    parameters: int
    macs: int
    activation_bytes: int
    batch: int  # items, or sequences, in the batch; 1 where the inputs do not agree on a number

    @property
    def macs_an_item(self) -> int:
        """Multiply-accumulates of one forward pass of one item, the figure that papers tell."""
        return self.macs // self.batch


def summarize(graph: Graph) -> Summary:
    """Returns one row a layer, in the order in which they are computed, and the totals.

    Nothing is allocated: a layer of 1.6 billion weights is counted as quickly as any other.
    """
    seen: set[str] = set()
    rows: list[Row] = []
    for info in graph.layers:
        own = [key for key in info.params if key not in seen]
        seen.update(own)
        reused = {name for name, _ in info.bottoms}
        size = sum(math.prod(shape) for name, shape in info.tops if name not in reused)
        rows.append(
            Row(
                info.name,
                info.type,
                info.bottoms,
                info.tops,
                sum(graph.params[key].size for key in dict.fromkeys(own)),
                info.macs,
                size * ITEMSIZE["f32"],
                info.cycle,
            )
        )
    return Summary(
        tuple(rows),
        sum(row.parameters for row in rows),
        sum(row.macs for row in rows),
        sum(row.activation_bytes for row in rows),
        _batch(graph, rows),
    )


def _batch(graph: Graph, rows: list[Row]) -> int:
    """Returns the number of items that every input holds and every layer works on, else 1.

    Time is the first axis of sequences, (T, N, ...): an item is one of the N.
    """
    states = {r.leaf.shape[1:2] for r in graph.recurrences}
    if states:
        (batch,) = (states.pop() if len(states) == 1 else ()) or (1,)
        if any(batch not in node.shape[:2] for node in graph.inputs.values()):
            return 1
    else:
        sizes = {node.shape[0] if node.shape else 1 for node in graph.inputs.values()}
        batch = sizes.pop() if len(sizes) == 1 else 1
    return 1 if batch < 1 or any(row.macs % batch for row in rows) else batch
