"""Rows of the case table: activations, normalisation, shapes, choices and utility layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests import references_elementwise as ref
from tests.cases import SHAPE, Array, Bottom, case, plain


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.1, 2.0, shape)


def tied(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Few different numbers, so that many are equal."""
    return rng.integers(-2, 3, shape).astype(np.float64)


POSITIVE = Bottom(SHAPE, draw=positive)
TIED = Bottom((2, 3, 4, 5), draw=tied, fixed=True)

# Activations -------------------------------------------------------------------------------------

case("prelu", {"type": "PReLU"}, [SHAPE],
     lambda p, x: np.where(x > 0, x, ref.along(p["slope"], x, 1) * x))  # fmt: skip
case("prelu_vectors", {"type": "PReLU"}, [(4, 5)], lambda p, x: np.where(x > 0, x, p["slope"] * x))
case("prelu_shared", {"type": "PReLU", "channel_shared": True}, [SHAPE],
     lambda p, x: np.where(x > 0, x, p["slope"] * x))  # fmt: skip
plain("elu", {"type": "ELU"}, lambda x: np.where(x > 0, x, np.expm1(x)))
plain("elu_alpha", {"type": "ELU", "alpha": 0.3}, lambda x: np.where(x > 0, x, 0.3 * np.expm1(x)))
case("elu_large", {"type": "ELU"}, [Bottom(SHAPE, scale=100.0)],
     lambda p, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))))  # fmt: skip
plain("abs_val", {"type": "AbsVal"}, np.abs)
plain("power", {"type": "Power"}, lambda x: x)
plain("power_affine", {"type": "Power", "scale": 2, "shift": -0.5}, lambda x: 2 * x - 0.5)
plain("power_square", {"type": "Power", "power": 2, "shift": 1}, lambda x: (x + 1) ** 2)
plain("power_cube", {"type": "Power", "power": 3, "scale": 0.5}, lambda x: (0.5 * x) ** 3)
plain("power_scale_0", {"type": "Power", "power": 3, "scale": 0, "shift": 2}, lambda x: 0 * x + 8)
plain("power_0", {"type": "Power", "power": 0}, lambda x: 0 * x + 1)
for _power in (0.5, -0.5, -1, 1.7):
    case(f"power_{_power}", {"type": "Power", "power": _power, "shift": 0.25}, [POSITIVE],
         lambda p, x, power=_power: (x + 0.25) ** power)  # fmt: skip
plain("exp", {"type": "Exp"}, np.exp)
plain("exp_base", {"type": "Exp", "base": 2, "scale": -0.5, "shift": 3},
      lambda x: 2 ** (3 - 0.5 * x))  # fmt: skip
case("log", {"type": "Log"}, [POSITIVE], lambda p, x: np.log(x))
case("log_base", {"type": "Log", "base": 10, "scale": 3, "shift": 0.5}, [POSITIVE],
     lambda p, x: np.log10(3 * x + 0.5))  # fmt: skip
plain("bnll", {"type": "BNLL"}, ref.softplus)
case("bnll_large", {"type": "BNLL"}, [Bottom(SHAPE, scale=60.0)], lambda p, x: ref.softplus(x))
case("threshold", {"type": "Threshold"}, [TIED], lambda p, x: 1.0 * (x > 0), gradient=False)
case("threshold_1", {"type": "Threshold", "threshold": 1}, [TIED], lambda p, x: 1.0 * (x > 1),
     gradient=False)  # fmt: skip
plain("clip", {"type": "Clip", "min": -0.5, "max": 1}, lambda x: np.clip(x, -0.5, 1))
plain("swish", {"type": "Swish"}, lambda x: x / (1 + np.exp(-x)))
plain("swish_beta", {"type": "Swish", "beta": 1.7}, lambda x: x / (1 + np.exp(-1.7 * x)))
case("relu6", {"type": "ReLU6"}, [Bottom(SHAPE, scale=6.0)], lambda p, x: np.clip(x, 0, 6))
plain("gelu", {"type": "GELU"}, lambda x: x * (1 + ref.erf(x / np.sqrt(2))) / 2)

