"""Between arrays as the user sees them and bytes as they lie in a slot."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

import numpy as np

from schemas.errors import UsageError
from schemas.program import Tensor

Array = np.ndarray[Any, Any]
_FEW = 8  # channels
_PIECE = 1 << 17  # numbers
# A thread takes some 50 us to start; sixteen pieces take one thread milliseconds.
_MANY, _THREADS = 16, min(8, (os.cpu_count() or 1) // 2)
TYPES: dict[str, type[np.generic]] = {
    "f32": np.float32,
    "f64": np.float64,
    "i32": np.int32,
    "u8": np.uint8,
    "bool": np.bool_,
}


def span(tensor: Tensor) -> int:
    """Returns the bytes from the tensor's first element to the end of its last."""
    if 0 in tensor.view:
        return 0
    last = sum((n - 1) * step for n, step in zip(tensor.view, tensor.strides, strict=True))
    return (last + 1) * np.dtype(TYPES[tensor.dtype]).itemsize


def dense(tensor: Tensor) -> bool:
    """Whether the tensor fills its span, so that writing all of it overwrites nothing else."""
    return span(tensor) == prod(tensor.view) * np.dtype(TYPES[tensor.dtype]).itemsize


def strided(tensor: Tensor, raw: Array) -> Array:
    """Returns the tensor's elements within `raw`, the bytes of its span, as a view of them."""
    dtype = np.dtype(TYPES[tensor.dtype])
    steps = tuple(s * dtype.itemsize for s in tensor.strides)
    return np.ndarray(tensor.view, dtype, buffer=raw.data, strides=steps)


def pack(tensor: Tensor, value: Array | float | int, raw: Array) -> None:
    """Writes a value of the user's shape into the bytes of the tensor's span."""
    fill(tensor, value, strided(tensor, raw))


def fill(tensor: Tensor, value: Array | float | int, elements: Array) -> None:
    """Writes a value of the user's shape to the tensor's elements (see `strided`)."""
    array = np.asarray(value)
    if array.ndim and array.size != elements.size:
        raise UsageError(
            f"'{tensor.name}' has shape {tensor.shape}, but the value has {array.shape}"
        )
    if array.ndim:
        _copy(array.reshape(tensor.view), elements)
    else:  # a number fills the tensor; unsigned words (seeds) keep their bits
        elements[...] = array


def _copy(given: Array, elements: Array) -> None:
    """Copies numbers to where they lie in another order, large arrays in several threads.

    NumPy's innermost loop runs along the axis whose elements lie side by side. Where those are the
    few channels of pictures it is faster to copy one channel after the other, of as many pictures
    at a time as a cache holds.
    """
    if not elements.ndim:
        elements[...] = given
        return
    axes = [axis for axis, size in enumerate(elements.shape) if size > 1]
    inner = min(axes, key=lambda axis: elements.strides[axis], default=0)
    if inner and elements.shape[inner] <= _FEW and given.strides[inner] != given.itemsize:
        elements, given = np.moveaxis(elements, inner, 1), np.moveaxis(given, inner, 1)
        pieces: list[tuple[Any, ...]] = [
            (i, c) for i in _pieces(given) for c in range(given.shape[1])
        ]
    else:
        pieces = [(i,) for i in _pieces(given)]

    def copy(piece: tuple[Any, ...]) -> None:
        elements[piece] = given[piece]

    if len(pieces) >= _MANY and _THREADS > 1:
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(copy, pieces))
    else:
        for piece in pieces:
            copy(piece)


def _pieces(given: Array) -> list[slice]:
    count = max(1, _PIECE * len(given) // max(1, given.size))
    return [slice(at, at + count) for at in range(0, len(given), count)]


def rounded(raw: Array) -> Array:
    """Returns numbers of f32 as bf16, both as bytes: to the nearest, of two to the even one."""
    words = raw.view(np.uint32)
    up = words + np.uint32(0x7FFF) + (words >> 16 & 1)
    # A NaN stays one: adding to its mantissa could make it infinite, or wrap around.
    kept = np.where(np.isnan(raw.view(np.float32)), words | np.uint32(1 << 22), up)
    return (kept >> 16).astype(np.uint16).view(np.uint8)


def unpack(tensor: Tensor, raw: Array) -> Array:
    """Returns a copy of the tensor, in the user's shape, from the bytes of its span."""
    return strided(tensor, raw).reshape(tensor.shape).copy()
