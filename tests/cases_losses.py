"""Rows of the case table: losses beside SoftmaxWithLoss and EuclideanLoss."""

from __future__ import annotations

from typing import Any

from tests import references as ref
from tests import references_losses as seen
from tests.cases import Array, Bottom, case
from tests.cases_vision import nonzero


def sigmoid_loss(name: str, shape: Any, targets: Bottom, **fields: Any) -> None:
    mode = fields.get("normalization", "BATCH_SIZE")
    if "normalization" not in fields and fields.get("normalize"):
        mode = "VALID"
    ignore = fields.get("ignore_label")
    case(
        f"sigmoid_loss_{name}",
        {"type": "SigmoidCrossEntropyLoss", **fields},
        [shape, targets],
        lambda p, x, t: seen.sigmoid_loss(x, t, mode, ignore),
    )


_soft, _hard = Bottom((4, 3, 2), draw=nonzero), Bottom((4, 3, 2), labels=2)
_three = Bottom((4, 3, 2), labels=3)
sigmoid_loss("plain", (4, 3, 2), _hard)
sigmoid_loss("soft", (4, 3, 2), _soft)
sigmoid_loss("flat", (4, 6), Bottom((4, 3, 2), labels=2))
sigmoid_loss("large", Bottom((5, 4), scale=8.0), Bottom((5, 4), labels=2))
for _mode in ("VALID", "FULL", "BATCH_SIZE", "NONE"):
    sigmoid_loss(_mode.lower(), (4, 3, 2), _three, normalization=_mode, ignore_label=2)
sigmoid_loss("ignore", (4, 3, 2), _three, ignore_label=1)
sigmoid_loss("old", (4, 3, 2), _three, normalize=True, ignore_label=1)

for _norm in ("L1", "L2"):
    case(
        f"hinge_loss_{_norm.lower()}",
        {"type": "HingeLoss", "norm": _norm},
        [(5, 4), Bottom((5,), labels=4)],
        lambda p, x, label, norm=_norm: seen.hinge_loss(x, label, norm),
    )
case(
    "hinge_loss_image",
    {"type": "HingeLoss"},
    [(3, 4, 1, 1), Bottom((3, 1, 1, 1), labels=4)],
    lambda p, x, label: seen.hinge_loss(x, label, "L1"),
)


def infogain(name: str, shape: Any, labels: Bottom, h: Any, tops: int = 1, **fields: Any) -> None:
    how = {"axis": fields.get("axis", 1), "ignore": fields.get("ignore_label")}
    how["mode"] = fields.get("normalization", "VALID")

    def reference(p: Any, x: Array, label: Array, matrix: Array) -> Any:
        loss = seen.infogain_loss(x, label, matrix, **how)
        return (loss, ref.softmax(x, how["axis"])) if tops == 2 else loss

    case(
        f"infogain_loss_{name}",
        {"type": "InfogainLoss", **fields},
        [shape, labels, h],
        reference,
        tops=tops,
    )


infogain("plain", (6, 4), Bottom((6,), labels=4), (4, 4))
infogain("blob", (3, 2), Bottom((3, 1, 1, 1), labels=2), (1, 1, 2, 2), tops=2)
for _mode in ("VALID", "FULL", "BATCH_SIZE", "NONE"):
    infogain(
        _mode.lower(),
        (2, 3, 2, 4),
        Bottom((2, 1, 2, 4), labels=3),
        (3, 3),
        normalization=_mode,
        ignore_label=1,
    )
infogain("last_axis", (2, 3, 5), Bottom((2, 3), labels=5), (5, 5), axis=-1)
case(
    "multinomial_loss",
    {"type": "MultinomialLogisticLoss"},
    [Bottom((5, 4), draw=nonzero), Bottom((5,), labels=4)],
    lambda p, x, label: seen.logistic_loss(x, label),
)
case(
    "multinomial_loss_zeros",
    {"type": "MultinomialLogisticLoss"},
    [Bottom((5, 4, 1, 1), always=0.0), Bottom((5, 1, 1, 1), labels=4)],
    lambda p, x, label: seen.logistic_loss(x, label),
    gradient=False,
)


def contrastive(name: str, shape: Any, same: Bottom, gradient: bool = True, **fields: Any) -> None:
    how = {"margin": fields.get("margin", 1.0), "legacy": fields.get("legacy_version", False)}
    case(
        f"contrastive_loss_{name}",
        {"type": "ContrastiveLoss", **fields},
        [shape, shape, same],
        lambda p, a, b, same: seen.contrastive_loss(a, b, same, **how),
        gradient=gradient,
    )


# Caffe's gradient of the new version is not the slope (test_vision_layers.py).
_some = Bottom((6,), labels=2)
contrastive("plain", (6, 3), _some, gradient=False, margin=3.0)
contrastive("blob", (6, 3, 1, 1), Bottom((6, 1, 1, 1), labels=2), gradient=False)
contrastive("together", (4, 3), Bottom((4,), labels=2, always=1.0))
contrastive("legacy", (6, 3), _some, legacy_version=True, margin=5.0)
contrastive("legacy_near", (6, 2), _some, legacy_version=True)


def smooth_l1(name: str, shape: Any, bottoms: int, **fields: Any) -> None:
    sigma = fields.get("sigma", 1.0)
    case(
        f"smooth_l1_{name}",
        {"type": "SmoothL1Loss", **fields},
        [shape] * bottoms,
        lambda p, a, b, *weights: seen.smooth_l1_loss(a, b, sigma, *weights),
    )


smooth_l1("plain", (4, 5), 2)
smooth_l1("sigma", (4, 5), 2, sigma=3)
smooth_l1("inside", (3, 4, 2), 3)
smooth_l1("weights", (2, 4, 3, 3), 4, sigma=0.7)
