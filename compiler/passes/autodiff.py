"""Reverse-mode differentiation: graph in, graph out."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.node import Node, toposort
from compiler.ir.recurrence import Recurrence, closed, from_zeros
from compiler.prims.leaves import const
from compiler.prims.maps import add
from compiler.prims.moves import broadcast
from compiler.prims.registry import PRIMITIVES


def gradients(
    loss: Node | None,
    wrt: Sequence[Node],
    seeds: dict[Node, Node] | None = None,
    origin: dict[Node, str] | None = None,
    found: dict[Node, Node] | None = None,
    recurrences: list[Recurrence] | None = None,
) -> list[Node]:
    """Returns d loss / d w for each w of `wrt`, each of w's type.

    `seeds` gives the gradient of other nodes to start from instead (a vector-Jacobian product).
    A w that nothing depends on gets zeros. `origin` (node -> layer) is extended: the layer that
    made a node also made the nodes of its gradient. `found` is filled with the gradient of every
    node on the way. `recurrences` are those of the graph; the ones that carry gradients back
    through time are added to them.
    """
    start = dict(seeds or {})
    if loss is not None:
        start[loss] = broadcast(const(1.0), loss.shape)
    order = toposort(closed(start, recurrences or ()))
    active = _active(order, set(wrt), recurrences or ())
    through = [r for r in recurrences or () if r.leaf in active and r.source in active]
    later = {r: from_zeros(f"d({r.leaf.attr('name')})", r.leaf.shape, -r.delay) for r in through}
    total: dict[Node, Node] = {n: g for n, g in start.items() if n in active}
    for r, back in later.items():  # what the steps to come send
        total[r.source] = add(total[r.source], back) if r.source in total else back
    for node in reversed(order):
        g = total.get(node)
        if g is None or node not in active or not node.src:
            continue
        for source, part in zip(node.src, PRIMITIVES[node.prim].vjp(node, g), strict=True):
            if part is None or source not in active:
                continue
            assert part.type == source.type, f"{node.prim}: gradient {part.type} of {source.type}"
            total[source] = add(total[source], part) if source in total else part
            if origin is not None and node in origin:
                _attribute(total[source], origin, origin[node])
    if found is not None:
        found.update(total)
    if recurrences is not None:
        recurrences += [Recurrence(g, _gradient(total, r.leaf)) for r, g in later.items()]
    return [_gradient(total, w) for w in wrt]


def _gradient(total: dict[Node, Node], node: Node) -> Node:
    return total.get(node) or broadcast(const(0.0), node.shape)


def _active(order: list[Node], wanted: set[Node], recurrences: Sequence[Recurrence]) -> set[Node]:
    """Returns the nodes that lead to a wanted leaf, also by way of earlier steps.

    Only these are differentiated: a frozen layer costs nothing.
    """
    active: set[Node] = set()
    before = -1
    while before < len(active):  # a source that is active makes its delayed leaf active
        before = len(active)
        active |= {r.leaf for r in recurrences if r.source in active}
        for node in order:
            if node in wanted or any(s in active for s in node.src):
                active.add(node)
    return active


def _attribute(node: Node, origin: dict[Node, str], layer: str) -> None:
    """Says of a new node, and of what is new below it, which layer it belongs to."""
    stack = [node]
    while stack:
        node = stack.pop()
        if node not in origin and node.src:
            origin[node] = layer
            stack.extend(node.src)
