"""Evaluates a graph with NumPy, node by node: the oracle of every backend."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir import Node, toposort, users_of
from compiler.prims.registry import PRIMITIVES, Array, Env


def evaluate(roots: Sequence[Node], env: Env) -> list[Array]:
    """Returns the value of each root, unfused, in the precision of `env`."""
    order = toposort(roots)
    left = {node: len(users) for node, users in users_of(order).items()}
    for root in roots:
        left[root] += 1
    values: dict[Node, Array] = {}
    for node in order:
        args = tuple(values[s] for s in node.src)
        values[node] = PRIMITIVES[node.prim].evaluate(node, args, env)
        assert values[node].shape == node.shape, f"{node}: {values[node].shape}"
        for source in node.src:  # what nobody reads any more is freed at once
            left[source] -= 1
            if not left[source]:
                del values[source]
    return [values[root] for root in roots]
