"""Tells calls of a Python layer's backward which gradients will be read."""

from __future__ import annotations

from itertools import accumulate

from compiler.ir.graph import Graph
from compiler.ir.node import Node, users_of
from compiler.prims.registry import make


def asked(graph: Graph) -> dict[Node, Node]:
    """Returns what each node becomes when every backward call knows what is `wanted` of it.

    That is what Caffe calls propagate_down. Differentiation asks for all gradients at once and
    then reads slices of the answer: only afterwards is it known which.
    """
    order = graph.nodes()
    users = users_of(order)
    new: dict[Node, Node] = {}
    for node in order:
        sources, attrs = tuple(new[s] for s in node.src), dict(node.attrs)
        if node.prim == "host" and attrs["way"] == "backward":
            attrs["wanted"] = _wanted(node, users[node])
        same = sources == node.src and attrs == dict(node.attrs)
        new[node] = node if same else make(node.prim, *sources, **attrs)
    return new


def _wanted(node: Node, users: list[Node]) -> tuple[bool, ...]:
    """Returns for each gradient of a call whether one of its readers sees any of it."""
    read = [(0, node.type.size)] * any(user.prim != "slice" for user in users)
    read += [(u.attr("start")[0], u.attr("stop")[0]) for u in users if u.prim == "slice"]
    ends = list(accumulate(node.attr("outs"), initial=0))
    return tuple(
        any(start < b and a < stop for start, stop in read)
        for a, b in zip(ends, ends[1:], strict=False)
    )
