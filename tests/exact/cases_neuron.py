"""Cases of layers that work element by element, and of Scale, Bias and their like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.exact.harness import Array, Table

case = Table()
CASES = case.rows
SHAPE = (2, 3, 4)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[float])(x)


def one(name: str, kind: str, body: str, oracle: Any, shape: Any = SHAPE, **flags: Any) -> None:
    case(name, kind, body, {"x": shape}, oracle, **flags)


POSITIVE = np.abs(np.random.default_rng(1).standard_normal(SHAPE)) + 0.5
LARGE = np.array([[-200.0, -90.0, -20.0, 0.5, 20.0, 90.0, 200.0]])

one("relu", "ReLU", "", lambda x: np.maximum(x, 0))
one(
    "relu_slope",
    "ReLU",
    "relu_param { negative_slope: 0.1 }",
    lambda x: np.where(x > 0, x, 0.1 * x),
)
one(
    "relu_negative_slope_below_zero",
    "ReLU",
    "relu_param { negative_slope: -0.5 }",
    lambda x: np.maximum(x, 0) - 0.5 * np.minimum(x, 0),
)
one(
    "relu6",
    "ReLU6",
    "",
    lambda x: np.clip(x, 0, 6),
    4 * np.random.default_rng(2).normal(size=SHAPE),
)
for shape in (SHAPE, (3, 2)):
    one(
        f"prelu_rank{len(shape)}",
        "PReLU",
        "",
        lambda x, slope: np.where(x > 0, x, x * slope.reshape(1, -1, *(1,) * (x.ndim - 2))),
        shape,
        blobs={"slope": shape[1:2]},
    )
one(
    "prelu_shared",
    "PReLU",
    "prelu_param { channel_shared: true }",
    lambda x, slope: np.where(x > 0, x, x * slope),
    blobs={"slope": ()},
)
one("elu", "ELU", "", lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1))
one(
    "elu_alpha",
    "ELU",
    "elu_param { alpha: 0.3 }",
    lambda x: np.where(x > 0, x, 0.3 * (np.exp(np.minimum(x, 0)) - 1)),
)
one("sigmoid", "Sigmoid", "", lambda x: sigmoid(x))
one("sigmoid_large", "Sigmoid", "", lambda x: 0.5 * np.tanh(0.5 * x) + 0.5, LARGE)
one("tanh", "TanH", "", lambda x: np.tanh(x))
one("tanh_large", "TanH", "", lambda x: np.tanh(x), LARGE)
one("absval", "AbsVal", "", lambda x: np.abs(x))
one("bnll", "BNLL", "", lambda x: np.log1p(np.exp(x)))
one("bnll_large", "BNLL", "", lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), LARGE)
one("swish", "Swish", "", lambda x: x * sigmoid(x))
one("swish_beta", "Swish", "swish_param { beta: 2.5 }", lambda x: x * sigmoid(2.5 * x))
one("gelu", "GELU", "", lambda x: x * (1 + erf(x / math.sqrt(2))) / 2)
one("clip", "Clip", "clip_param { min: -0.5 max: 0.8 }", lambda x: np.clip(x, -0.5, 0.8))
one(
    "clip_gradient_at_the_ends",
    "Clip",
    "clip_param { min: -1 max: 1 }",
    lambda x: np.clip(x, -1, 1),
    np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]]),
    slopes=lambda d, x: {"x": d["y"] * (abs(x) <= 1)},
)
one(
    "threshold_is_strict",
    "Threshold",
    "threshold_param { threshold: 0.5 }",
    lambda x: (x > 0.5).astype(float),
    np.array([[0.25, 0.5, 0.75, -1.0]]),
    slopes=lambda d, x: {"x": np.zeros_like(x)},
)
one("power_defaults", "Power", "", lambda x: x)
one("power_affine", "Power", "power_param { scale: -2 shift: 1.5 }", lambda x: 1.5 - 2 * x)
for power in (2, 3, -1, 0.5, -1.5):
    one(
        f"power_{power}",
        "Power",
        f"power_param {{ power: {power} scale: 0.5 shift: 2 }}",
        lambda x, power=power: (2 + 0.5 * x) ** power,
        POSITIVE,
    )
one(
    "power_2_of_negative",
    "Power",
    "power_param { power: 2 }",
    lambda x: x**2,
)
one("power_3_of_negative", "Power", "power_param { power: 3 shift: -1 }", lambda x: (x - 1) ** 3)
one("power_scale_0", "Power", "power_param { power: 3 scale: 0 shift: 2 }", lambda x: 8 + 0 * x)
one("power_power_0", "Power", "power_param { power: 0 shift: 2 }", lambda x: 1 + 0 * x)
one("power_all_0", "Power", "power_param { power: 0 scale: 0 }", lambda x: 1 + 0 * x)
one("exp_base_e", "Exp", "", lambda x: np.exp(x))
one("exp_base_e_affine", "Exp", "exp_param { scale: 0.5 shift: -1 }", lambda x: np.exp(0.5 * x - 1))
one(
    "exp_base_2",
    "Exp",
    "exp_param { base: 2 scale: 3 shift: 1 }",
    lambda x: 2.0 ** (1 + 3 * x),
)
one("log_base_e", "Log", "", lambda x: np.log(x), POSITIVE)
one(
    "log_base_10",
    "Log",
    "log_param { base: 10 scale: 2 shift: 3 }",
    lambda x: np.log10(3 + 2 * x),
    POSITIVE,
)
one("dropout_test_is_identity", "Dropout", "", lambda x: x, phase="TEST")

# What Caffe takes for the slope at a kink, where the two sides differ.
KINK = np.array([[-1.0, 0.0, 1.0]])
for name, kind, body, value, slope in (
    ("relu", "ReLU", "relu_param { negative_slope: 0.25 }", [-0.25, 0, 1], [0.25, 0.25, 1]),
    (
        "elu",
        "ELU",
        "elu_param { alpha: 0.5 }",
        [math.expm1(-1) / 2, 0, 1],
        [math.exp(-1) / 2, 0.5, 1],
    ),
    ("absval", "AbsVal", "", [1, 0, 1], [-1, 0, 1]),
    ("bnll", "BNLL", "", np.log1p(np.exp(KINK))[0], sigmoid(KINK)[0]),
    ("power", "Power", "power_param { power: 3 }", [-1, 0, 1], [3, 0, 3]),
    ("power_1", "Power", "power_param { power: 1 }", [-1, 0, 1], [1, 1, 1]),
    ("asum", "Reduction", "reduction_param { operation: ASUM axis: 2 }", [1, 0, 1], [-1, 0, 1]),
):
    bottom = KINK[..., None] if name == "asum" else KINK
    one(
        f"{name}_at_0",
        kind,
        body,
        lambda x, value=value: np.array([value], float),
        bottom,
        slopes=lambda d, x, slope=slope: {"x": (d["y"] * slope).reshape(x.shape)},
    )
one(
    "prelu_at_0",
    "PReLU",
    "",
    lambda x, slope: np.where(x > 0, x, x * slope),
    KINK,
    blobs={"slope": np.array([0.1, 0.2, 0.3])},
    slopes=lambda d, x, slope: {"x": d["y"] * [0.1, 0.2, 1], "slope": d["y"][0] * [-1, 0, 0]},
)

# Scale, Bias, Axpy -------------------------------------------------------------------------------

FOUR = (2, 3, 4, 2)


def along(operand: Array, x: Array, axis: int) -> Array:
    behind = x.ndim - axis - operand.ndim
    return operand.reshape((1,) * axis + operand.shape + (1,) * behind)


for name, given, axis, shape in (
    ("defaults", "", 1, (3,)),
    ("axis_0", "axis: 0", 0, (2,)),
    ("axis_negative", "axis: -2", 2, (4,)),
    ("num_axes_2", "axis: 1 num_axes: 2", 1, (3, 4)),
    ("num_axes_all", "axis: 1 num_axes: -1", 1, (3, 4, 2)),
    ("num_axes_0", "num_axes: 0", 0, ()),
):
    one(
        f"scale_{name}",
        "Scale",
        f"scale_param {{ {given} }}",
        lambda x, weight, axis=axis: x * along(weight, x, axis),
        FOUR,
        blobs={"weight": shape},
    )
    one(
        f"scale_bias_{name}",
        "Scale",
        f"scale_param {{ {given} bias_term: true }}",
        lambda x, weight, bias, a=axis: x * along(weight, x, a) + along(bias, x, a),
        FOUR,
        blobs={"weight": shape, "bias": shape},
    )
    one(
        f"bias_{name}",
        "Bias",
        f"bias_param {{ {given} }}",
        lambda x, bias, axis=axis: x + along(bias, x, axis),
        FOUR,
        blobs={"bias": shape},
    )
for name, given, axis, shape in (
    ("channels", "", 1, (3,)),
    ("items", "axis: 0", 0, (2, 3)),
    ("whole", "axis: 0", 0, FOUR),
    ("scalar", "", 0, ()),
):
    case(
        f"scale_two_bottoms_{name}",
        "Scale",
        f"scale_param {{ {given} }}",
        {"x": FOUR, "s": shape},
        lambda x, s, axis=axis: x * along(s, x, axis),
    )
    case(
        f"bias_two_bottoms_{name}",
        "Bias",
        f"bias_param {{ {given} }}",
        {"x": FOUR, "s": shape},
        lambda x, s, axis=axis: x + along(s, x, axis),
    )
case(
    "scale_two_bottoms_with_bias",
    "Scale",
    "scale_param { axis: 0 bias_term: true }",
    {"x": FOUR, "s": (2, 3)},
    lambda x, s, bias: x * along(s, x, 0) + along(bias, x, 0),
    blobs={"bias": (2, 3)},
)
case(
    "axpy",
    "Axpy",
    "",
    {"s": (2, 3, 1, 1), "x": FOUR, "z": FOUR},
    lambda s, x, z: s * x + z,
)
