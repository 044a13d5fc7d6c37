"""Oracles of what slides over images: convolution, pooling, local normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Size = int | Sequence[int]


def per_axis(value: Size, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def windows(
    x: Array, kernel: Size, stride: Size, pad: Size, dilation: Size, out: Size, fill: float = 0.0
) -> Array:
    """Returns (N, C, taps, out...): what each window over the axes from 2 on sees."""
    count = x.ndim - 2
    k, s, p, d, o = (per_axis(v, count) for v in (kernel, stride, pad, dilation, out))
    reach = [(o[i] - 1) * s[i] + d[i] * (k[i] - 1) + 1 for i in range(count)]
    behind = [max(0, reach[i] - p[i] - x.shape[i + 2]) for i in range(count)]
    padded = np.pad(x, [(0, 0)] * 2 + list(zip(p, behind, strict=True)), constant_values=fill)
    seen = []
    for tap in np.ndindex(*k):
        places = [d[i] * tap[i] + s[i] * np.arange(o[i]) for i in range(count)]
        seen.append(padded[(slice(None), slice(None), *np.ix_(*places))])
    return np.stack(seen, axis=2)


def conv_size(n: int, k: int, s: int, p: int, d: int) -> int:
    return (n + 2 * p - (d * (k - 1) + 1)) // s + 1


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    pad: Size = 0,
    dilation: Size = 1,
    group: int = 1,
) -> Array:
    """Cross-correlation; the weight is (outputs, channels / group, kernel...)."""
    count = x.ndim - 2
    s, p, d = (per_axis(v, count) for v in (stride, pad, dilation))
    kernel = weight.shape[2:]
    out = [conv_size(x.shape[i + 2], kernel[i], s[i], p[i], d[i]) for i in range(count)]
    seen = windows(x, kernel, s, p, d, out)
    channels, outputs = x.shape[1] // group, weight.shape[0] // group
    parts = []
    for g in range(group):
        own = seen[:, g * channels : (g + 1) * channels].reshape(len(x), -1, math.prod(out))
        rows = weight[g * outputs : (g + 1) * outputs].reshape(outputs, -1)
        parts.append((rows @ own).reshape(len(x), outputs, *out))
    y = np.concatenate(parts, axis=1)
    return y if bias is None else y + bias.reshape(-1, *(1,) * count)


def deconv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    pad: Size = 0,
    dilation: Size = 1,
    group: int = 1,
) -> Array:
    """Adds a kernel into the top for each element; weight (channels, outputs / group, kernel)."""
    count = x.ndim - 2
    s, p, d = (per_axis(v, count) for v in (stride, pad, dilation))
    kernel, outputs, channels = weight.shape[2:], weight.shape[1], x.shape[1] // group
    whole = [s[i] * (x.shape[i + 2] - 1) + d[i] * (kernel[i] - 1) + 1 for i in range(count)]
    y = np.zeros((len(x), outputs * group, *whole))
    for c in range(x.shape[1]):
        g = c // channels
        for tap in np.ndindex(*kernel):
            places = tuple(
                slice(d[i] * tap[i], d[i] * tap[i] + s[i] * (x.shape[i + 2] - 1) + 1, s[i])
                for i in range(count)
            )
            w = weight[(c, slice(None), *tap)].reshape(1, -1, *(1,) * count)
            y[(slice(None), slice(g * outputs, (g + 1) * outputs), *places)] += x[:, c : c + 1] * w
    inner = tuple(slice(p[i], whole[i] - p[i]) for i in range(count))
    y = y[(slice(None), slice(None), *inner)]
    return y if bias is None else y + bias.reshape(-1, *(1,) * count)


def local(x: Array, weight: Array, bias: Array | None, kernel: Size, **geometry: Any) -> Array:
    """A kernel for each place: weight (outputs, channels, kernel..., out...)."""
    count = x.ndim - 2
    out = weight.shape[-count:]
    stride, pad = geometry.get("stride", 1), geometry.get("pad", 0)
    seen = windows(x, kernel, stride, pad, 1, out)
    seen = seen.reshape(len(x), 1, -1, *out)
    y = (seen * weight.reshape(1, len(weight), -1, *out)).sum(axis=2)
    return y if bias is None else y + bias


def im2col(x: Array, kernel: Size, stride: Size = 1, pad: Size = 0, dilation: Size = 1) -> Array:
    count = x.ndim - 2
    k, s, p, d = (per_axis(v, count) for v in (kernel, stride, pad, dilation))
    out = [conv_size(x.shape[i + 2], k[i], s[i], p[i], d[i]) for i in range(count)]
    return windows(x, k, s, p, d, out).reshape(len(x), -1, *out)


def pool_size(n: int, k: int, s: int, p: int, padded: bool, floor: bool = False) -> int:
    """Caffe's: rounded up; the last window must begin before the end of image and left padding."""
    out = (n + 2 * p - k) // s + 1 if floor else math.ceil((n + 2 * p - k) / s) + 1
    return out - 1 if padded and (out - 1) * s >= n + p else out


