"""Cases of normalisation layers, softmax, and detection's priors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.exact.harness import Array, Table

case = Table()
CASES = case.rows
FOUR = (3, 2, 2, 3)
POSITIVE = np.abs(np.random.default_rng(1).standard_normal(2)) + 0.5


def one(name: str, kind: str, body: str, oracle: Any, shape: Any = FOUR, **flags: Any) -> None:
    case(name, kind, body, {"x": shape}, oracle, **flags)


def channels(values: Array, x: Array) -> Array:
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))


def batch_norm(x: Array, eps: float = 1e-5) -> Array:
    over = tuple(i for i in range(x.ndim) if i != 1)
    away = x - x.mean(over, keepdims=True)
    return away / np.sqrt((away**2).mean(over, keepdims=True) + eps)


SUMS = {"mean": (2,), "variance": POSITIVE, "scale_factor": np.array([2.5])}
MEASURED = ("mean", "variance", "scale_factor")


def global_norm(x: Array, mean: Array, variance: Array, scale_factor: Array) -> Array:
    factor = 0 if scale_factor == 0 else 1 / scale_factor
    return (x - channels(mean * factor, x)) / np.sqrt(channels(variance * factor, x) + 1e-5)


# Where the sums are not used, they are blobs all the same.
IN_TRAINING = {"blobs": SUMS, "fixed": MEASURED}
one("batch_norm", "BatchNorm", "", lambda x, **_: batch_norm(x), **IN_TRAINING)
one(
    "batch_norm_eps",
    "BatchNorm",
    "batch_norm_param { eps: 0.1 }",
    lambda x, **_: batch_norm(x, 0.1),
    (4, 2),
    **IN_TRAINING,
)
one(
    "batch_norm_of_three_axes",
    "BatchNorm",
    "",
    lambda x, **_: batch_norm(x),
    (2, 2, 4),
    **IN_TRAINING,
)
one(
    "batch_norm_of_one_axis_is_one_channel",
    "BatchNorm",
    "",
    lambda x, **_: batch_norm(x[:, None])[:, 0],
    (6,),
    blobs={"mean": (1,), "variance": POSITIVE[:1], "scale_factor": np.ones(1)},
    fixed=MEASURED,
)
one("batch_norm_test", "BatchNorm", "", global_norm, phase="TEST", blobs=SUMS, fixed=MEASURED)
one(
    "batch_norm_global_in_training",
    "BatchNorm",
    "batch_norm_param { use_global_stats: true }",
    global_norm,
    blobs=SUMS,
    fixed=MEASURED,
)
one(
    "batch_norm_batch_in_test",
    "BatchNorm",
    "batch_norm_param { use_global_stats: false }",
    lambda x, **_: batch_norm(x),
    phase="TEST",
    **IN_TRAINING,
)
one(
    "batch_norm_factor_0",
    "BatchNorm",
    "",
    global_norm,
    phase="TEST",
    blobs={**SUMS, "scale_factor": np.zeros(1)},
    fixed=MEASURED,
    tolerance=300.0,  # divides by sqrt(1e-5)
)
one(
    "bn",
    "BN",
    "",
    lambda x, slope, bias, **_: batch_norm(x) * channels(slope, x) + channels(bias, x),
    blobs={"slope": (2,), "bias": (2,), "mean": (2,), "variance": POSITIVE},
    fixed=("mean", "variance"),
)


one(
    "bn_test",
    "BN",
    "",
    lambda x, slope, bias, mean, variance: (
        (x - channels(mean, x)) / np.sqrt(channels(variance, x) + 1e-5) * channels(slope, x)
        + channels(bias, x)
    ),
    phase="TEST",
    blobs={"slope": (2,), "bias": (2,), "mean": (2,), "variance": POSITIVE},
    fixed=("mean", "variance"),
)
one(
    "bn_inference_is_affine",
    "BN",
    "bn_param { bn_mode: INFERENCE scale_filler { value: 2 } shift_filler { value: 1 } }",
    lambda x, slope, bias: x * channels(slope, x) + channels(bias, x),
    blobs={"slope": (2,), "bias": (2,)},
)


def mvn(x: Array, across: bool = False, variance: bool = True, eps: float = 1e-9) -> Array:
    over = tuple(range(1 if across else 2, x.ndim))
    away = x - x.mean(over, keepdims=True)
    return away / (np.sqrt((away**2).mean(over, keepdims=True)) + eps) if variance else away


one("mvn", "MVN", "", mvn)
one("mvn_across", "MVN", "mvn_param { across_channels: true }", lambda x: mvn(x, across=True))
one(
    "mvn_mean_only",
    "MVN",
    "mvn_param { normalize_variance: false }",
    lambda x: mvn(x, variance=False),
)
one("mvn_eps_outside_of_the_root", "MVN", "mvn_param { eps: 0.5 }", lambda x: mvn(x, eps=0.5))


def normalize(x: Array, weight: Array, across: bool, eps: float = 1e-10) -> Array:
    over = tuple(range(1, x.ndim)) if across else (1,)
    y = x / np.sqrt((x**2).sum(over, keepdims=True) + eps)
    return y * (channels(weight, x) if weight.ndim else weight)


one(
    "normalize", "Normalize", "", lambda x, weight: normalize(x, weight, True), blobs={"weight": ()}
)
one(
    "normalize_each_place",
    "Normalize",
    "norm_param { across_spatial: false channel_shared: false }",
    lambda x, weight: normalize(x, weight, False),
    blobs={"weight": (2,)},
)


def standard(x: Array, over: tuple[int, ...], eps: float = 1e-5) -> Array:
    away = x - x.mean(over, keepdims=True)
    return away / np.sqrt((away**2).mean(over, keepdims=True) + eps)


one(
    "layer_norm",
    "LayerNorm",
    "",
    lambda x, weight, bias: standard(x, (3,)) * weight + bias,
    blobs={"weight": (3,), "bias": (3,)},
)
one(
    "layer_norm_axis_1",
    "LayerNorm",
    "layer_norm_param { axis: 1 affine: false eps: 0.01 }",
    lambda x: standard(x, (1, 2, 3), 0.01),
)
one(
    "group_norm",
    "GroupNorm",
    "group_norm_param { num_groups: 2 }",
    lambda x, weight, bias: (
        standard(x.reshape(2, 2, 2, 3, 2), (2, 3, 4)).reshape(x.shape) * channels(weight, x)
        + channels(bias, x)
    ),
    (2, 4, 3, 2),
    blobs={"weight": (4,), "bias": (4,)},
)


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


one("softmax", "Softmax", "", lambda x: softmax(x, 1))
one("softmax_last", "Softmax", "softmax_param { axis: -1 }", lambda x: softmax(x, 3))
one(
    "softmax_of_large",
    "Softmax",
    "",
    lambda x: softmax(x, 1),
    np.array([[500.0, 499, -700], [0, 0, 0]]),
)


def prior_box(feature: Array, data: Array) -> Array:
    """min 4, max 9, ratios 2 and 3 with flip, clipped: six boxes a place."""
    (h, w), (height, width) = feature.shape[2:], data.shape[2:]
    sizes = [(4.0, 4.0), (6.0, 6.0)]
    for ratio in (2.0, 0.5, 3.0, 1 / 3):
        sizes.append((4 * math.sqrt(ratio), 4 / math.sqrt(ratio)))
    boxes = []
    for i in range(h):
        for j in range(w):
            cx, cy = (j + 0.5) * width / w, (i + 0.5) * height / h
            for bw, bh in sizes:
                boxes += [(cx - bw / 2) / width, (cy - bh / 2) / height]
                boxes += [(cx + bw / 2) / width, (cy + bh / 2) / height]
    rows = np.clip(boxes, 0, 1), np.tile([0.1, 0.1, 0.2, 0.2], len(boxes) // 4)
    return np.stack(rows)[None]


case(
    "prior_box",
    "PriorBox",
    "prior_box_param { min_size: 4 max_size: 9 aspect_ratio: 2 aspect_ratio: 3 clip: true"
    " variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }",
    {"feature": (1, 2, 2, 3), "data": (1, 3, 12, 18)},
    prior_box,
    fixed=("feature", "data"),
)
