"""What the vision and loss layers compute, written plainly in NumPy: loops, no cleverness."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from schemas.philox import uniform
from tests.references import pool

Array = np.ndarray[Any, Any]
Params = dict[str, Array]


def each(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * axes


def deconv(
    x: Array, p: Params, stride: Any = 1, pad: Any = 0, dilation: Any = 1, group: int = 1
) -> Array:
    """Each element of the bottom adds its kernel to the top."""
    w, axes = p["weight"], x.ndim - 2
    stride, pad, dilation = (each(v, axes) for v in (stride, pad, dilation))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    padded = [s * (n - 1) + r for n, s, r in zip(x.shape[2:], stride, reach, strict=True)]
    y = np.zeros((x.shape[0], w.shape[1] * group, *padded))
    outputs = w.shape[1]
    for n, c, *at in np.ndindex(*x.shape):
        first = c // (x.shape[1] // group) * outputs
        window = tuple(
            slice(a * s, a * s + r, d)
            for a, s, r, d in zip(at, stride, reach, dilation, strict=True)
        )
        y[(n, slice(first, first + outputs), *window)] += x[(n, c, *at)] * w[c]
    inner = tuple(slice(q, m - q) for q, m in zip(pad, padded, strict=True))
    y = y[(slice(None), slice(None), *inner)]
    return y + p["bias"].reshape(1, -1, *(1,) * axes) if "bias" in p else y


def im2col(x: Array, kernel: Any, stride: Any = 1, pad: Any = 0, dilation: Any = 1) -> Array:
    axes = x.ndim - 2
    kernel, stride, pad, dilation = (each(v, axes) for v in (kernel, stride, pad, dilation))
    x = np.pad(x, [(0, 0), (0, 0), *((q, q) for q in pad)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    y = np.zeros((*x.shape[:2], math.prod(kernel), *out))
    for at in np.ndindex(*out):
        window = tuple(
            slice(a * s, a * s + r, d)
            for a, s, r, d in zip(at, stride, reach, dilation, strict=True)
        )
        y[(slice(None), slice(None), slice(None), *at)] = x[
            (slice(None), slice(None), *window)
        ].reshape(*x.shape[:2], -1)
    return y.reshape(x.shape[0], -1, *out)


def local(x: Array, p: Params, kernel: Any, stride: Any = 1, pad: Any = 0, group: int = 1) -> Array:
    patches = im2col(x, kernel, stride, pad)
    w = p["weight"]
    axes = x.ndim - 2
    out, o = patches.shape[2:], w.shape[0]
    y = np.zeros((x.shape[0], o, *out))
    size = patches.shape[1] // group
    for n, f, *at in np.ndindex(*y.shape):
        first = f // (o // group) * size
        kernel_here = w[(f, ..., *at)].ravel()
        y[(n, f, *at)] = patches[(n, slice(first, first + size), *at)] @ kernel_here
    assert axes == len(out)
    return y + p["bias"] if "bias" in p else y


def windows(x: Array, kernel: Any, stride: int) -> Any:
    """Yields (place in the top, window) of a pooling without padding."""
    axes = x.ndim - 2
    kernel = each(kernel, axes)
    out = [-(-(n - k) // stride) + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
    for at in np.ndindex(*x.shape[:2], *out):
        inner = tuple(
            slice(a * stride, a * stride + k) for a, k in zip(at[2:], kernel, strict=True)
        )
        yield at, out, x[(*at[:2], *inner)].ravel()


def stochastic(x: Array, kernel: Any, stride: int, training: bool) -> Array:
    """Zeiler and Fergus 2013, with Caffe's loop: the first element that reaches the share."""
    places = list(windows(x, kernel, stride))
    y = np.zeros((*x.shape[:2], *places[0][1]))
    shares = uniform(0, zlib.crc32(b"layer/1"), 0, y.size).reshape(y.shape)
    for at, _, seen in places:
        total = seen.sum()
        if not training:
            y[at] = np.sum(seen**2) / total if total > 0 else 0
            continue
        y[at] = seen[int(np.argmax(np.cumsum(seen) >= shares[at] * total))]
    return y