def pool(
    x: Array,
    how: str,
    kernel: Size,
    stride: Size = 1,
    pad: Size = 0,
    floor: bool = False,
    out: Size | None = None,
) -> Array:
    count = x.ndim - 2
    k, s, p = (per_axis(v, count) for v in (kernel, stride, pad))
    full = x.shape[2:]
    if out is None:
        out = [pool_size(full[i], k[i], s[i], p[i], any(p), floor) for i in range(count)]
    o = per_axis(out, count)
    if how == "MAX":
        return windows(x, k, s, p, 1, o, -np.inf).max(axis=2)
    if how == "L2":
        return np.sqrt((windows(x, k, s, p, 1, o) ** 2).sum(axis=2))
    total = windows(x, k, s, p, 1, o)
    if how == "STOCHASTIC":  # in tests: each element weighs as much as itself
        return (total**2).sum(axis=2) / total.sum(axis=2)
    mean = total.sum(axis=2)
    for i in range(count):
        begin = np.arange(o[i]) * s[i] - p[i]
        extent = np.minimum(begin + k[i], full[i] + p[i]) - begin
        mean = mean / extent.reshape(-1, *(1,) * (count - 1 - i))
    return mean


def pool_mask(x: Array, kernel: int, stride: int, pad: int = 0) -> Array:
    """The place h * W + w of each maximum, the first of equals."""
    h, w = x.shape[2:]
    out = [pool_size(n, kernel, stride, pad, pad > 0) for n in (h, w)]
    seen = windows(x, kernel, stride, pad, 1, out, -np.inf)
    row, column = np.unravel_index(seen.argmax(axis=2), (kernel, kernel))
    row = row + np.arange(out[0])[:, None] * stride - pad
    return (row * w + column + np.arange(out[1]) * stride - pad).astype(float)


def spp(x: Array, height: int, how: str) -> Array:
    """2^level bins a side; kernel = ceil(n / bins), pad = (kernel * bins - n + 1) / 2."""
    levels = []
    for level in range(height):
        bins = 2**level
        kernel = [math.ceil(n / bins) for n in x.shape[2:]]
        pad = [(k * bins - n + 1) // 2 for k, n in zip(kernel, x.shape[2:], strict=True)]
        levels.append(pool(x, how, kernel, kernel, pad).reshape(len(x), -1))
    return np.concatenate(levels, axis=1)


def lrn(x: Array, n: int, alpha: float, beta: float, k: float = 1.0) -> Array:
    squares = np.pad(x**2, [(0, 0), (n // 2, n // 2), (0, 0), (0, 0)])
    around = sum(squares[:, i : i + x.shape[1]] for i in range(n))
    return x * (k + alpha / n * around) ** -beta


def lrn_within(x: Array, n: int, alpha: float, beta: float) -> Array:
    around = windows(x**2, n, 1, n // 2, 1, x.shape[2:]).sum(axis=2)
    return x * (1 + alpha / n**2 * around) ** -beta
