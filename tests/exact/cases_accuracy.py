"""Cases of Accuracy, which has no slope."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.exact.harness import Array, Table

case = Table()
CASES = case.rows
FLAT: dict[str, Any] = {"fixed": ("label",), "slopes": lambda d, **values: {}}


def accuracy(
    x: Array, label: Array, k: int = 1, ignored: float | None = None
) -> tuple[Array, Array]:
    """Found if fewer than k other scores are as high; the second is the share of each class."""
    right = [
        (row >= row[int(y)]).sum() - 1 < k if y != ignored else False
        for row, y in zip(x, label, strict=True)
    ]
    counts = label != ignored
    classes = [
        np.mean([r for r, y in zip(right, label, strict=True) if y == c] or [0])
        for c in range(x.shape[1])
    ]
    return np.asarray(np.sum(right) / max(1, counts.sum())), np.array(classes)


GRADES = np.array([[3.0, 1, 2], [1, 1, 0], [0, 2, 5], [4, 4, 4], [1, 2, 3]])
MARKS = np.array([0.0, 1, 1, 2, 2])
for k in (1, 2, 3):
    case(
        f"accuracy_top_{k}_ties_count_against",
        "Accuracy",
        f"accuracy_param {{ top_k: {k} }}",
        {"x": GRADES, "label": MARKS},
        lambda x, label, k=k: accuracy(x, label, k)[0],
        **FLAT,
    )
case(
    "accuracy_ignore_and_classes",
    "Accuracy",
    "accuracy_param { ignore_label: 2 }",
    {"x": GRADES, "label": MARKS},
    lambda x, label: accuracy(x, label, 1, 2),
    tops=("y", "classes"),
    **FLAT,
)
case(
    "accuracy_classes",
    "Accuracy",
    "",
    {"x": GRADES, "label": MARKS},
    lambda x, label: accuracy(x, label),
    tops=("y", "classes"),
    **FLAT,
)
case(
    "accuracy_of_nothing_is_0",
    "Accuracy",
    "accuracy_param { ignore_label: 0 }",
    {"x": GRADES[:2], "label": np.zeros(2)},
    lambda x, label: 0.0,
    **FLAT,
)
case(
    "accuracy_last_axis",
    "Accuracy",
    "accuracy_param { axis: -1 top_k: 2 }",
    {"x": GRADES.reshape(1, 5, 3), "label": MARKS.reshape(1, 5)},
    lambda x, label: accuracy(x[0], label[0], 2)[0],
    **FLAT,
)