# Scale, Bias, Axpy -------------------------------------------------------------------------------


def affine(name: str, shapes: Any, axis: int = 1, **fields: Any) -> None:
    """One row of Scale and one of Bias."""

    def scaled(p: Any, x: Array, operand: Array | None = None) -> Array:
        return ref.scale(x, p, axis, operand)

    def shifted(p: Any, x: Array, operand: Array | None = None) -> Array:
        return x + ref.along(p["bias"] if operand is None else operand, x, axis)

    fields["axis"] = axis
    case(f"scale_{name}", {"type": "Scale", **fields}, shapes, scaled)
    fields.pop("bias_term", None)
    case(f"bias_{name}", {"type": "Bias", **fields}, shapes, shifted)


affine("plain", [SHAPE])
affine("and_bias", [SHAPE], bias_term=True)
affine("vectors", [(4, 5)], bias_term=True)
affine("axis_0", [(4, 5, 2)], axis=0, bias_term=True)
affine("one", [SHAPE], axis=0, num_axes=0, bias_term=True)
affine("rest", [SHAPE], axis=2, num_axes=-1)
affine("two_axes", [SHAPE], axis=1, num_axes=2, bias_term=True)
affine("two_bottoms", [SHAPE, (2, 3)], axis=0, num_axes=2, bias_term=True)
affine("two_bottoms_one", [SHAPE, ()], axis=0)
affine("two_bottoms_last", [SHAPE, (7,)], axis=3)
case("axpy", {"type": "Axpy"}, [(2, 3, 1, 1), SHAPE, SHAPE], lambda p, a, x, y: a * x + y)
case("axpy_flat", {"type": "Axpy"}, [(2, 3), SHAPE, SHAPE],
     lambda p, a, x, y: a[:, :, None, None] * x + y)  # fmt: skip

# Normalisation -----------------------------------------------------------------------------------


def batch_norm(name: str, shape: Any, phase: str, stored: bool, **fields: Any) -> None:
    eps = fields.get("eps", 1e-5)
    case(f"batch_norm_{name}", {"type": "BatchNorm", **fields}, [shape],
         lambda p, x: ref.batch_norm(x, p, stored, eps), phase=phase)  # fmt: skip


batch_norm("train", SHAPE, "TRAIN", False)
batch_norm("test", SHAPE, "TEST", True)
batch_norm("train_global", SHAPE, "TRAIN", True, use_global_stats=True)
batch_norm("test_batch", SHAPE, "TEST", False, use_global_stats=False)
batch_norm("vectors", (7, 3), "TRAIN", False, eps=1e-3)
batch_norm("line", (7,), "TRAIN", False, eps=0.1)
batch_norm("line_test", (7,), "TEST", True)
batch_norm("3d", (2, 3, 2, 3, 2), "TRAIN", False, moving_average_fraction=0.9)
batch_norm("pixels", (1, 17, 13, 11), "TRAIN", False)
case("bn_train", {"type": "BN"}, [SHAPE], lambda p, x: ref.bn(x, p, "batch"))
case("bn_test", {"type": "BN"}, [SHAPE], lambda p, x: ref.bn(x, p, "stored"), phase="TEST")
case("bn_frozen", {"type": "BN", "frozen": True}, [SHAPE], lambda p, x: ref.bn(x, p, "stored"))
case("bn_inference", {"type": "BN", "bn_mode": "INFERENCE", "scale_filler": 1}, [SHAPE],
     lambda p, x: ref.bn(x, p, "none"), phase="TEST")  # fmt: skip