def across(x: Array, how: str, kernel: int, stride: int = 1, pad: int = 0) -> Array:
    """Pools over the channels: the same with the channels as the one spatial axis."""
    moved = np.moveaxis(x, 1, -1)
    flat = moved.reshape(-1, 1, x.shape[1])
    y = pool(flat, how, kernel, stride, pad)
    return np.moveaxis(y.reshape(*moved.shape[:-1], -1), -1, 1)


def spp(x: Array, height: int, how: str) -> Array:
    """Caffe's SPPLayer: kernel ceil(n / bins), what is missing in the padding."""
    levels = []
    for level in range(height):
        kernel = [-(-n // 2**level) for n in x.shape[2:]]
        pad = [(k * 2**level - n + 1) // 2 for k, n in zip(kernel, x.shape[2:], strict=True)]
        y = pool(x, how, kernel, kernel, pad)
        levels.append(y if height == 1 else y.reshape(len(x), -1))
    return np.concatenate(levels, axis=1)


def interp(x: Array, height: int, width: int, pad_beg: int = 0, pad_end: int = 0) -> Array:
    """caffe_cpu_interp2 of DeepLab: corners on corners."""
    x = x[:, :, -pad_beg : x.shape[2] + pad_end, -pad_beg : x.shape[3] + pad_end]
    y = np.zeros((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        rows = (x.shape[2] - 1) / (height - 1) * i if height > 1 else 0.0
        columns = (x.shape[3] - 1) / (width - 1) * j if width > 1 else 0.0
        a, b = int(rows + 1e-9), int(columns + 1e-9)
        u, v = rows - a, columns - b
        c, d = min(a + 1, x.shape[2] - 1), min(b + 1, x.shape[3] - 1)
        top = (1 - v) * x[:, :, a, b] + v * x[:, :, a, d]
        y[:, :, i, j] = (1 - u) * top + u * ((1 - v) * x[:, :, c, b] + v * x[:, :, c, d])
    return y


def upsample(x: Array, mask: Array, height: int, width: int) -> Array:
    y = np.zeros((*x.shape[:2], height * width))
    for at in np.ndindex(*x.shape):
        y[(*at[:2], int(mask[at]))] += x[at]
    return y.reshape(*x.shape[:2], height, width)


def roi_pool(x: Array, rois: Array, ph: int, pw: int, scale: float) -> Array:
    """Fast R-CNN's ROIPoolingLayer."""
    y = np.zeros((len(rois), x.shape[1], ph, pw))
    for r, (image, *corners) in enumerate(rois.reshape(len(rois), 5)):
        x1, y1, x2, y2 = (math.floor(v * scale + 0.5) for v in corners)
        high, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in np.ndindex(ph, pw):
            rows = (i * high // ph + y1, -(-(i + 1) * high // ph) + y1)
            columns = (j * wide // pw + x1, -(-(j + 1) * wide // pw) + x1)
            inside = x[int(image)][
                :, max(rows[0], 0) : max(rows[1], 0), max(columns[0], 0) : max(columns[1], 0)
            ]
            if inside.size:
                y[r, :, i, j] = inside.max(axis=(1, 2))
    return y


def prior_box(
    shape: tuple[int, int],
    image: tuple[int, int],
    sizes: list[tuple[float, float]],
    step: tuple[float, float] | None = None,
    offset: float = 0.5,
    clip: bool = False,
    variance: Any = (0.1,) * 4,
) -> Array:
    """SSD's PriorBoxLayer, for boxes of the given (width, height)."""
    step = step or (image[0] / shape[0], image[1] / shape[1])
    boxes: list[float] = []
    for i, j in np.ndindex(*shape):
        y, x = (i + offset) * step[0], (j + offset) * step[1]
        for w, h in sizes:
            boxes += [(x - w / 2) / image[1], (y - h / 2) / image[0]]
            boxes += [(x + w / 2) / image[1], (y + h / 2) / image[0]]
    row = np.clip(boxes, 0, 1) if clip else np.asarray(boxes)
    return np.stack([row, np.tile(variance, len(boxes) // 4)])[None]
