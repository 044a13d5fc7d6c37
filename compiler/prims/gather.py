"""Gather picks slices along an axis by index; scatter adds slices where an index says."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims.registry import Array, Env, Primitive, define, make


def _gather_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    x, index = src
    assert index.dtype == "i32", index
    axis = attrs["axis"]
    return TensorType(x.shape[:axis] + index.shape + x.shape[axis + 1 :], x.dtype)


def _gather(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    (x, index), axis = args, node.attr("axis")
    inside = (index >= 0) & (index < x.shape[axis])
    picked = np.take(x, np.where(inside, index, 0), axis=axis)
    shape = [1] * axis + list(index.shape) + [1] * (x.ndim - axis - 1)
    return np.where(inside.reshape(shape), picked, 0)


def _scatter_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    g, index = src
    axis, rank = attrs["axis"], index.type.rank
    assert g.shape[axis : axis + rank] == index.shape, (g.shape, index.shape, axis)
    shape = g.shape[:axis] + (attrs["size"],) + g.shape[axis + rank :]
    return TensorType(shape, g.dtype)


def _scatter(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    (g, index), axis = args, node.attr("axis")
    total = np.zeros(node.shape, g.dtype)
    flat = g.reshape(g.shape[:axis] + (-1,) + g.shape[axis + index.ndim :])
    for n, i in enumerate(index.ravel()):
        if 0 <= i < node.attr("size"):
            total[(slice(None),) * axis + (i,)] += flat[(slice(None),) * axis + (n,)]
    return total


define(
    Primitive(
        "gather",
        _gather_type,
        _gather,
        lambda n, g: (scatter(g, n.src[1], n.attr("axis"), n.src[0].shape[n.attr("axis")]), None),
    )
)
define(
    Primitive(
        "scatter",
        _scatter_type,
        _scatter,
        lambda n, g: (gather(g, n.src[1], n.attr("axis")), None),
    )
)


def gather(x: Node, index: Node, axis: int = 0) -> Node:
    """x[..., index, ...] along an axis; index (i32) of any shape; zeros where it is out of range.

    The result's shape is x.shape[:axis] + index.shape + x.shape[axis+1:].
    """
    return make("gather", x, index, axis=axis)


def scatter(g: Node, index: Node, axis: int, size: int) -> Node:
    """The transpose of gather: sums the slices of g into `size` slices by index."""
    return make("scatter", g, index, axis=axis, size=size)