plain("mvn", {"type": "MVN"}, ref.mvn)
plain("mvn_across", {"type": "MVN", "across_channels": True}, lambda x: ref.mvn(x, True))
plain("mvn_mean", {"type": "MVN", "normalize_variance": False}, lambda x: ref.mvn(x, divide=False))
plain("mvn_eps", {"type": "MVN", "eps": 0.5}, lambda x: ref.mvn(x, eps=0.5))
case("layer_norm", {"type": "LayerNorm"}, [(2, 5, 8)], lambda p, x: ref.layer_norm(x, p))
case("layer_norm_items", {"type": "LayerNorm", "axis": 1}, [SHAPE],
     lambda p, x: ref.layer_norm(x, p, 1))  # fmt: skip
case("layer_norm_bare", {"type": "LayerNorm", "affine": False, "eps": 0.1}, [(3, 7)],
     lambda p, x: ref.layer_norm(x, p, 1, 0.1))  # fmt: skip
case("group_norm", {"type": "GroupNorm", "num_groups": 2}, [(2, 6, 3, 4)],
     lambda p, x: ref.group_norm(x, p, 2))  # fmt: skip
case("group_norm_bare", {"type": "GroupNorm", "num_groups": 3, "affine": False}, [(2, 3, 5)],
     lambda p, x: ref.group_norm(x, p, 3))  # fmt: skip
case("normalize", {"type": "Normalize"}, [SHAPE], lambda p, x: ref.normalize(x, p))
case("normalize_places", {"type": "Normalize", "across_spatial": False, "channel_shared": False},
     [SHAPE], lambda p, x: ref.normalize(x, p, False))  # fmt: skip
plain("lcn", {"type": "LCN", "local_size": 5}, lambda x: ref.lcn(x, 5, 1.25))
plain("lcn_wide", {"type": "LCN", "sigma": 3}, lambda x: ref.lcn(x, 9, 3))

# Shapes ------------------------------------------------------------------------------------------


def shape(name: str, to: Any, **fields: Any) -> None:
    layer = {"type": "Reshape", "shape": {"dim": fields.pop("dim")}, **fields}
    plain(f"reshape_{name}", layer, lambda x: x.reshape(to))


shape("infer", (2, 15, 7), dim=[0, -1, 7])
shape("flat", (210,), dim=-1)
shape("keep", (2, 3, 35), dim=[0, 0, -1])
shape("middle", (2, 5, 3, 7), dim=[5, 3], axis=1, num_axes=2)
shape("append", SHAPE + (1,), dim=1, axis=-1)
shape("insert", (2, 1, 3, 5, 7), dim=1, axis=1, num_axes=0)
shape("tail", (2, 3, 7, 5), dim=[7, -1], axis=-3)
plain("permute", {"type": "Permute", "order": [0, 2, 3, 1]}, lambda x: x.transpose(0, 2, 3, 1))
plain("permute_some", {"type": "Permute", "order": [2]}, lambda x: x.transpose(2, 0, 1, 3))
case("split", {"type": "Split"}, [SHAPE], lambda p, x: (x, x), tops=2)
case("slice", {"type": "Slice"}, [(2, 6, 3)], lambda p, x: tuple(np.split(x, 3, 1)), tops=3)
case("slice_points", {"type": "Slice", "axis": -1, "slice_point": [1, 4]}, [SHAPE],
     lambda p, x: tuple(np.split(x, [1, 4], 3)), tops=3)  # fmt: skip
case("slice_dim", {"type": "Slice", "slice_dim": 0}, [(4, 3)], lambda p, x: (x[:2], x[2:]), tops=2)
case("slice_one", {"type": "Slice"}, [SHAPE], lambda p, x: x)
case("crop", {"type": "Crop", "offset": 1}, [SHAPE, (2, 9, 3, 4)],
     lambda p, x, y: x[:, :, 1:4, 1:5])  # fmt: skip
case("crop_offsets", {"type": "Crop", "axis": 1, "offset": [1, 0, 2]}, [SHAPE, (1, 2, 5, 5)],
     lambda p, x, y: x[:, 1:, :, 2:])  # fmt: skip
