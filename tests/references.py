"""What each layer computes, written plainly in NumPy: loops over windows, no cleverness."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.philox import uniform

Array = np.ndarray[Any, Any]
Params = dict[str, Array]


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * axes


def conv(
    x: Array, p: Params, stride: Any = 1, pad: Any = 0, dilation: Any = 1, group: int = 1
) -> Array:
    w, axes = p["weight"], x.ndim - 2
    stride, pad, dilation = (_each(v, axes) for v in (stride, pad, dilation))
    x = np.pad(x, [(0, 0), (0, 0), *((q, q) for q in pad)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    per_group, inputs = w.shape[0] // group, w.shape[1]
    for n, o, *at in np.ndindex(*y.shape):
        first = o // per_group * inputs
        window = tuple(
            slice(a * s, a * s + r, d)
            for a, s, r, d in zip(at, stride, reach, dilation, strict=True)
        )
        y[(n, o, *at)] = np.sum(x[(n, slice(first, first + inputs), *window)] * w[o])
    if "bias" in p:
        y += p["bias"].reshape(1, -1, *(1,) * axes)
    return y


def pool_size(n: int, k: int, s: int, p: int, floor: bool = False, padded: bool = True) -> int:
    """Caffe's PoolingLayer::Reshape; `padded`: some axis has a pad."""
    out = int((math.floor if floor else math.ceil)((n + 2 * p - k) / s)) + 1
    return out - 1 if padded and (out - 1) * s >= n + p else out


def pool(
    x: Array, how: str, kernel: Any, stride: Any = 1, pad: Any = 0, floor: bool = False
) -> Array:
    axes = x.ndim - 2
    kernel, stride, pad = (_each(v, axes) for v in (kernel, stride, pad))
    extent = x.shape[2:]
    padded = any(pad)
    out = [
        pool_size(*sizes, floor, padded) for sizes in zip(extent, kernel, stride, pad, strict=True)
    ]
    y = np.zeros((*x.shape[:2], *out))
    for n, c, *at in np.ndindex(*y.shape):
        start = [a * s - p for a, s, p in zip(at, stride, pad, strict=True)]
        end = [min(b + k, m + p) for b, k, m, p in zip(start, kernel, extent, pad, strict=True)]
        size = math.prod(e - b for b, e in zip(start, end, strict=True))
        seen = x[(n, c, *(slice(max(b, 0), e) for b, e in zip(start, end, strict=True)))]
        if how == "ARGMAX":
            best = np.unravel_index(np.argmax(seen), seen.shape)
            place = [max(b, 0) + int(i) for b, i in zip(start, best, strict=True)]
            y[(n, c, *at)] = np.ravel_multi_index(place, extent)
        else:
            results = {
                "MAX": np.max(seen),
                "AVE": np.sum(seen) / size,
                "L2": np.sqrt(np.sum(seen**2)),
            }
            y[(n, c, *at)] = results[how]
    return y


def dense(x: Array, p: Params, axis: int = 1, transpose: bool = False) -> Array:
    w = p["weight"].T if transpose else p["weight"]
    y = x.reshape(*x.shape[:axis], -1) @ w.T
    return y + p["bias"] if "bias" in p else y


def lrn_across(x: Array, n: int, alpha: float, beta: float, k: float) -> Array:
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        around = x[:, max(0, c - n // 2) : c + n // 2 + 1]
        y[:, c] = x[:, c] * (k + alpha / n * np.sum(around**2, axis=1)) ** -beta
    return y


def lrn_within(x: Array, n: int, alpha: float, beta: float) -> Array:
    y = np.zeros_like(x)
    for i, j in np.ndindex(*x.shape[2:]):
        rows = slice(max(0, i - n // 2), i + n // 2 + 1)
        columns = slice(max(0, j - n // 2), j + n // 2 + 1)
        squares = np.sum(x[:, :, rows, columns] ** 2, axis=(2, 3))
        y[:, :, i, j] = x[:, :, i, j] * (1 + alpha / n**2 * squares) ** -beta
    return y


def softmax(x: Array, axis: int = 1) -> Array:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def softmax_loss(
    x: Array, label: Array, axis: int = 1, mode: str = "VALID", ignore: int | None = None
) -> Array:
    """Loops over labels as Caffe does."""
    p = np.moveaxis(softmax(x, axis), axis, -1).reshape(-1, x.shape[axis])
    total, counted = 0.0, 0
    for row, one in zip(p, label.astype(int).ravel(), strict=True):
        if one != ignore:
            total -= math.log(max(row[one], 2.0**-126))  # FLT_MIN
            counted += 1
    by = {"VALID": counted, "FULL": len(p), "BATCH_SIZE": math.prod(x.shape[:axis]), "NONE": 1}
    return np.asarray(total / max(1, by[mode]))


def accuracy(
    x: Array, label: Array, top_k: int = 1, axis: int = 1, ignore: int | None = None
) -> tuple[Array, Array]:
    """Returns the share of all labels and the share within each class."""
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    right, seen = np.zeros(x.shape[axis]), np.zeros(x.shape[axis])
    for row, one in zip(rows, label.astype(int).ravel(), strict=True):
        if one != ignore:
            seen[one] += 1
            right[one] += sum(score >= row[one] for score in row) - 1 < top_k
    return np.asarray(right.sum() / max(1, seen.sum())), right / np.maximum(seen, 1)


def dropout(x: Array, ratio: float, name: str = "layer") -> Array:
    """The mask is that of the first random stream of a layer of this name, seed 0, iteration 0."""
    stream = zlib.crc32(f"{name}/1".encode())
    keep = uniform(0, stream, 0, x.size).reshape(x.shape) >= np.float32(ratio)
    return np.where(keep, x / (1 - ratio), 0)


def eltwise(how: str, parts: Sequence[Array], coeff: Sequence[float] = ()) -> Array:
    if how == "SUM":
        return np.sum([c * x for c, x in zip(coeff or [1] * len(parts), parts, strict=True)], 0)
    return np.prod(parts, 0) if how == "PROD" else np.max(parts, 0)
