"""What the elementwise, normalising and choosing layers compute, plainly in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Params = dict[str, Array]

erf = np.vectorize(math.erf)


def along(operand: Array, x: Array, axis: int) -> Array:
    """Returns the operand with unit axes, so that NumPy broadcasts it over x from `axis` on."""
    return operand.reshape((1,) * axis + operand.shape + (1,) * (x.ndim - axis - operand.ndim))


def scale(x: Array, p: Params, axis: int = 1, operand: Array | None = None) -> Array:
    y = x * along(p["weight"] if operand is None else operand, x, axis)
    return y + along(p["bias"], x, axis) if "bias" in p else y


def batch_norm(x: Array, p: Params, stored: bool, eps: float = 1e-5) -> Array:
    """Loops over channels as Caffe's formulas have it."""
    if x.ndim == 1:
        return batch_norm(x[:, None], p, stored, eps)[:, 0]
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        mean, variance = np.mean(x[:, c]), np.var(x[:, c])
        if stored:
            factor = p["scale_factor"][0]
            mean, variance = p["mean"][c] / factor, p["variance"][c] / factor
        y[:, c] = (x[:, c] - mean) / np.sqrt(variance + eps)
    return y


def bn(x: Array, p: Params, how: str) -> Array:
    """BN: `how` is "batch", "stored" or "none"."""
    if how == "batch":
        x = batch_norm(x, p, False)
    elif how == "stored":
        x = batch_norm(x, {**p, "scale_factor": np.ones(1)}, True)
    return x * along(p["slope"], x, 1) + along(p["bias"], x, 1)


def mvn(x: Array, across: bool = False, divide: bool = True, eps: float = 1e-9) -> Array:
    axes = tuple(range(1 if across else 2, x.ndim))
    y = x - x.mean(axes, keepdims=True)
    return y / (x.std(axes, keepdims=True) + eps) if divide else y


def layer_norm(x: Array, p: Params, axis: int = -1, eps: float = 1e-5) -> Array:
    axis %= x.ndim
    axes = tuple(range(axis, x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    return y * p["weight"] + p["bias"] if p else y


def group_norm(x: Array, p: Params, groups: int, eps: float = 1e-5) -> Array:
    y = np.zeros_like(x)
    size = x.shape[1] // groups
    for n, g in np.ndindex(x.shape[0], groups):
        part = x[n, g * size : (g + 1) * size]
        y[n, g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + eps)
    return y * along(p["weight"], x, 1) + along(p["bias"], x, 1) if p else y


def normalize(x: Array, p: Params, spatial: bool = True, eps: float = 1e-10) -> Array:
    axes = tuple(range(1, x.ndim)) if spatial else (1,)
    return along(p["weight"], x, 1) * x / np.sqrt(np.sum(x**2, axes, keepdims=True) + eps)


def lcn(x: Array, size: int, sigma: float) -> Array:
    def around(x: Array) -> Array:
        n, _, height, width = x.shape
        y = np.zeros((n, 1, height, width))
        for i, j in np.ndindex(height, width):
            total = 0.0
            for k, m in np.ndindex(height, width):
                if abs(i - k) <= size // 2 and abs(j - m) <= size // 2:
                    weight = math.exp(-((i - k) ** 2 + (j - m) ** 2) / (2 * sigma**2))
                    y[:, 0, i, j] += weight * x[:, :, k, m].mean(1)
                    total += weight
            y[:, 0, i, j] /= total
        return y

    v = x - around(x)
    s = np.sqrt(around(v * v))
    return v / np.maximum(s.mean((2, 3), keepdims=True), s)


def argmax(x: Array, k: int, axis: int | None, values: bool) -> Array:
    """Sorts (value, index) pairs downwards, as Caffe does."""
    if axis is None:
        found = np.zeros((x.shape[0], 2 if values else 1, k))
        for n, row in enumerate(x.reshape(x.shape[0], -1)):
            pairs = sorted(((v, i) for i, v in enumerate(row)), reverse=True)[:k]
            found[n, 0] = [i for _, i in pairs]
            found[n, -1] = [v for v, _ in pairs] if values else found[n, 0]
        return found.reshape(*found.shape, *(1,) * (x.ndim - 3))
    rows = np.moveaxis(x, axis, -1)
    best = np.zeros((*rows.shape[:-1], k))
    for at in np.ndindex(*rows.shape[:-1]):
        pairs = sorted(((v, i) for i, v in enumerate(rows[at])), reverse=True)[:k]
        best[at] = [v if values else i for v, i in pairs]
    return np.moveaxis(best, -1, axis)


def filtered(selector: Array, *data: Array) -> tuple[Array, ...]:
    """The chosen rows at the front, zeros behind."""
    chosen = np.flatnonzero(selector)
    tops = tuple(np.zeros_like(x) for x in data)
    for top, x in zip(tops, data, strict=True):
        top[: len(chosen)] = x[chosen]
    return tops


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