case("crop_corner", {"type": "Crop", "axis": -1}, [SHAPE, (1, 1, 1, 2)],
     lambda p, x, y: x[..., :2])  # fmt: skip
plain("tile", {"type": "Tile", "tiles": 3}, lambda x: np.concatenate([x] * 3, 1))
plain("tile_first", {"type": "Tile", "tiles": 2, "axis": -4}, lambda x: np.concatenate([x] * 2))

# Choices -----------------------------------------------------------------------------------------


def argmax(name: str, bottom: Bottom, k: int = 1, axis: Any = None, values: bool = False) -> None:
    layer: dict[str, Any] = {"type": "ArgMax", "top_k": k, "out_max_val": values}
    if axis is not None:
        layer["axis"] = axis
    case(f"argmax_{name}", layer, [bottom], lambda p, x: ref.argmax(x, k, axis, values),
         gradient=False)  # fmt: skip


argmax("plain", Bottom((5, 7)))
argmax("ties", TIED)
argmax("top_3", TIED, 3)
argmax("values", TIED, 4, values=True)
argmax("axis", TIED, axis=1)
argmax("axis_top_2", TIED, 2, axis=1)
argmax("axis_values", TIED, 2, axis=-1, values=True)
argmax("axis_value", TIED, axis=0, values=True)
argmax("all", Bottom((3, 6)), 6)
argmax("5d", Bottom((2, 2, 2, 1, 3)), 2, values=True)

_chosen = Bottom((6,), draw=lambda rng, shape: np.array([0, 1, 0, 3, -1, 0.0]), fixed=True)
case("filter", {"type": "Filter"}, [(6, 2, 3), _chosen], lambda p, x, s: ref.filtered(s, x))
case("filter_two", {"type": "Filter"}, [(6, 4), (6,), _chosen],
     lambda p, x, y, s: ref.filtered(s, x, y), tops=2)  # fmt: skip
for _how in (0.0, 1.0):
    case(f"filter_{_how:g}", {"type": "Filter"}, [(4, 3), Bottom((4, 1), always=_how, fixed=True)],
         lambda p, x, s, how=_how: x * how)  # fmt: skip
case("batch_reindex", {"type": "BatchReindex"}, [(3, 2, 4), Bottom((5,), labels=3)],
     lambda p, x, i: x[i.astype(int)])  # fmt: skip
case("embed", {"type": "Embed", "input_dim": 7, "num_output": 4}, [Bottom((3, 5), labels=7)],
     lambda p, x: p["weight"][x.astype(int)] + p["bias"])  # fmt: skip
case("embed_no_bias", {"type": "Embed", "input_dim": 3, "num_output": 2, "bias_term": False},
     [Bottom((6,), labels=3)], lambda p, x: p["weight"][x.astype(int)])  # fmt: skip

# Utility -----------------------------------------------------------------------------------------

for _operation, _reduce in {
    "SUM": np.sum,
    "ASUM": lambda x, axis: np.sum(np.abs(x), axis=axis),
    "SUMSQ": lambda x, axis: np.sum(x**2, axis=axis),
    "MEAN": np.mean,
}.items():
    _name, _layer = f"reduction_{_operation.lower()}", {"type": "Reduction"}
    _layer["operation"] = _operation
    plain(_name, _layer, lambda x, f=_reduce: f(x, axis=(0, 1, 2, 3)))
    plain(f"{_name}_axis", {**_layer, "axis": 2, "coeff": -1.5},
          lambda x, f=_reduce: -1.5 * f(x, axis=(2, 3)))  # fmt: skip
case(
    "hdf5_output",
    {"type": "HDF5Output", "file_name": "out.h5"},
    [SHAPE, (2, 3)],
    lambda p, x, y: (),
    tops=0,
    gradient=False,
)
case("silence", {"type": "Silence"}, [SHAPE, (2, 3)], lambda p, x, y: (), tops=0, gradient=False)
case("parameter", {"type": "Parameter", "shape": {"dim": [3, 4]}}, [], lambda p, *_: p["weight"])
