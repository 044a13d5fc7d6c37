"""What the losses compute, written plainly in NumPy, with the gradients that Caffe defines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.references import softmax

Array = np.ndarray[Any, Any]


def sigmoid_loss(x: Array, t: Array, mode: str = "BATCH_SIZE", ignore: int | None = None) -> Array:
    total, counted = 0.0, 0
    for score, target in zip(x.ravel(), t.ravel(), strict=True):
        if int(target) != ignore:
            counted += 1
            total -= target * math.log(1 / (1 + math.exp(-score)))
            total -= (1 - target) * math.log(1 - 1 / (1 + math.exp(-score)))
    by = {"VALID": counted, "FULL": x.size, "BATCH_SIZE": len(x), "NONE": 1}
    return np.asarray(total / max(1, by[mode]))


def hinge_loss(x: Array, label: Array, norm: str) -> Array:
    total, rows = 0.0, x.reshape(len(x), -1)
    for row, one in zip(rows, label.astype(int).ravel(), strict=True):
        for c, score in enumerate(row):
            total += max(0, 1 - (1 if c == one else -1) * score) ** (2 if norm == "L2" else 1)
    return np.asarray(total / len(x))


def infogain_loss(
    x: Array, label: Array, h: Array, axis: int = 1, mode: str = "VALID", ignore: int | None = None
) -> Array:
    p = np.moveaxis(softmax(x, axis), axis, -1).reshape(-1, x.shape[axis])
    h = h.reshape(x.shape[axis], x.shape[axis])
    total, counted = 0.0, 0
    for row, one in zip(p, label.astype(int).ravel(), strict=True):
        if one != ignore:
            counted += 1
            total -= np.sum(h[one] * np.log(np.maximum(row, 1e-20)))
    by = {"VALID": counted, "FULL": len(p), "BATCH_SIZE": math.prod(x.shape[:axis]), "NONE": 1}
    return np.asarray(total / max(1, by[mode]))


def infogain_gradient(x: Array, label: Array, h: Array) -> Array:
    """Caffe's, of scores (N, classes): p * rowsum(H[label]) - H[label], over N."""
    rows = h[label.astype(int)]
    return (softmax(x) * rows.sum(axis=1, keepdims=True) - rows) / len(x)


def logistic_loss(p: Array, label: Array) -> Array:
    picked = p.reshape(len(p), -1)[np.arange(len(p)), label.astype(int).ravel()]
    return np.asarray(-np.sum(np.log(np.maximum(picked, 1e-20))) / len(p))


def contrastive_loss(
    a: Array, b: Array, same: Array, margin: float = 1.0, legacy: bool = False
) -> Array:
    total = 0.0
    for x, y, one in zip(a.reshape(len(a), -1), b.reshape(len(a), -1), same.ravel(), strict=True):
        d2 = float(np.sum((x - y) ** 2))
        if int(one):
            total += d2
        else:
            total += max(margin - d2, 0) if legacy else max(margin - math.sqrt(d2), 0) ** 2
    return np.asarray(total / (2 * len(a)))


def contrastive_gradient(a: Array, b: Array, same: Array, margin: float) -> Array:
    """Caffe's ContrastiveLossLayer::Backward_cpu, for the first bottom; the other has its minus."""
    g = np.zeros_like(a)
    for i, one in enumerate(same.ravel()):
        diff = a[i] - b[i]
        if int(one):
            g[i] = diff / len(a)
        else:
            d = math.sqrt(np.sum(diff**2))
            if margin - d > 0:
                g[i] = -(margin - d) / (d + 1e-4) * diff / len(a)
    return g


def smooth_l1_loss(a: Array, b: Array, sigma: float = 1.0, *weights: Array) -> Array:
    inside, outside = weights if len(weights) == 2 else (*weights, 1.0, 1.0)[:2]
    x = inside * (a - b)
    f = np.where(np.abs(x) < 1 / sigma**2, 0.5 * (sigma * x) ** 2, np.abs(x) - 0.5 / sigma**2)
    return np.asarray(np.sum(outside * f) / len(a))
