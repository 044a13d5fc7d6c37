"""Reductions over whole axes, which stay as unit axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims import maps, moves
from compiler.prims.registry import Primitive, define, make


def _type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    axes = attrs["axes"]
    assert axes == tuple(sorted(set(axes))) and all(0 <= a < src[0].type.rank for a in axes)
    shape = tuple(1 if i in axes else n for i, n in enumerate(src[0].shape))
    return TensorType(shape, src[0].dtype)


define(
    Primitive(
        "sum",
        _type,
        lambda n, args, env: np.sum(args[0], axis=n.attr("axes"), keepdims=True),
        lambda n, g: (moves.broadcast(g, n.src[0].shape),),
    )
)


def _max_vjp(n: Node, g: Node) -> tuple[Node | None, ...]:
    # Every element that attains the maximum gets the gradient; softmax stops it, as it cancels.
    x = n.src[0]
    return (
        maps.select(maps.equal(x, moves.broadcast(n, x.shape)), moves.broadcast(g, x.shape), 0.0),
    )


define(
    Primitive(
        "max",
        _type,
        lambda n, args, env: np.max(args[0], axis=n.attr("axes"), keepdims=True),
        _max_vjp,
    )
)


def sum_(x: Node, axes: tuple[int, ...]) -> Node:
    """The sum over `axes`, which become unit axes."""
    axes = tuple(a for a in axes if x.shape[a] != 1)
    return make("sum", x, axes=axes) if axes else x


def max_(x: Node, axes: tuple[int, ...]) -> Node:
    """The maximum over `axes`, which become unit axes."""
    axes = tuple(a for a in axes if x.shape[a] != 1)
    return make("max", x, axes=axes) if axes else x


def sum_all(x: Node) -> Node:
    """The sum of all elements, of shape ()."""
    return moves.reshape(sum_(x, tuple(range(x.type.rank))), ())
