"""Cases of pooling, local normalisation, and layers that cut or resize images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.exact import oracle_sliding as o
from tests.exact.harness import Table

case = Table()
CASES = case.rows


# Pooling -----------------------------------------------------------------------------------------


def pool(name: str, fields: str, shape: tuple[int, ...], *args: Any, **more: Any) -> None:
    flags = {"phase": more.pop("phase")} if "phase" in more else {}
    case(
        f"pooling_{name}",
        "Pooling",
        f"pooling_param {{ {fields} }}",
        {"x": more.pop("bottom", shape)},
        lambda x: o.pool(x, *args, **more),
        **flags,
    )


def positive(*shape: int) -> Any:
    return np.random.default_rng(7).random(shape) + 0.1


for how in ("MAX", "AVE"):
    low = how.lower()
    pool(f"{low}_even", f"pool: {how} kernel_size: 2 stride: 2", (2, 2, 4, 6), how, 2, 2)
    pool(f"{low}_size_rounds_up", f"pool: {how} kernel_size: 3 stride: 2", (1, 2, 6, 8), how, 3, 2)
    pool(
        f"{low}_padding_takes_the_last_window_away",
        f"pool: {how} kernel_size: 2 stride: 2 pad: 1",
        (1, 2, 5, 4),
        *(how, 2, 2, 1),
    )
    pool(f"{low}_overlap", f"pool: {how} kernel_size: 3 pad: 1", (1, 2, 4, 3), how, 3, 1, 1)
    pool(
        f"{low}_sides",
        f"pool: {how} kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0",
        (2, 1, 6, 4),
        *(how, (3, 2), (2, 1), (1, 0)),
    )
    pool(f"{low}_global", f"pool: {how} global_pooling: true", (2, 3, 3, 4), how, (3, 4))
    pool(
        f"{low}_floor",
        f"pool: {how} kernel_size: 3 stride: 2 round_mode: FLOOR",
        (1, 2, 6, 8),
        *(how, 3, 2),
        floor=True,
    )
    pool(
        f"{low}_stride_over_kernel",
        f"pool: {how} kernel_size: 2 stride: 3",
        (1, 2, 8, 7),
        how,
        2,
        3,
    )
pool(
    "ave_overhang_does_not_count",
    "pool: AVE kernel_size: 3 stride: 2 pad: 1",
    (1, 2, 6, 7),
    *("AVE", 3, 2, 1),
)
pool("default_is_max", "kernel_size: 2 stride: 2", (1, 2, 4, 4), "MAX", 2, 2)
pool(
    "stochastic_test",
    "pool: STOCHASTIC kernel_size: 2 stride: 2",
    (2, 2, 4, 6),
    *("STOCHASTIC", 2, 2),
    phase="TEST",
    bottom=positive(2, 2, 4, 6),
)
pool("l2_of_space", "pool: L2 kernel_size: 2 stride: 2 pad: 1", (1, 2, 4, 5), *("L2", 2, 2, 1))
pool(
    "global_ave_of_three_axes", "pool: AVE global_pooling: true", (2, 2, 2, 3, 2), "AVE", (2, 3, 2)
)
pool("1d", "pool: MAX kernel_size: 3 stride: 2", (2, 2, 8), "MAX", 3, 2)
case(
    "pooling_stochastic_test_of_zeros_is_0",
    "Pooling",
    "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
    {"x": np.array([[[[0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]]]])},
    lambda x: np.array([[[[0.0, 2.5]]]]),
    phase="TEST",
    slopes=lambda d, x: {},
)
case(
    "pooling_max_of_what_is_below_zero_never_takes_padding",
    "Pooling",
    "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }",
    {"x": -positive(1, 2, 3, 3)},
    lambda x: o.pool(x, "MAX", 3, 1, 1),
)
case(
    "pooling_max_mask",
    "Pooling",
    "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }",
    {"x": (2, 2, 5, 4)},
    lambda x: (o.pool(x, "MAX", 3, 2, 1), o.pool_mask(x, 3, 2, 1)),
    tops=("y", "mask"),
)
case(
    "pooling_max_mask_of_ties_is_the_first",
    "Pooling",
    "pooling_param { pool: MAX kernel_size: 2 stride: 2 }",
    {"x": np.ones((1, 2, 4, 4))},
    lambda x: (o.pool(x, "MAX", 2, 2), o.pool_mask(x, 2, 2)),
    tops=("y", "mask"),
    slopes=lambda d, x: {"x": np.kron(d["y"], [[1, 0], [0, 0]])},
)
case(
    "pooling_l2_across_channels",
    "Pooling",
    "pooling_param { pool: L2 kernel_size: 2 stride: 2 across_channels: true }",
    {"x": (2, 4, 2, 3)},
    lambda x: np.sqrt((x.reshape(2, 2, 2, 2, 3) ** 2).sum(axis=2)),
)
for how in ("MAX", "AVE"):
    case(
        f"spp_{how.lower()}",
        "SPP",
        f"spp_param {{ pyramid_height: 3 pool: {how} }}",
        {"x": (1, 1, 8, 7)},
        lambda x, how=how: o.spp(x, 3, how),
    )

case(
    "pooling3d",
    "Pooling3D",
    "pooling3d_param { pool: MAX kernel_size: 2 kernel_depth: 2 stride: 2 temporal_stride: 1 }",
    {"x": (1, 2, 3, 4, 5)},
    lambda x: o.pool(x, "MAX", 2, (1, 2, 2)),
)

# LRN, LCN ----------------------------------------------------------------------------------------

case(
    "lrn_defaults",
    "LRN",
    "",
    {"x": (2, 6, 2, 2)},
    lambda x: o.lrn(x, 5, 1.0, 0.75),
)
case(
    "lrn_across_k",
    "LRN",
    "lrn_param { local_size: 3 alpha: 0.7 beta: 0.6 k: 2.5 }",
    {"x": (2, 4, 2, 3)},
    lambda x: o.lrn(x, 3, 0.7, 0.6, 2.5),
)
case(
    "lrn_within_ignores_k",
    "LRN",
    "lrn_param { local_size: 3 alpha: 0.7 beta: 0.6 k: 2.5 norm_region: WITHIN_CHANNEL }",
    {"x": (2, 2, 4, 3)},
    lambda x: o.lrn_within(x, 3, 0.7, 0.6),
)


def lcn(x: Any, size: int) -> Any:
    """v / max(c, s) with Gaussian means over a square and all channels."""
    h, w = x.shape[2:]
    sigma = size / 4

    def mean(m: Any) -> Any:
        found = np.zeros((len(m), 1, h, w))
        for i in range(h):
            for j in range(w):
                a, b = np.mgrid[:h, :w]
                bell = np.exp(-((a - i) ** 2 + (b - j) ** 2) / (2 * sigma**2))
                bell = bell * (abs(a - i) <= size // 2) * (abs(b - j) <= size // 2)
                found[:, 0, i, j] = (m.mean(axis=1) * bell).sum(axis=(1, 2)) / bell.sum()
        return found

    v = x - mean(x)
    s = np.sqrt(mean(v**2))
    return v / np.maximum(s.mean(axis=(2, 3), keepdims=True), s)


case(
    "lcn",
    "LCN",
    "lcn_param { local_size: 3 }",
    {"x": (1, 2, 4, 3)},
    lambda x: lcn(x, 3),
)

# Crop, Interp, Upsample, ROIPooling --------------------------------------------------------------

case(
    "crop_one_offset_for_all_axes",
    "Crop",
    "crop_param { offset: 1 }",
    {"x": (2, 3, 5, 6), "like": (2, 3, 3, 2)},
    lambda x, like: x[:, :, 1:4, 1:3],
)
case(
    "crop_axis_and_offsets",
    "Crop",
    "crop_param { axis: 1 offset: 1 offset: 0 offset: 2 }",
    {"x": (2, 4, 5, 6), "like": (2, 2, 3, 2)},
    lambda x, like: x[:, 1:3, :3, 2:4],
)
case(
    "crop_negative_axis",
    "Crop",
    "crop_param { axis: -1 offset: 2 }",
    {"x": (2, 2, 3, 5), "like": (2, 2, 3, 3)},
    lambda x, like: x[..., 2:5],
)


def interp(x: Any, height: int, width: int) -> Any:
    for axis, out in ((2, height), (3, width)):
        size = x.shape[axis]
        at = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
        low = np.minimum(np.floor(at).astype(int), size - 1)
        high = np.minimum(low + 1, size - 1)
        share = (at - low).reshape(-1, *(1,) * (3 - axis))
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


for name, given, shape, size in (
    ("size", "height: 5 width: 7", (1, 2, 3, 4), (5, 7)),
    ("zoom", "zoom_factor: 2", (1, 2, 3, 4), (5, 7)),
    ("shrink", "shrink_factor: 2", (1, 2, 5, 7), (3, 4)),
    ("shrink_and_zoom", "shrink_factor: 2 zoom_factor: 3", (1, 1, 5, 7), (7, 10)),
):
    case(
        f"interp_{name}",
        "Interp",
        f"interp_param {{ {given} }}",
        {"x": shape},
        lambda x, size=size: interp(x, *size),
    )
case(
    "interp_cuts_its_pads_off",
    "Interp",
    "interp_param { height: 4 width: 5 pad_beg: -1 pad_end: -2 }",
    {"x": (1, 2, 6, 7)},
    lambda x: interp(x[:, :, 1:4, 1:5], 4, 5),
)
case(
    "interp_one_row",
    "Interp",
    "interp_param { height: 1 width: 3 }",
    {"x": (1, 2, 3, 4)},
    lambda x: interp(x, 1, 3),
)
case(
    "upsample_by_mask",
    "Upsample",
    "upsample_param { scale: 2 }",
    {"x": (1, 1, 2, 2), "mask": np.array([[[[1, 2], [12, 15]]]])},
    lambda x, mask: (
        np.array([0.0])
        + sum(
            (np.arange(16) == mask.flat[i]).reshape(1, 1, 4, 4) * x.reshape(-1)[i] for i in range(4)
        )
    ),
    fixed=("mask",),
)


def roi(x: Any, rois: Any, ph: int, pw: int, scale: float) -> Any:
    top = np.zeros((len(rois), x.shape[1], ph, pw))
    for r, (image, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (math.floor(v * scale + 0.5) for v in corners)
        bh, bw = max(y2 - y1 + 1, 1) / ph, max(x2 - x1 + 1, 1) / pw
        for i in range(ph):
            for j in range(pw):
                h0, h1 = (
                    min(max(v + y1, 0), x.shape[2]) for v in (int(i * bh), math.ceil((i + 1) * bh))
                )
                w0, w1 = (
                    min(max(v + x1, 0), x.shape[3]) for v in (int(j * bw), math.ceil((j + 1) * bw))
                )
                part = x[int(image), :, h0:h1, w0:w1]
                top[r, :, i, j] = part.max(axis=(1, 2)) if part.size else 0
    return top


case(
    "roi_pooling",
    "ROIPooling",
    "roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }",
    {
        "x": (2, 2, 5, 6),
        "rois": np.array([[0, 0, 0, 9, 9], [1, 3, 2, 6, 9], [1, 8, 8, 14, 12], [0, 4, 4, 4, 4]]),
    },
    lambda x, rois: roi(x, rois, 2, 3, 0.5),
    fixed=("rois",),
)
