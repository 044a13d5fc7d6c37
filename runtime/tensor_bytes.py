"""Between arrays as the user sees them and bytes as they lie in a slot."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from schemas.errors import UsageError
from schemas.program import Tensor

Array = np.ndarray[Any, Any]
_FEW = 8  # channels
_PIECE, _LINES = 1 << 17, 64  # numbers, of a cache and of a few of its lines
# To wake a thread takes some 10 us, in which another copies a tenth of its share.
_SHARE, _THREADS = 1 << 18, min(8, (os.cpu_count() or 1) // 2)
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
    """Copies numbers to where they lie, perhaps in another order; large arrays in several threads.

    Each thread has one part: long copies that lie side by side pass by the caches.
    """
    if not elements.ndim:
        elements[...] = given
        return
    parts = min(_THREADS, len(given), given.size // _SHARE)
    if parts < 2:
        _copy_part(given, elements)
        return
    ends = [len(given) * i // parts for i in range(parts + 1)]
    (first, *others) = [slice(*pair) for pair in pairwise(ends)]
    jobs = [_threads().submit(_copy_part, given[part], elements[part]) for part in others]
    try:
        _copy_part(given[first], elements[first])
    finally:
        wait(jobs)  # even if it is interrupted: the memory may go
    for job in jobs:
        job.result()


@cache
def _threads() -> ThreadPoolExecutor:
    """Returns threads that stay: to start them takes as long as to copy a megabyte."""
    return ThreadPoolExecutor(_THREADS, "netdef-copy")


if hasattr(os, "register_at_fork"):  # a child has no threads but its own
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _copy_part(given: Array, elements: Array) -> None:
    """Copies numbers in one thread.

    NumPy's innermost loop runs along the axis whose elements lie side by side. Where those are the
    few channels of pictures it is faster to copy one channel after the other, of as many pictures
    at a time as a cache holds.
    """
    if given.flags.c_contiguous and elements.flags.c_contiguous:
        elements[...] = given
        return
    axes = [axis for axis, size in enumerate(elements.shape) if size > 1]
    inner = min(axes, key=lambda axis: elements.strides[axis], default=0)
    # Where the outermost axis of what is given comes to lie innermost, a piece fills whole lines.
    count = max(1 if inner else _LINES, _PIECE * len(given) // max(1, given.size))
    few = inner and elements.shape[inner] <= _FEW and given.strides[inner] != given.itemsize
    if few:
        elements, given = np.moveaxis(elements, inner, 1), np.moveaxis(given, inner, 1)
    for at in range(0, len(given), count):
        piece = slice(at, at + count)
        for where in [(piece, c) for c in range(given.shape[1])] if few else [(piece,)]:
            elements[where] = given[where]


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
