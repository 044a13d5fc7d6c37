"""THE table of layer cases: one row or more for each layer type; every backend runs them all.

A row says how a layer is written, what its bottoms are, and what it must compute, in NumPy. The
tests build the layer alone, compare its tops with the reference in float64 and its gradients with
a finite difference in a random direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests import references as ref

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bottom:
    """A bottom: normal numbers, or the same number everywhere; labels from 0 to `labels` - 1.

    `draw(rng, shape)` makes other values; `fixed` ones, as labels, are asked for no gradient.
    """

    shape: tuple[int, ...]
    labels: int = 0
    always: float | None = None
    scale: float = 1.0
    draw: Callable[[np.random.Generator, tuple[int, ...]], Array] | None = None
    fixed: bool = False


@dataclass(frozen=True)
class Case:
    """One row. `reference(params, *bottoms)` returns the tops; a source gets its own tops."""

    name: str
    layer: dict[str, Any]
    bottoms: tuple[Bottom, ...]
    reference: Callable[..., Any]
    phase: str = "TRAIN"
    tops: int = 1
    gradient: bool = True

    def __str__(self) -> str:
        return self.name


CASES: list[Case] = []


def case(name: str, layer: dict[str, Any], bottoms: Any, reference: Any, **flags: Any) -> None:
    shapes = tuple(b if isinstance(b, Bottom) else Bottom(tuple(b)) for b in bottoms)
    CASES.append(Case(name, layer, shapes, reference, **flags))


# Convolution -------------------------------------------------------------------------------------


def conv(name: str, shape: Any, out: int, kernel: Any, **fields: Any) -> None:
    geometry = {k: v for k, v in fields.items() if k in ("stride", "pad", "dilation", "group")}
    layer = {"type": "Convolution", "num_output": out, "kernel_size": kernel, **fields}
    case(f"conv_{name}", layer, [shape], lambda p, x: ref.conv(x, p, **geometry))


conv("plain", (2, 3, 6, 5), 4, 3)
conv("one", (1, 1, 1, 1), 1, 1)
conv("pointwise", (3, 5, 4, 4), 7, 1)
conv("lenet", (4, 1, 12, 12), 20, 5)
conv("primes", (2, 3, 11, 13), 5, [3, 5], stride=[2, 3], pad=[1, 2])
conv("odd_pad", (1, 2, 5, 5), 3, 3, pad=2)
conv("even_kernel", (2, 3, 7, 7), 4, 2, pad=1)
conv("stride_over_kernel", (2, 2, 9, 8), 3, 2, stride=3)
conv("rest", (1, 2, 8, 9), 3, 3, stride=4)
conv("whole", (2, 3, 4, 5), 6, [4, 5])
conv("wide", (1, 17, 5, 19), 33, 3, pad=1)
conv("groups", (2, 6, 5, 5), 9, 3, group=3, pad=1)
conv("depthwise", (2, 5, 6, 6), 5, 3, group=5, stride=2)
conv("dilated", (1, 2, 9, 9), 3, 3, dilation=2)
conv("dilated_all", (2, 4, 11, 10), 6, [3, 2], dilation=[2, 3], stride=[1, 2], pad=[2, 1], group=2)
conv("no_bias", (2, 3, 5, 5), 4, 3, bias_term=False)
conv("1d", (2, 3, 11), 4, 3, stride=2, pad=1)
conv("3d", (2, 2, 4, 5, 3), 3, 2, pad=1)
case(
    "conv_sides",
    {
        "type": "Convolution",
        "num_output": 3,
        "kernel_h": 3,
        "kernel_w": 1,
        "pad_h": 1,
        "stride_w": 2,
    },
    [(2, 2, 5, 7)],
    lambda p, x: ref.conv(x, p, stride=[1, 2], pad=[1, 0]),
)
case(
    "conv_two_bottoms",
    {"type": "Convolution", "num_output": 3, "kernel_size": 3},
    [(2, 2, 5, 5), (1, 2, 4, 6)],
    lambda p, x, y: (ref.conv(x, p), ref.conv(y, p)),
    tops=2,
)
case(
    "conv_axis",
    {"type": "Convolution", "num_output": 3, "kernel_size": 3, "axis": 2},
    [(2, 3, 2, 5, 5)],
    lambda p, x: ref.conv(x.reshape(6, 2, 5, 5), p).reshape(2, 3, 3, 3, 3),
)
case(
    "conv_dense",
    {"type": "Convolution", "num_output": 3},
    [(4, 5)],
    lambda p, x: x @ p["weight"].T + p["bias"],
)

# Pooling -----------------------------------------------------------------------------------------


def pool(name: str, shape: Any, how: str, kernel: Any, **fields: Any) -> None:
    geometry = {k: v for k, v in fields.items() if k in ("stride", "pad")}
    geometry["floor"] = fields.get("round_mode") == "FLOOR"
    layer = {"type": "Pooling", "pool": how, "kernel_size": kernel, **fields}
    reference = lambda p, x: ref.pool(x, how, kernel, **geometry)  # noqa: E731
    case(f"pool_{how.lower()}_{name}", layer, [shape], reference)


for _how in ("MAX", "AVE", "L2"):
    pool("plain", (2, 3, 6, 8), _how, 2, stride=2)
    pool("overlapping", (2, 3, 7, 7), _how, 3, stride=2)
    pool("ceil_tail", (2, 3, 8, 7), _how, 3, stride=2)
    pool("floor", (2, 3, 8, 7), _how, 3, stride=2, round_mode="FLOOR")
    pool("padded", (1, 2, 7, 5), _how, 3, stride=2, pad=1)
    pool("padded_tail", (1, 2, 8, 6), _how, [3, 4], stride=[2, 3], pad=[1, 2])
    pool("stride_over_kernel", (1, 3, 7, 11), _how, 2, stride=3)
    pool("larger_than_bottom", (2, 2, 2, 2), _how, 3, stride=2)
    pool("one", (1, 1, 1, 1), _how, 1)
    pool("1d", (2, 3, 9), _how, 3, stride=2)
    pool("3d", (1, 2, 5, 4, 3), _how, 2, stride=2)
    case(
        f"pool_{_how.lower()}_global",
        {"type": "Pooling", "pool": _how, "global_pooling": True},
        [(2, 3, 4, 5)],
        lambda p, x, how=_how: ref.pool(x, how, [4, 5]),
    )
case(
    "pool_max_mask",
    {"type": "Pooling", "kernel_size": 3, "stride": 2, "pad": 1},
    [(2, 2, 6, 5)],
    lambda p, x: (ref.pool(x, "MAX", 3, 2, 1), ref.pool(x, "ARGMAX", 3, 2, 1)),
    tops=2,
)
case(
    "pool_max_ties",
    {"type": "Pooling", "kernel_size": 2, "stride": 2},
    [Bottom((1, 2, 4, 4), always=1.0)],
    lambda p, x: (ref.pool(x, "MAX", 2, 2), ref.pool(x, "ARGMAX", 2, 2)),
    tops=2,
    gradient=False,
)

# InnerProduct ------------------------------------------------------------------------------------


def dense(name: str, shape: Any, out: int, **fields: Any) -> None:
    how = {k: v for k, v in fields.items() if k in ("axis", "transpose")}
    layer = {"type": "InnerProduct", "num_output": out, **fields}
    case(f"dense_{name}", layer, [shape], lambda p, x: ref.dense(x, p, **how))


dense("plain", (4, 7), 3)
dense("one", (1, 1), 1)
dense("image", (3, 2, 4, 5), 6)
dense("primes", (13, 31), 17)
dense("no_bias", (5, 4), 3, bias_term=False)
dense("transpose", (3, 2, 3, 4), 5, transpose=True)
dense("axis_2", (2, 3, 5), 4, axis=2)
dense("axis_2_image", (2, 3, 2, 5), 4, axis=2, transpose=True)
dense("axis_0", (2, 3), 4, axis=0)

# Activations -------------------------------------------------------------------------------------

SHAPE = (2, 3, 5, 7)


def plain(name: str, layer: dict[str, Any], reference: Callable[[Array], Array]) -> None:
    case(name, layer, [SHAPE], lambda p, x: reference(x))


plain("relu", {"type": "ReLU"}, lambda x: np.maximum(x, 0))
plain("relu_leaky", {"type": "ReLU", "negative_slope": 0.1}, lambda x: np.where(x > 0, x, 0.1 * x))
plain("relu_abs", {"type": "ReLU", "negative_slope": -1}, np.abs)
plain("sigmoid", {"type": "Sigmoid"}, lambda x: 1 / (1 + np.exp(-x)))
plain("tanh", {"type": "TanH"}, np.tanh)
plain("dropout", {"type": "Dropout"}, lambda x: ref.dropout(x, 0.5))
plain("dropout_some", {"type": "Dropout", "dropout_ratio": 0.3}, lambda x: ref.dropout(x, 0.3))
plain("dropout_none", {"type": "Dropout", "dropout_ratio": 0}, lambda x: x)
case("dropout_test", {"type": "Dropout"}, [SHAPE], lambda p, x: x, phase="TEST")

# Normalisation -----------------------------------------------------------------------------------


def lrn(name: str, shape: Any, **fields: Any) -> None:
    n, alpha = fields.get("local_size", 5), fields.get("alpha", 1.0)
    beta, k = fields.get("beta", 0.75), fields.get("k", 1.0)
    if fields.get("norm_region") == "WITHIN_CHANNEL":
        reference = lambda p, x: ref.lrn_within(x, n, alpha, beta)  # noqa: E731
    else:
        reference = lambda p, x: ref.lrn_across(x, n, alpha, beta, k)  # noqa: E731
    case(f"lrn_{name}", {"type": "LRN", **fields}, [shape], reference)


lrn("across", (2, 7, 3, 4))
lrn("alexnet", (1, 8, 3, 3), alpha=1e-4, k=2.0)
lrn("few_channels", (2, 2, 3, 3), local_size=5, alpha=0.5)
lrn("alone", (2, 3, 2, 2), local_size=1, beta=0.5)
lrn("vectors", (3, 7), local_size=3)
lrn("within", (2, 3, 5, 4), norm_region="WITHIN_CHANNEL", local_size=3)
lrn("within_wide", (1, 2, 3, 3), norm_region="WITHIN_CHANNEL", local_size=5, alpha=2.0, k=7.0)

# Losses and measures -----------------------------------------------------------------------------

plain("softmax", {"type": "Softmax"}, ref.softmax)
plain("softmax_last", {"type": "Softmax", "axis": -1}, lambda x: ref.softmax(x, 3))


def softmax_loss(
    name: str, scores: Bottom, labels: Bottom, gradient: bool = True, **fields: Any
) -> None:
    axis = fields.get("axis", 1)
    how = {"axis": axis, "ignore": fields.get("ignore_label")}
    how["mode"] = fields.get("normalization", "VALID")
    if fields.get("normalize") is False:
        how["mode"] = "BATCH_SIZE"
    layer = {"type": "SoftmaxWithLoss", **fields}
    case(
        f"softmax_loss_{name}",
        layer,
        [scores, labels],
        lambda p, x, label: ref.softmax_loss(x, label, **how),
        gradient=gradient,
    )


_flat, _ten = Bottom((6, 10)), Bottom((6,), labels=10)
_image, _pixels = Bottom((2, 4, 3, 5)), Bottom((2, 1, 3, 5), labels=4)
softmax_loss("plain", _flat, _ten)
softmax_loss("one", Bottom((1, 1)), Bottom((1,), labels=1))
# What is shown stops at 87.3, where the gradient goes on: it is not the slope (test_layers.py).
softmax_loss("large", Bottom((5, 7), scale=90.0), Bottom((5, 1, 1, 1), labels=7), gradient=False)
softmax_loss("pixels", _image, _pixels)
softmax_loss("last_axis", Bottom((2, 3, 5)), Bottom((2, 3), labels=5), axis=2)
for _mode in ("VALID", "FULL", "BATCH_SIZE", "NONE"):
    softmax_loss(f"{_mode.lower()}", _image, _pixels, normalization=_mode)
    softmax_loss(f"{_mode.lower()}_ignore", _image, _pixels, normalization=_mode, ignore_label=2)
softmax_loss("not_normalized", _image, _pixels, normalize=False)
softmax_loss("all_ignored", Bottom((3, 4)), Bottom((3,), labels=2, always=1.0), ignore_label=1)
case(
    "softmax_loss_prob",
    {"type": "SoftmaxWithLoss"},
    [_flat, _ten],
    lambda p, x, label: (ref.softmax_loss(x, label), ref.softmax(x)),
    tops=2,
)
case(
    "euclidean_loss",
    {"type": "EuclideanLoss"},
    [(4, 3, 2), (4, 3, 2)],
    lambda p, a, b: np.sum((a - b) ** 2) / 8,
)
case(
    "euclidean_loss_flat",
    {"type": "EuclideanLoss"},
    [(5, 1), (5,)],
    lambda p, a, b: np.sum((a[:, 0] - b) ** 2) / 10,
)


def accuracy(name: str, scores: Bottom, labels: Bottom, tops: int = 1, **fields: Any) -> None:
    how = {"top_k": fields.get("top_k", 1), "axis": fields.get("axis", 1)}
    how["ignore"] = fields.get("ignore_label")
    case(
        f"accuracy_{name}",
        {"type": "Accuracy", **fields},
        [scores, labels],
        lambda p, x, label: ref.accuracy(x, label, **how)[:tops],
        phase="TEST",
        tops=tops,
        gradient=False,
    )


accuracy("plain", Bottom((40, 4)), Bottom((40,), labels=4))
accuracy("top_3", Bottom((40, 10)), Bottom((40,), labels=10), top_k=3)
accuracy("ties", Bottom((6, 3), always=0.5), Bottom((6,), labels=3))
accuracy("ties_top_3", Bottom((6, 3), always=0.5), Bottom((6,), labels=3), top_k=3)
accuracy("pixels", _image, _pixels, ignore_label=1)
accuracy("classes", Bottom((40, 4)), Bottom((40,), labels=3), tops=2)
accuracy("classes_ignore", _image, _pixels, tops=2, ignore_label=0, top_k=2)
accuracy("last_axis", Bottom((3, 5, 4)), Bottom((3, 5), labels=4), axis=-1)
accuracy("all_ignored", Bottom((3, 4)), Bottom((3,), labels=2, always=1.0), ignore_label=1)

# Shapes ------------------------------------------------------------------------------------------

plain("flatten", {"type": "Flatten"}, lambda x: x.reshape(2, 105))
plain("flatten_some", {"type": "Flatten", "axis": -3, "end_axis": 2}, lambda x: x.reshape(2, 15, 7))
_parts = [(2, 3, 4), (2, 1, 4), (2, 2, 4)]
case("concat", {"type": "Concat"}, _parts, lambda p, *x: np.concatenate(x, 1))
case("concat_one", {"type": "Concat"}, [SHAPE], lambda p, x: x)
case("concat_axis", {"type": "Concat", "axis": -1}, [SHAPE] * 2, lambda p, *x: np.concatenate(x, 3))
case(
    "concat_dim", {"type": "Concat", "concat_dim": 0}, [(2, 3), (1, 3)], lambda p, *x: np.vstack(x)
)
for _operation in ("SUM", "PROD", "MAX"):
    case(
        f"eltwise_{_operation.lower()}",
        {"type": "Eltwise", "operation": _operation},
        [SHAPE] * 3,
        lambda p, *x, how=_operation: ref.eltwise(how, x),
    )
case(
    "eltwise_coeff",
    {"type": "Eltwise", "coeff": [1, -2.5]},
    [SHAPE] * 2,
    lambda p, *x: ref.eltwise("SUM", x, [1, -2.5]),
)

# Sources: their tops are what they were fed ------------------------------------------------------


def source(name: str, layer: dict[str, Any], tops: int = 1) -> None:
    case(name, layer, [], lambda p, *fed: fed, tops=tops, gradient=False)


source("data", {"type": "Data", "source": "digits", "batch_size": 5}, tops=2)
source("data_alone", {"type": "Data", "source": "digits", "batch_size": 5, "scale": 0.5})
source("input", {"type": "Input", "shape": [3, 2]})
source("input_two", {"type": "Input", "shape": [{"dim": [3, 2]}, {"dim": 4}]}, tops=2)
source("dummy_data", {"type": "DummyData", "shape": [2, 3], "data_filler": "gaussian"}, tops=2)
source(
    "dummy_data_old",
    {"type": "DummyData", "num": [2, 1], "channels": [3, 1], "height": [4, 1], "width": [5, 1]},
    tops=2,
)
source("image_data", {"type": "ImageData", "source": "list.txt", "batch_size": 3}, tops=2)
source("hdf5_data", {"type": "HDF5Data", "source": "list.txt", "batch_size": 3}, tops=2)
source(
    "window_data",
    {"type": "WindowData", "source": "windows.txt", "batch_size": 3, "crop_size": 4},
    tops=2,
)
source(
    "memory_data",
    {"type": "MemoryData", "batch_size": 2, "channels": 3, "height": 4, "width": 5},
    tops=2,
)

# The rest of the table, by family ----------------------------------------------------------------

from tests import cases_elementwise, cases_losses, cases_recurrent, cases_vision  # noqa: E402, F401
