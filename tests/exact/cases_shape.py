"""Cases of dense layers and of layers that join, cut, choose or sum up."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.exact.harness import Array, Table

case = Table()
CASES = case.rows
FOUR = (2, 3, 4, 2)


def one(name: str, kind: str, body: str, oracle: Any, shape: Any = FOUR, **flags: Any) -> None:
    case(name, kind, body, {"x": shape}, oracle, **flags)


# InnerProduct, Embed -----------------------------------------------------------------------------

for name, given, shape, before, inputs in (
    ("flattens", "", FOUR, (2,), 24),
    ("axis_2", "axis: 2", FOUR, (2, 3), 8),
    ("axis_negative", "axis: -1", FOUR, (2, 3, 4), 2),
    ("axis_0", "axis: 0", (3, 2), (), 6),
    ("vector", "axis: 0", (6,), (), 6),
):
    one(
        f"inner_product_{name}",
        "InnerProduct",
        f"inner_product_param {{ num_output: 3 {given} }}",
        lambda x, weight, bias, before=before: x.reshape(*before, -1) @ weight.T + bias,
        shape,
        blobs={"weight": (3, inputs), "bias": (3,)},
    )
one(
    "inner_product_transpose",
    "InnerProduct",
    "inner_product_param { num_output: 3 transpose: true bias_term: false }",
    lambda x, weight: x.reshape(2, -1) @ weight,
    blobs={"weight": (24, 3)},
)
INDEX = np.array([[0, 3, 1], [3, 3, 4]])
one(
    "embed",
    "Embed",
    "embed_param { num_output: 2 input_dim: 5 }",
    lambda x, weight, bias: weight[x.astype(int)] + bias,
    INDEX,
    blobs={"weight": (5, 2), "bias": (2,)},
    fixed=("x",),
)
one(
    "embed_no_bias",
    "Embed",
    "embed_param { num_output: 2 input_dim: 5 bias_term: false }",
    lambda x, weight: weight[x.astype(int)],
    INDEX[0],
    blobs={"weight": (5, 2)},
    fixed=("x",),
)

# Views and pieces --------------------------------------------------------------------------------

one("flatten", "Flatten", "", lambda x: x.reshape(2, 24))
one(
    "flatten_axes",
    "Flatten",
    "flatten_param { axis: 1 end_axis: 2 }",
    lambda x: x.reshape(2, 12, 2),
)
one("flatten_all", "Flatten", "flatten_param { axis: 0 }", lambda x: x.reshape(48))
one(
    "flatten_negative",
    "Flatten",
    "flatten_param { axis: -3 end_axis: -2 }",
    lambda x: x.reshape(2, 12, 2),
)
for name, given, shape in (
    ("whole", "shape { dim: 4 dim: 12 }", (4, 12)),
    ("copy_and_infer", "shape { dim: 0 dim: -1 }", (2, 24)),
    ("infer_in_the_middle", "shape { dim: 0 dim: -1 dim: 2 }", (2, 12, 2)),
    ("axis", "shape { dim: 2 dim: -1 } axis: 2", (2, 3, 2, 4)),
    ("num_axes", "shape { dim: 12 } axis: 1 num_axes: 2", (2, 12, 2)),
    ("insert", "shape { dim: 1 } axis: 1 num_axes: 0", (2, 1, 3, 4, 2)),
    ("append", "shape { dim: 1 } axis: -1 num_axes: 0", (*FOUR, 1)),
    ("negative_axis", "shape { dim: -1 } axis: -3", (2, 3, 8)),
    ("copy_counts_from_axis", "shape { dim: 0 dim: 0 dim: 1 dim: 2 } axis: 1", (2, 3, 4, 1, 2)),
):
    one(
        f"reshape_{name}",
        "Reshape",
        f"reshape_param {{ {given} }}",
        lambda x, shape=shape: x.reshape(shape),
    )
one(
    "permute",
    "Permute",
    "permute_param { order: 0 order: 2 order: 3 order: 1 }",
    lambda x: x.transpose(0, 2, 3, 1),
)
one(
    "permute_rest_follows",
    "Permute",
    "permute_param { order: 2 }",
    lambda x: x.transpose(2, 0, 1, 3),
)
one(
    "slice_even",
    "Slice",
    "slice_param { axis: 2 }",
    lambda x: (x[:, :, :2], x[:, :, 2:]),
    tops=("a", "b"),
)
one(
    "slice_points",
    "Slice",
    "slice_param { axis: 2 slice_point: 1 slice_point: 3 }",
    lambda x: (x[:, :, :1], x[:, :, 1:3], x[:, :, 3:]),
    tops=("a", "b", "c"),
)
one(
    "slice_negative_axis",
    "Slice",
    "slice_param { axis: -1 }",
    lambda x: (x[..., :1], x[..., 1:]),
    tops=("a", "b"),
)
one(
    "slice_dim",
    "Slice",
    "slice_param { slice_dim: 0 }",
    lambda x: (x[:1], x[1:]),
    tops=("a", "b"),
)
one("slice_one_top", "Slice", "", lambda x: x)
one("split", "Split", "", lambda x: (x, x), tops=("a", "b"))
case(
    "concat",
    "Concat",
    "",
    {"a": (2, 1, 3), "b": (2, 2, 3), "c": (2, 1, 3)},
    lambda a, b, c: np.concatenate([a, b, c], 1),
)
case(
    "concat_axis",
    "Concat",
    "concat_param { axis: -1 }",
    {"a": (2, 2, 1), "b": (2, 2, 3)},
    lambda a, b: np.concatenate([a, b], 2),
)
case(
    "concat_dim",
    "Concat",
    "concat_param { concat_dim: 0 }",
    {"a": (2, 2), "b": (1, 2)},
    lambda a, b: np.concatenate([a, b], 0),
)
one("concat_one_bottom", "Concat", "", lambda x: x)
one("tile", "Tile", "tile_param { tiles: 3 }", lambda x: np.tile(x, (1, 3, 1, 1)))
one("tile_last", "Tile", "tile_param { axis: -1 tiles: 2 }", lambda x: np.tile(x, (1, 1, 1, 2)))
one("tile_once", "Tile", "tile_param { axis: 0 tiles: 1 }", lambda x: x)

# Eltwise -----------------------------------------------------------------------------------------

THREE = {"a": (2, 3), "b": (2, 3), "c": (2, 3)}
case("eltwise_sum", "Eltwise", "", THREE, lambda a, b, c: a + b + c)
case(
    "eltwise_coeff",
    "Eltwise",
    "eltwise_param { operation: SUM coeff: 1 coeff: -1 coeff: 0.5 }",
    THREE,
    lambda a, b, c: a - b + 0.5 * c,
)
case(
    "eltwise_prod", "Eltwise", "eltwise_param { operation: PROD }", THREE, lambda a, b, c: a * b * c
)
case(
    "eltwise_prod_of_zero",
    "Eltwise",
    "eltwise_param { operation: PROD stable_prod_grad: true }",
    {"a": np.array([[0.0, 2.0, 0.0]]), "b": np.array([[3.0, 0.0, 0.0]])},
    lambda a, b: a * b,
)
case(
    "eltwise_max",
    "Eltwise",
    "eltwise_param { operation: MAX }",
    THREE,
    lambda a, b, c: np.maximum(np.maximum(a, b), c),
)
case(
    "eltwise_max_of_equals_goes_to_the_second",
    "Eltwise",
    "eltwise_param { operation: MAX }",
    {
        "a": np.array([1.0, 2.0, 2.0]),
        "b": np.array([1.0, 2.0, 1.0]),
        "c": np.array([0.0, 2.0, 2.0]),
    },
    lambda a, b, c: np.maximum(np.maximum(a, b), c),
    slopes=lambda d, a, b, c: {
        "a": d["y"] * [0, 0, 1],
        "b": d["y"] * [1, 1, 0],
        "c": d["y"] * [0, 0, 0],
    },
)
case(
    "eltwise_twice_the_same_bottom",
    "Eltwise",
    "eltwise_param { operation: PROD }",
    {"a": (2, 3), "b": (2, 3)},
    lambda a, b: a * b,
)

# Reduction, ArgMax -------------------------------------------------------------------------------

OPERATIONS = {
    "SUM": lambda x, axes: x.sum(axes),
    "ASUM": lambda x, axes: np.abs(x).sum(axes),
    "SUMSQ": lambda x, axes: (x**2).sum(axes),
    "MEAN": lambda x, axes: x.mean(axes),
}
for operation, reduced in OPERATIONS.items():
    for axis, coeff in ((0, 1.0), (1, 2.5), (-1, -0.5)):
        one(
            f"reduction_{operation.lower()}_axis_{axis}",
            "Reduction",
            f"reduction_param {{ operation: {operation} axis: {axis} coeff: {coeff} }}",
            lambda x, reduced=reduced, axis=axis, coeff=coeff: (
                coeff * reduced(x, tuple(range(axis % x.ndim, x.ndim)))
            ),
            (2, 3, 4),
        )


def argmax(x: Array, k: int, axis: int) -> tuple[Array, Array]:
    """Places and values of the k greatest along an axis, of equals the later one first."""
    n = x.shape[axis]
    place = np.flip(np.argsort(x, axis=axis, kind="stable"), axis).take(range(min(k, n)), axis)
    return place.astype(float), np.take_along_axis(x, place, axis)


def flat_argmax(x: Array, k: int, values: bool) -> Array:
    found = argmax(x.reshape(len(x), -1), k, 1)
    top = np.stack(found if values else found[:1], 1)
    return top.reshape(*top.shape, *(1,) * (max(3, x.ndim) - 3))


TIES = np.array([[1.0, 5.0, 5.0, 2.0, 5.0], [3.0, 3.0, 1.0, 0.0, 2.0]])
NONE = {"slopes": lambda d, x: {"x": np.zeros_like(x)}}
for name, bottom in (("", (2, 3, 2, 2)), ("_ties", TIES)):
    one(f"argmax_flat{name}", "ArgMax", "", lambda x: flat_argmax(x, 1, False), bottom, **NONE)
    one(
        f"argmax_flat_values{name}",
        "ArgMax",
        "argmax_param { out_max_val: true top_k: 3 }",
        lambda x: flat_argmax(x, 3, True),
        bottom,
        **NONE,
    )
    one(
        f"argmax_axis{name}",
        "ArgMax",
        "argmax_param { axis: 1 top_k: 2 }",
        lambda x: argmax(x, 2, 1)[0],
        bottom,
        **NONE,
    )
    one(
        f"argmax_axis_values{name}",
        "ArgMax",
        "argmax_param { axis: -1 top_k: 2 out_max_val: true }",
        lambda x: argmax(x, 2, x.ndim - 1)[1],
        bottom,
        **NONE,
    )

# BatchReindex, Filter ----------------------------------------------------------------------------

case(
    "batch_reindex_adds_up_gradients",
    "BatchReindex",
    "",
    {"x": (3, 2, 2), "i": np.array([2.0, 0.0, 2.0, 2.0])},
    lambda x, i: x[i.astype(int)],
    fixed=("i",),
)
