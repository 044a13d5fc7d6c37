"""Sliding windows over some axes: maximum, which tap it is, sum, and the ways back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims.registry import Array, Env, Primitive, define, make

Ints = tuple[int, ...]
LEAST = -3.4028234663852886e38  # -FLT_MAX: the maximum of a window that holds nothing
_BYTE = 256  # taps of a window that a byte can number


@dataclass(frozen=True)
class Window:
    """Windows along `axes`: element o of the result sees o*stride - pad ... + size - 1.

    `full` is the extent of each axis before, `out` after; what a window reaches outside of the
    axis does not count. The three-dimensional pooling of a (N, C, D, H, W) blob has axes (2, 3, 4).
    """

    axes: Ints
    size: Ints
    stride: Ints
    pad: Ints
    full: Ints
    out: Ints

    def pooled(self, shape: Ints) -> Ints:
        at = dict(zip(self.axes, self.out, strict=True))
        return tuple(at.get(i, n) for i, n in enumerate(shape))

    def unpooled(self, shape: Ints) -> Ints:
        at = dict(zip(self.axes, self.full, strict=True))
        return tuple(at.get(i, n) for i, n in enumerate(shape))

    def taps(self, rank: int) -> Iterator[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
        """Yields (tap, slices of the full array, slices of the pooled one) that belong together.

        The taps of a window are numbered row-major.
        """
        for number, tap in enumerate(itertools.product(*(range(k) for k in self.size))):
            inner, outer = [slice(None)] * rank, [slice(None)] * rank
            for i, axis in enumerate(self.axes):
                first = max(0, -(-(self.pad[i] - tap[i]) // self.stride[i]))
                last = min(
                    self.out[i] - 1, (self.full[i] - 1 + self.pad[i] - tap[i]) // self.stride[i]
                )
                if last < first:
                    break
                begin = first * self.stride[i] + tap[i] - self.pad[i]
                end = last * self.stride[i] + tap[i] - self.pad[i] + 1
                inner[axis] = slice(begin, end, self.stride[i])
                outer[axis] = slice(first, last + 1)
            else:
                yield number, tuple(inner), tuple(outer)


def _pool_max(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    window, x = node.attr("window"), args[0]
    best = np.full(node.shape, LEAST, x.dtype)
    for _, inner, outer in window.taps(x.ndim):
        np.maximum(best[outer], x[inner], out=best[outer])
    return best


def _pool_argmax(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    window, x = node.attr("window"), args[0]
    best = np.full(node.shape, LEAST, x.dtype)
    where = np.zeros(node.shape, env.dtype(node.dtype))
    for tap, inner, outer in window.taps(x.ndim):
        better = x[inner] > best[outer]  # strictly: the first of equals stays, as in Caffe
        where[outer][better] = tap
        np.maximum(best[outer], x[inner], out=best[outer])
    return where


def _pool_sum(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    total = np.zeros(node.shape, args[0].dtype)
    for _, inner, outer in node.attr("window").taps(args[0].ndim):
        total[outer] += args[0][inner]
    return total


def _unpool_sum(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    total = np.zeros(node.shape, args[0].dtype)
    for _, inner, outer in node.attr("window").taps(args[0].ndim):
        total[inner] += args[0][outer]
    return total


def _unpool_max(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    (g, where), window = args, node.attr("window")
    total = np.zeros(node.shape, g.dtype)
    for tap, inner, outer in window.taps(g.ndim):
        total[inner] += np.where(where[outer] == tap, g[outer], 0)
    return total


def _pooled(src: tuple[Node, ...], attrs: Any) -> TensorType:
    window: Window = attrs["window"]
    assert tuple(src[0].shape[a] for a in window.axes) == window.full, (src[0].shape, window)
    return TensorType(window.pooled(src[0].shape), src[0].dtype)


def _tap_of(src: tuple[Node, ...], attrs: Any) -> TensorType:
    few = math.prod(attrs["window"].size) <= _BYTE
    return TensorType(_pooled(src, attrs).shape, "u8" if few else "i32")


def _unpooled(src: tuple[Node, ...], attrs: Any) -> TensorType:
    window: Window = attrs["window"]
    assert tuple(src[0].shape[a] for a in window.axes) == window.out, (src[0].shape, window)
    return TensorType(window.unpooled(src[0].shape), src[0].dtype)


define(
    Primitive(
        "pool_max",
        _pooled,
        _pool_max,
        lambda n, g: (unpool_max(g, pool_argmax(n.src[0], n.attr("window")), n.attr("window")),),
    )
)
define(Primitive("pool_argmax", _tap_of, _pool_argmax))
define(Primitive("pool_sum", _pooled, _pool_sum, lambda n, g: (unpool_sum(g, n.attr("window")),)))
define(
    Primitive("unpool_sum", _unpooled, _unpool_sum, lambda n, g: (pool_sum(g, n.attr("window")),))
)
define(
    Primitive(
        "unpool_max",
        _unpooled,
        _unpool_max,
        # To g: the element of the gradient that stands where the maximum stood.
        lambda n, g: (pool_at(g, n.src[1], n.attr("window")), None),
    )
)


def _pool_at(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    (x, where), window = args, node.attr("window")
    total = np.zeros(node.shape, x.dtype)
    for tap, inner, outer in window.taps(x.ndim):
        total[outer] += np.where(where[outer] == tap, x[inner], 0)
    return total


define(
    Primitive(
        "pool_at",
        _pooled,
        _pool_at,
        lambda n, g: (unpool_max(g, n.src[1], n.attr("window")), None),
    )
)


def pool_max(x: Node, window: Window) -> Node:
    return make("pool_max", x, window=window)


def pool_argmax(x: Node, window: Window) -> Node:
    """Which tap of its window the maximum is, the first of equals."""
    return make("pool_argmax", x, window=window)


def pool_sum(x: Node, window: Window) -> Node:
    return make("pool_sum", x, window=window)


def unpool_sum(g: Node, window: Window) -> Node:
    """The transpose of pool_sum: each element is the sum over the windows that see it."""
    return make("unpool_sum", g, window=window)


def unpool_max(g: Node, where: Node, window: Window) -> Node:
    """Each element is the sum of g over the windows whose tap `where` it is."""
    return make("unpool_max", g, where, window=window)


def pool_at(x: Node, where: Node, window: Window) -> Node:
    """The element of each window at the tap `where`, 0 if that lies outside."""
    return make("pool_at", x, where, window=window)
