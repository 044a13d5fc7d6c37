"""Reverse-mode differentiation: graph in, graph out."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir import Node, toposort
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
) -> list[Node]:
    """Returns d loss / d w for each w of `wrt`, each of w's type.

    `seeds` gives the gradient of other nodes to start from instead (a vector-Jacobian product).
    A w that nothing depends on gets zeros. `origin` (node -> layer) is extended: the layer that
    made a node also made the nodes of its gradient. `found` is filled with the gradient of every
    node on the way.
    """
    start = dict(seeds or {})
    if loss is not None:
        start[loss] = broadcast(const(1.0), loss.shape)
    order = toposort(start)
    wanted = set(wrt)
    # Only what leads to a wanted leaf is differentiated: a frozen layer costs nothing.
    active: set[Node] = set()
    for node in order:
        if node in wanted or any(s in active for s in node.src):
            active.add(node)
    total: dict[Node, Node] = {n: g for n, g in start.items() if n in active}
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
    return [total.get(w) or broadcast(const(0.0), w.shape) for w in wrt]


def _attribute(node: Node, origin: dict[Node, str], layer: str) -> None:
    """Says of a new node, and of what is new below it, which layer it belongs to."""
    stack = [node]
    while stack:
        node = stack.pop()
        if node not in origin and node.src:
            origin[node] = layer
            stack.extend(node.src)
