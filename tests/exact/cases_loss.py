"""Cases of losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.exact.cases_norm import softmax
from tests.exact.harness import Array, Table

case = Table()
CASES = case.rows
FLT_MIN = 1.17549435e-38
LABEL = np.array([1.0, 0.0, 3.0, 3.0, 2.0])
PLACES = np.array([[[0.0, 2.0]], [[1.0, 1.0]]])  # of (2, 3, 1, 2) scores: 2 x 1 x 2 labels


def picked(p: Array, label: Array, axis: int) -> Array:
    """Returns what stands at the label, with the axis left out."""
    index = np.expand_dims(label.astype(int).reshape(*p.shape[:axis], *p.shape[axis + 1 :]), axis)
    index = np.clip(index, 0, p.shape[axis] - 1)  # a label that is ignored may be none
    return np.take_along_axis(p, index, axis).squeeze(axis)


def divisor(mode: str, label: Array, outer: int, ignored: float | None) -> float:
    if mode == "VALID":
        return max(1.0, float((label != ignored).sum()))
    return {"FULL": float(label.size), "BATCH_SIZE": float(outer), "NONE": 1.0}[mode]


def softmax_loss(
    x: Array, label: Array, mode: str = "VALID", ignored: float | None = None, axis: int = 1
) -> Array:
    loss = -np.log(np.maximum(picked(softmax(x, axis), label, axis), FLT_MIN)).reshape(-1)
    loss = np.where(label.reshape(-1) == ignored, 0.0, loss)
    return loss.sum() / divisor(mode, label, math.prod(x.shape[:axis]), ignored)


def loss(
    name: str, kind: str, body: str, bottoms: dict[str, Any], oracle: Any, **flags: Any
) -> None:
    fixed = flags.pop("fixed", ("label",))
    case(name, kind, body, bottoms, oracle, fixed=fixed, **flags)


# SoftmaxWithLoss ---------------------------------------------------------------------------------

loss("softmax_loss", "SoftmaxWithLoss", "", {"x": (5, 4), "label": LABEL}, softmax_loss)
for mode in ("VALID", "FULL", "BATCH_SIZE", "NONE"):
    for ignored in (None, 1):
        ignore = "" if ignored is None else f"ignore_label: {ignored}"
        loss(
            f"softmax_loss_{mode.lower()}_{'all' if ignored is None else 'some'}",
            "SoftmaxWithLoss",
            f"loss_param {{ normalization: {mode} {ignore} }}",
            {"x": (2, 3, 1, 2), "label": PLACES},
            lambda x, label, mode=mode, ignored=ignored: softmax_loss(x, label, mode, ignored),
        )
for mode in ("VALID", "FULL", "BATCH_SIZE"):
    loss(
        f"softmax_loss_{mode.lower()}_with_no_label_that_counts",
        "SoftmaxWithLoss",
        f"loss_param {{ normalization: {mode} ignore_label: 255 }}",
        {"x": (2, 3), "label": np.array([255.0, 255.0])},
        lambda x, label: 0.0 * x.sum(),
    )
for word, mode in (("true", "VALID"), ("false", "BATCH_SIZE")):
    loss(
        f"softmax_loss_normalize_{word}",
        "SoftmaxWithLoss",
        f"loss_param {{ normalize: {word} ignore_label: 1 }}",
        {"x": (2, 3, 1, 2), "label": PLACES},
        lambda x, label, mode=mode: softmax_loss(x, label, mode, 1),
    )
loss(
    "softmax_loss_normalization_beats_normalize",
    "SoftmaxWithLoss",
    "loss_param { normalize: false normalization: FULL ignore_label: 1 }",
    {"x": (2, 3, 1, 2), "label": PLACES},
    lambda x, label: softmax_loss(x, label, "FULL", 1),
)
loss(
    "softmax_loss_ignores_a_negative_label",
    "SoftmaxWithLoss",
    "loss_param { ignore_label: -1 }",
    {"x": (4, 3), "label": np.array([-1.0, 2.0, -1.0, 0.0])},
    lambda x, label: softmax_loss(x, label, "VALID", -1),
)
loss(
    "softmax_loss_last_axis",
    "SoftmaxWithLoss",
    "softmax_param { axis: -1 }",
    {"x": (2, 2, 3), "label": np.array([[0.0, 2.0], [1.0, 1.0]])},
    lambda x, label: softmax_loss(x, label, "VALID", None, 2),
)
loss(
    "softmax_loss_batch_size_is_all_axes_before_the_classes",
    "SoftmaxWithLoss",
    "softmax_param { axis: 2 } loss_param { normalization: BATCH_SIZE ignore_label: 0 }",
    {"x": (2, 2, 3), "label": np.array([[0.0, 2.0], [1.0, 1.0]])},
    lambda x, label: softmax_loss(x, label, "BATCH_SIZE", 0, 2),
)
loss(
    "softmax_loss_and_probabilities",
    "SoftmaxWithLoss",
    "loss_weight: 1 loss_weight: 0",
    {"x": (5, 4), "label": LABEL},
    lambda x, label: (softmax_loss(x, label), softmax(x, 1)),
    tops=("loss", "prob"),
    slopes=lambda d, x, label: {
        "x": d["loss"] / 5 * (softmax(x, 1) - (np.arange(4) == label[:, None]))
    },
)
SURE = np.array([[400.0, 0.0, -400.0], [0.0, 900.0, 0.0]])
loss(
    "softmax_loss_stops_at_flt_min_but_its_gradient_does_not",
    "SoftmaxWithLoss",
    "",
    {"x": SURE, "label": np.array([2.0, 1.0])},
    lambda x, label: -math.log(FLT_MIN) / 2,
    slopes=lambda d, x, label: {"x": d["y"] / 2 * np.array([[1.0, 0, -1], [0, 0, 0]])},
)

# SigmoidCrossEntropyLoss -------------------------------------------------------------------------


def sigmoid_loss(
    x: Array, t: Array, mode: str = "BATCH_SIZE", ignored: float | None = None
) -> Array:
    each = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    each = np.where(t == ignored, 0.0, each)
    return each.sum() / divisor(mode, t, len(x), ignored)


SOFT = np.random.default_rng(4).random((3, 4))
HARD = np.array([[0.0, 1, 2, 1], [2, 2, 0, 1], [1, 0, 0, 2]])
loss(
    "sigmoid_loss_soft_targets",
    "SigmoidCrossEntropyLoss",
    "",
    {"x": (3, 4), "t": SOFT},
    sigmoid_loss,
    fixed=("t",),
)
loss(
    "sigmoid_loss_large",
    "SigmoidCrossEntropyLoss",
    "",
    {"x": np.array([[-300.0, -40, 0.5, 40, 300]]), "t": np.array([[1.0, 0, 1, 1, 0]])},
    sigmoid_loss,
    fixed=("t",),
)
for mode in ("VALID", "FULL", "BATCH_SIZE", "NONE"):
    loss(
        f"sigmoid_loss_{mode.lower()}",
        "SigmoidCrossEntropyLoss",
        f"loss_param {{ normalization: {mode} ignore_label: 2 }}",
        {"x": (3, 4), "t": HARD},
        lambda x, t, mode=mode: sigmoid_loss(x, t, mode, 2),
        fixed=("t",),
    )
loss(
    "sigmoid_loss_targets_of_another_shape",
    "SigmoidCrossEntropyLoss",
    "",
    {"x": (3, 4, 1, 1), "t": SOFT},
    lambda x, t: sigmoid_loss(x.reshape(3, 4), t),
    fixed=("t",),
)

# Infogain, multinomial ---------------------------------------------------------------------------

H = np.random.default_rng(5).random((4, 4))


def infogain(x: Array, label: Array, h: Array, mode: str = "VALID", ignored: Any = None) -> Array:
    log_p = np.log(np.maximum(softmax(x, 1), 1e-20))
    rows = h.reshape(x.shape[1], -1)[label.astype(int)]
    each = -(rows * log_p).sum(1)
    each = np.where(label == ignored, 0.0, each)
    return each.sum() / divisor(mode, label, len(x), ignored)


loss(
    "infogain_third_bottom",
    "InfogainLoss",
    "",
    {"x": (5, 4), "label": LABEL, "h": H.reshape(1, 1, 4, 4)},
    infogain,
    fixed=("label", "h"),
)
for mode in ("VALID", "BATCH_SIZE", "NONE"):
    loss(
        f"infogain_{mode.lower()}",
        "InfogainLoss",
        f"loss_param {{ ignore_label: 3 normalization: {mode} }}",
        {"x": (5, 4), "label": LABEL, "h": H},
        lambda x, label, h, mode=mode: infogain(x, label, h, mode, 3),
        fixed=("label", "h"),
    )
loss(
    "infogain_places",
    "InfogainLoss",
    "infogain_loss_param { axis: 1 }",
    {"x": (2, 3, 1, 2), "label": PLACES, "h": H[:3, :3]},
    lambda x, label, h: infogain(x.transpose(0, 2, 3, 1).reshape(4, 3), label.reshape(-1), h),
    fixed=("label", "h"),
)
loss(
    "infogain_stops_but_its_gradient_does_not",
    "InfogainLoss",
    "",
    {"x": SURE, "label": np.array([2.0, 1.0]), "h": H[:3, :3]},
    infogain,
    fixed=("label", "h"),
    slopes=lambda d, x, label, h: {
        "x": d["y"]
        / 2
        * (softmax(x, 1) * h[label.astype(int)].sum(1, keepdims=True) - h[label.astype(int)])
    },
)
SHARES = softmax(np.random.default_rng(6).standard_normal((5, 4)), 1)
loss(
    "multinomial_of_probabilities",
    "MultinomialLogisticLoss",
    "",
    {"p": SHARES, "label": LABEL},
    lambda p, label: -np.log(picked(p, label, 1)).mean(),
)
loss(
    "multinomial_stops_at_1e-20",
    "MultinomialLogisticLoss",
    "",
    {"p": np.array([[0.0, 1.0], [0.5, 0.5]]), "label": np.array([0.0, 1.0])},
    lambda p, label: -(math.log(1e-20) + math.log(0.5)) / 2,
    slopes=lambda d, p, label: {"p": d["y"] / 2 * np.array([[-1e20, 0], [0, -2]])},
)

# Distances and margins ---------------------------------------------------------------------------

PAIR = {"a": (3, 4), "b": (3, 4)}
loss(
    "euclidean",
    "EuclideanLoss",
    "",
    PAIR,
    lambda a, b: ((a - b) ** 2).sum() / 6,
    fixed=(),
)
loss(
    "euclidean_other_shape",
    "EuclideanLoss",
    "",
    {"a": (3, 4, 1, 1), "b": (3, 2, 2)},
    lambda a, b: ((a.reshape(3, 4) - b.reshape(3, 4)) ** 2).sum() / 6,
    fixed=(),
)


def hinge(x: Array, label: Array, power: int) -> Array:
    t = np.where(np.arange(x.shape[1]) == label[:, None], 1.0, -1.0)
    return (np.maximum(0, 1 - t * x) ** power).sum() / len(x)


for norm, power in (("L1", 1), ("L2", 2)):
    loss(
        f"hinge_{norm.lower()}",
        "HingeLoss",
        f"hinge_loss_param {{ norm: {norm} }}",
        {"x": (5, 4), "label": LABEL},
        lambda x, label, power=power: hinge(x, label, power),
    )
MARGIN = np.array([[1.0, -1.0, 0.0], [2.0, -3.0, -1.0]])  # on the margin but for two
for norm, slope in (("L1", [[0, 0, 1], [0, 0, 0]]), ("L2", [[0, 0, 2], [0, 0, 0]])):
    loss(
        f"hinge_{norm.lower()}_on_the_margin",
        "HingeLoss",
        f"hinge_loss_param {{ norm: {norm} }}",
        {"x": MARGIN, "label": np.zeros(2)},
        lambda x, label: 0.5,
        slopes=lambda d, x, label, slope=slope: {"x": d["y"] / 2 * np.array(slope)},
    )
loss(
    "hinge_of_planes",
    "HingeLoss",
    "",
    {"x": (5, 4, 1, 1), "label": LABEL},
    lambda x, label: hinge(x.reshape(5, 4), label, 1),
)
TOGETHER = np.array([1.0, 0.0, 0.0, 1.0])
NEAR = {"a": 0.3 * np.random.default_rng(8).standard_normal((4, 3)), "b": np.zeros((4, 3))}


def contrastive(a: Array, b: Array, same: Array, margin: float, legacy: bool) -> Array:
    d2 = ((a - b) ** 2).sum(1)
    short = np.maximum(margin - d2, 0) if legacy else np.maximum(margin - np.sqrt(d2), 0) ** 2
    return np.where(same.reshape(-1) == 1, d2, short).sum() / (2 * len(a))


def contrastive_slopes(d: Any, a: Array, b: Array, same: Array) -> dict[str, Array]:
    """Caffe divides by the distance + 1e-4."""
    diff = a - b
    dist = np.sqrt((diff**2).sum(1, keepdims=True))
    other = np.where(dist < 1.5, -(1.5 - dist) / (dist + 1e-4) * diff, 0)
    g = d["y"] / len(a) * np.where(same.reshape(-1, 1) == 1, diff, other)
    return {"a": g, "b": -g}


loss(
    "contrastive",
    "ContrastiveLoss",
    "contrastive_loss_param { margin: 1.5 }",
    {**NEAR, "same": TOGETHER},
    lambda a, b, same: contrastive(a, b, same, 1.5, False),
    slopes=contrastive_slopes,
)
loss(
    "contrastive_legacy",
    "ContrastiveLoss",
    "contrastive_loss_param { margin: 0.5 legacy_version: true }",
    {**NEAR, "same": TOGETHER.reshape(4, 1, 1, 1)},
    lambda a, b, same: contrastive(a, b, same, 0.5, True),
    fixed=("same",),
)


def smooth_l1(a: Array, b: Array, inside: Any = 1, outside: Any = 1, sigma: float = 1) -> Array:
    x = inside * (a - b)
    near = abs(x) < 1 / sigma**2
    return (outside * np.where(near, 0.5 * (sigma * x) ** 2, abs(x) - 0.5 / sigma**2)).sum() / len(
        a
    )


loss("smooth_l1", "SmoothL1Loss", "", PAIR, smooth_l1, fixed=())
loss(
    "smooth_l1_weights",
    "SmoothL1Loss",
    "smooth_l1_loss_param { sigma: 1.5 }",
    {**PAIR, "inside": np.abs(SOFT), "outside": np.abs(SOFT[::-1])},
    lambda a, b, inside, outside: smooth_l1(a, b, inside, outside, 1.5),
    fixed=("inside", "outside"),
)
