"""Winograd's transforms: a small constant matrix on both sides of every tile of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims.registry import Array, Env, Primitive, define, make

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tiling:
    """A picture (N, C, H, W) cut into `count` tiles along the height and the width.

    Tile t of an axis begins at t * step - pad; what lies beyond the picture counts as zeros.
    """

    matrix: Matrix
    step: int
    pad: tuple[int, int]
    count: tuple[int, int]


def _to_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    tiling: Tiling = attrs["tiling"]
    images, channels, *_ = src[0].shape
    points = len(tiling.matrix)
    return TensorType((points, channels, points, images, *tiling.count), src[0].dtype)


def _to_tiles(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    tiling: Tiling = node.attr("tiling")
    matrix, size = np.array(tiling.matrix), len(tiling.matrix[0])
    around = [(0, 0), (0, 0)]
    for extent, pad, count in zip(args[0].shape[2:], tiling.pad, tiling.count, strict=True):
        around.append((pad, max(0, (count - 1) * tiling.step + size - pad - extent)))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(args[0], around), (size, size), axis=(2, 3)
    )[:, :, :: tiling.step, :: tiling.step][:, :, : tiling.count[0], : tiling.count[1]]
    made = np.einsum("pi,qj,nctuij->pcqntu", matrix, matrix, windows, optimize=True)
    return env.cast(made, node.dtype)


def _from_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    tiling: Tiling = attrs["tiling"]
    points, channels, _, images, *count = src[0].shape
    assert points == len(tiling.matrix[0]) and (*count,) == tiling.count, (src[0].shape, tiling)
    assert all(n <= t * tiling.step for n, t in zip(attrs["extent"], count, strict=True)), attrs
    return TensorType((images, channels, *attrs["extent"]), src[0].dtype)


def _from_tiles(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    tiling: Tiling = node.attr("tiling")
    matrix = np.array(tiling.matrix)
    tiles = np.einsum("ip,jq,pcqntu->nctiuj", matrix, matrix, args[0], optimize=True)
    images, channels, rows, _, columns, _ = tiles.shape
    picture = tiles.reshape(images, channels, rows * tiling.step, columns * tiling.step)
    return env.cast(picture[:, :, : node.shape[2], : node.shape[3]], node.dtype)


# No vjp: they are made after differentiation (compiler/passes/winograd.py).
define(Primitive("to_tiles", _to_type, _to_tiles))
define(Primitive("from_tiles", _from_type, _from_tiles))


def to_tiles(x: Node, tiling: Tiling) -> Node:
    """Each tile X of (N, C, H, W) as M X M', of shape (points, C, points, N, rows, columns).

    The points stand where images do, so that channels come last in memory.
    """
    return make("to_tiles", x, tiling=tiling)


def from_tiles(x: Node, tiling: Tiling, extent: tuple[int, int]) -> Node:
    """The way back: the picture whose tiles are M X M', cut off behind `extent`."""
    return make("from_tiles", x, tiling=tiling, extent=extent)
