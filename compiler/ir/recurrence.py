"""Recurrences: nodes that are a blob of another time step, and the loops that they close.

A sequence is one tensor with time as its first axis, (T, N, ...), and every layer works on all of
it. What makes a net recurrent is a node `delayed` that stands for another node of the same graph,
shifted in time:

    leaf[t] = source[t - delay]   where there is such a step, else a row of `initial`

So the graph itself stays without cycles, and all that does not hang between a leaf and its source
is plain work on T*N rows. The gradient is of the same kind: what reaches `source` from later steps
is a leaf, and its source is the gradient of the old leaf (`compiler/passes/autodiff.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compiler.ir.node import Node, toposort
from compiler.prims.leaves import const
from compiler.prims.maps import less, select, stop
from compiler.prims.moves import broadcast, concat, delayed, reshape, slice_axis


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A `delayed` node and what it is delayed from. A negative delay reads the future."""

    leaf: Node
    source: Node

    @property
    def delay(self) -> int:
        by: int = self.leaf.attr("by")
        return by

    @property
    def initial(self) -> Node:
        """Returns the |delay| rows before the first step (behind the last one)."""
        return self.leaf.src[0]


def from_zeros(name: str, shape: tuple[int, ...], by: int) -> Node:
    """Returns a delayed node of zeros beyond the ends of the sequence."""
    return delayed(name, shape, by, broadcast(const(0.0), (abs(by), *shape[1:])))


def closed(roots: Iterable[Node], recurrences: Sequence[Recurrence]) -> list[Node]:
    """Returns the roots, as they are, and then the sources of the delayed nodes below them."""
    found = list(roots)
    behind = {r.leaf: r.source for r in recurrences}
    waiting = found if behind else []
    while waiting:
        waiting = [behind.pop(n) for n in toposort(waiting) if n in behind]
        found = [*found, *waiting]
    return found


def truncated(leaf: Node, unroll: int) -> Node:
    """Returns the leaf such that no gradient leaves a block of `unroll` steps, 0: of all steps."""
    steps, by = leaf.shape[0], leaf.attr("by")
    if not 0 < unroll < steps:
        return leaf
    rows = min(abs(by), unroll)
    blocks = -(-steps // unroll)
    edge = broadcast(const(1.0), (blocks, rows))
    if rows < unroll:
        rest = broadcast(const(0.0), (blocks, unroll - rows))
        edge = concat((edge, rest) if by > 0 else (rest, edge), 1)
    marks = slice_axis(reshape(edge, (blocks * unroll,)), 0, 0, steps)
    mask = broadcast(reshape(marks, (steps, *[1] * (leaf.type.rank - 1))), leaf.shape)
    return select(less(0.5, mask), stop(leaf), leaf)


def short(r: Recurrence) -> bool:
    """Says whether a sequence is so short that its delayed reader sees nothing of it."""
    return abs(r.delay) >= r.leaf.shape[0]


def shifted(r: Recurrence) -> Node:
    """Returns the leaf as plain moves, for a source that does not depend on it."""
    steps, rows = r.leaf.shape[0], abs(r.delay)
    if short(r):
        start = 0 if r.delay > 0 else rows - steps
        return slice_axis(r.initial, 0, start, start + steps)
    if r.delay > 0:
        return concat((r.initial, slice_axis(r.source, 0, 0, steps - rows)), 0)
    return concat((slice_axis(r.source, 0, rows, steps), r.initial), 0)


def loops(
    order: Sequence[Node], recurrences: Sequence[Recurrence]
) -> tuple[dict[Node, int], dict[Node, int]]:
    """Returns the loop, from 1 on, of each node between a delayed one and its source.

    And that of each delayed node. `order` has sources first. Delayed nodes that wait for each
    other's sources are one loop; one that its source does not depend on is in none.
    """
    bit = {r.leaf: 1 << i for i, r in enumerate(recurrences)}
    below: dict[Node, int] = {}  # the delayed nodes that a node depends on
    for node in order:
        mask = bit.get(node, 0)
        for source in node.src if node.prim != "delayed" else ():
            mask |= below.get(source, 0)
        if mask:
            below[node] = mask
    needs = [below.get(r.source, 0) for r in recurrences]  # i waits for these
    for k in range(len(needs)):  # transitive closure
        for i in range(len(needs)):
            if needs[i] >> k & 1:
                needs[i] |= needs[k]
    members: list[int] = []  # of each loop, as bits
    for i in range(len(needs)):
        mates = sum(1 << j for j in range(len(needs)) if needs[i] >> j & 1 and needs[j] >> i & 1)
        if mates and mates not in members:
            members.append(mates)
    above: dict[Node, int] = {}  # the sources that depend on a node
    for i, r in enumerate(recurrences):
        above[r.source] = above.get(r.source, 0) | 1 << i
    for node in reversed(order):
        mask = above.get(node, 0)
        for source in node.src if mask and node.prim != "delayed" else ():
            above[source] = above.get(source, 0) | mask
    inner = {
        node: n
        for node, mask in below.items()
        for n, mates in enumerate(members, 1)
        if node.prim != "delayed" and mask & mates and above.get(node, 0) & mates
    }
    ends = {
        r.leaf: n for n, m in enumerate(members, 1) for i, r in enumerate(recurrences) if m >> i & 1
    }
    return inner, ends
