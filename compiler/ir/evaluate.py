"""Evaluates a graph with NumPy, node by node: the oracle of every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compiler.ir.node import Node, toposort, users_of
from compiler.ir.recurrence import Recurrence, closed
from compiler.prims.registry import PRIMITIVES, Array, Env


def evaluate(
    roots: Sequence[Node], env: Env, recurrences: Sequence[Recurrence] = ()
) -> list[Array]:
    """Returns the value of each root, unfused, in the precision of `env`."""
    used = set(toposort(closed(roots, recurrences))) if recurrences else set()
    active = [r for r in recurrences if r.leaf in used]
    if active:
        env = _settled(active, env)
    return _sweep(roots, env)


def _sweep(roots: Sequence[Node], env: Env) -> list[Array]:
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


def _settled(recurrences: Sequence[Recurrence], env: Env) -> Env:
    """Returns an env in which every delayed leaf has its value.

    All time steps are computed again and again, each time with what the last time gave as the
    delayed leaves, until nothing changes: then each step has seen the right one before it. That is
    as plain as slow, and leans on nothing that the compiled loops do.
    """
    env = replace(env, feeds=dict(env.feeds))
    for r in recurrences:
        env.feeds["delayed", r.leaf.attr("name")] = np.zeros(r.leaf.shape, env.float_dtype)
    ends = [node for r in recurrences for node in (r.initial, r.source)]
    for _ in range(2 + sum(r.leaf.shape[0] for r in recurrences)):
        values = _sweep(ends, env)
        settled = True
        for r, initial, source in zip(recurrences, values[::2], values[1::2], strict=True):
            name = ("delayed", r.leaf.attr("name"))
            steps = r.leaf.shape[0]
            rows = (initial, source) if r.delay > 0 else (source, initial)
            new = np.concatenate(rows)[:steps] if r.delay > 0 else np.concatenate(rows)[-steps:]
            settled = settled and np.array_equal(new, env.feeds[name], equal_nan=True)
            env.feeds[name] = new
        if settled:
            return env
    raise AssertionError("a recurrence does not settle: it reads its own time step")
