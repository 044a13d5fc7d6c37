"""Rows of the case table: vision layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests import references as ref
from tests import references_vision as seen
from tests.cases import Array, Bottom, case

# Deconvolution and other relatives of Convolution -------------------------------------------------


def geometry(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k in ("stride", "pad", "dilation", "group")}


def deconv(name: str, shape: Any, out: int, kernel: Any, **fields: Any) -> None:
    layer = {"type": "Deconvolution", "num_output": out, "kernel_size": kernel, **fields}
    how = geometry(fields)
    case(f"deconv_{name}", layer, [shape], lambda p, x: seen.deconv(x, p, **how))


deconv("plain", (2, 3, 4, 5), 4, 3)
deconv("one", (1, 1, 1, 1), 1, 1)
deconv("upsampling", (2, 4, 3, 4), 4, 4, stride=2, pad=1, group=4, bias_term=False)
deconv("mixing", (1, 3, 4, 3), 5, 4, stride=2, pad=1)
deconv("groups", (2, 6, 3, 3), 9, 3, group=3, pad=1)
deconv("gaps", (1, 2, 3, 3), 3, 2, stride=3)
deconv("sides", (2, 3, 4, 3), 2, [3, 5], stride=[2, 3], pad=[1, 2], dilation=[2, 1])
deconv("fcn", (1, 3, 2, 2), 3, 16, stride=8, bias_term=False)
deconv("1d", (2, 3, 5), 4, 3, stride=2, pad=1)
deconv("3d", (1, 2, 3, 2, 3), 3, [2, 3, 2], stride=2, pad=[0, 1, 1])
case(
    "deconv_two_bottoms",
    {"type": "Deconvolution", "num_output": 3, "kernel_size": 3, "stride": 2},
    [(2, 2, 3, 3), (1, 2, 2, 4)],
    lambda p, x, y: (seen.deconv(x, p, 2), seen.deconv(y, p, 2)),
    tops=2,
)


def im2col(name: str, shape: Any, kernel: Any, **fields: Any) -> None:
    layer = {"type": "Im2col", "kernel_size": kernel, **fields}
    how = geometry(fields)
    case(f"im2col_{name}", layer, [shape], lambda p, x: seen.im2col(x, kernel, **how))


im2col("plain", (2, 3, 5, 4), 3)
im2col("spread", (1, 2, 7, 8), [2, 3], stride=[2, 1], pad=[1, 0], dilation=2)
im2col("1d", (2, 3, 7), 3, stride=2)
im2col("3d", (1, 2, 3, 4, 3), 2)


def local(name: str, shape: Any, out: int, kernel: Any, **fields: Any) -> None:
    layer = {"type": "LocallyConnected", "num_output": out, "kernel_size": kernel, **fields}
    how = {k: v for k, v in geometry(fields).items() if k != "dilation"}
    case(f"local_{name}", layer, [shape], lambda p, x: seen.local(x, p, kernel, **how))


local("plain", (3, 2, 5, 4), 4, 3)
local("strided", (2, 3, 7, 6), 5, [3, 2], stride=2, pad=[1, 0])
local("groups", (2, 4, 4, 4), 6, 3, group=2, pad=1, bias_term=False)
local("1d", (2, 3, 7), 2, 3)

# Pooling: random elements, channels, pyramids -----------------------------------------------------


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Not negative, as after a ReLU: a third of it is zero."""
    return np.maximum(rng.normal(size=shape) + 0.5, 0)


def nonzero(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.1, 1.1, size=shape)


def stochastic(name: str, shape: Any, kernel: Any, stride: int = 1) -> None:
    layer = {"type": "Pooling", "pool": "STOCHASTIC", "kernel_size": kernel, "stride": stride}
    for phase in ("TRAIN", "TEST"):
        case(
            f"pool_stochastic_{name}_{phase.lower()}",
            layer,
            [Bottom(shape, draw=nonzero)],
            lambda p, x, on=phase == "TRAIN": seen.stochastic(x, kernel, stride, on),
            phase=phase,
        )


stochastic("plain", (2, 3, 6, 4), 2, 2)
stochastic("cut_off", (2, 2, 6, 5), [3, 2], 2)
stochastic("1d", (2, 2, 7), 3, 2)
stochastic("3d", (1, 2, 4, 3, 4), 2, 2)
case(
    "pool_stochastic_zeros",
    {"type": "Pooling", "pool": "STOCHASTIC", "kernel_size": 2, "stride": 2},
    [Bottom((2, 3, 6, 6), draw=positive)],
    lambda p, x: seen.stochastic(x, 2, 2, False),
    phase="TEST",
    gradient=False,
)
for _how in ("L2", "MAX", "AVE"):
    case(
        f"pool_{_how.lower()}_channels",
        {"type": "Pooling", "pool": _how, "across_channels": True, "kernel_size": 3, "stride": 2},
        [(2, 7, 3, 4)],
        lambda p, x, how=_how: seen.across(x, how, 3, 2),
    )
case(
    "pool_l2_channels_padded",
    {"type": "Pooling", "pool": "L2", "across_channels": True, "kernel_size": 3, "pad": 1},
    [(3, 5)],
    lambda p, x: seen.across(x, "L2", 3, 1, 1),
)
case(
    "pool_max_mask_3d",
    {"type": "Pooling", "kernel_size": [2, 3, 2], "stride": 2},
    [(1, 2, 4, 5, 4)],
    lambda p, x: (ref.pool(x, "MAX", [2, 3, 2], 2), ref.pool(x, "ARGMAX", [2, 3, 2], 2)),
    tops=2,
)

case(
    "pool_max_mask_channels",
    {"type": "Pooling", "across_channels": True, "kernel_size": 3, "stride": 2},
    [(2, 7, 3, 4)],
    lambda p, x: (
        seen.across(x, "MAX", 3, 2),
        (ref.pool(x.reshape(2, 1, 7, 12), "ARGMAX", [3, 1], [2, 1]) // 12).reshape(2, 3, 3, 4),
    ),
    tops=2,
)


def rising(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.arange(np.prod(shape)).reshape(shape) / 100


for _taps in (256, 257):  # as many as a byte can number, and one more; the last wins
    case(
        f"pool_max_mask_of_{_taps}_taps",
        {"type": "Pooling", "kernel_h": 1, "kernel_w": _taps},
        [Bottom((1, 2, 2, _taps), draw=rising)],
        lambda p, x, k=_taps: (ref.pool(x, "MAX", [1, k]), ref.pool(x, "ARGMAX", [1, k])),
        tops=2,
    )


def spp(name: str, shape: Any, height: int, how: str = "MAX") -> None:
    layer = {"type": "SPP", "pyramid_height": height, "pool": how}
    case(f"spp_{name}", layer, [shape], lambda p, x: seen.spp(x, height, how))


spp("one", (2, 3, 4, 5), 1)
spp("two", (2, 3, 5, 6), 2)
spp("three", (1, 2, 7, 9), 3)
spp("average", (2, 2, 6, 9), 3, "AVE")

# Larger and smaller images ------------------------------------------------------------------------


def interp(name: str, shape: Any, size: tuple[int, int], **fields: Any) -> None:
    pads = {k: v for k, v in fields.items() if k.startswith("pad")}
    layer = {"type": "Interp", **fields}
    case(f"interp_{name}", layer, [shape], lambda p, x: seen.interp(x, *size, **pads))


interp("size", (2, 3, 4, 5), (7, 11), height=7, width=11)
interp("smaller", (1, 2, 9, 7), (4, 3), height=4, width=3)
interp("zoom", (2, 2, 3, 4), (17, 25), zoom_factor=8)
interp("shrink", (1, 2, 9, 10), (3, 4), shrink_factor=3, pad_beg=0)
interp("both", (1, 2, 9, 9), (9, 9), shrink_factor=2, zoom_factor=2)
interp("cropped", (1, 2, 6, 6), (5, 9), height=5, width=9, pad_beg=-1, pad_end=-2)
interp("one", (2, 1, 1, 3), (4, 1), height=4, width=1)
case(
    "interp_like",
    {"type": "Interp"},
    [(1, 2, 3, 4), Bottom((1, 5, 6, 7), fixed=True)],
    lambda p, x, like: seen.interp(x, 6, 7),
)


def upsample(name: str, shape: Any, size: tuple[int, int], **fields: Any) -> None:
    def places(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        planes = [rng.permutation(size[0] * size[1])[: shape[2] * shape[3]] for _ in range(6)]
        return np.reshape([*planes], shape).astype(float)

    layer = {"type": "Upsample", **fields}
    mask = Bottom(shape, draw=places, fixed=True)
    case(f"upsample_{name}", layer, [shape, mask], lambda p, x, m: seen.upsample(x, m, *size))


upsample("plain", (2, 3, 3, 4), (6, 8))
upsample("scale", (2, 3, 2, 2), (6, 6), scale=3)
upsample("sides", (2, 3, 2, 3), (5, 7), upsample_h=5, upsample_w=7)
upsample("odd", (2, 3, 3, 2), (5, 4), pad_out_h=True)
case(
    "upsample_repeats",
    {"type": "Upsample", "scale": 3},
    [(2, 3, 2, 4)],
    lambda p, x: x.repeat(3, axis=2).repeat(3, axis=3),
)

# Detection ----------------------------------------------------------------------------------------


def regions(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """(image, x1, y1, x2, y2) in an input of 64 x 96; some reach out of it."""
    rows = []
    for i in range(shape[0]):
        (x1, x2), (y1, y2) = np.sort(rng.uniform(0, 110, 2)), np.sort(rng.uniform(0, 70, 2))
        rows.append([i % 2, x1, y1, x2, y2])
    return np.reshape(rows, shape)


def roi_pool(name: str, shape: Any, rois: Any, ph: int, pw: int, scale: float) -> None:
    layer = {"type": "ROIPooling", "pooled_h": ph, "pooled_w": pw, "spatial_scale": scale}
    bottoms = [shape, Bottom(rois, draw=regions, fixed=True)]
    case(f"roi_{name}", layer, bottoms, lambda p, x, r: seen.roi_pool(x, r, ph, pw, scale))


roi_pool("plain", (2, 3, 8, 12), (5, 5), 3, 2, 0.125)
roi_pool("fine", (2, 2, 4, 6), (4, 5, 1, 1), 7, 7, 0.0625)
roi_pool("one_bin", (2, 2, 6, 5), (3, 5), 1, 1, 0.07)


def prior_box(
    name: str, sizes: Any, layer: dict[str, Any], image: Any = (60, 100), **how: Any
) -> None:
    case(
        f"prior_box_{name}",
        {"type": "PriorBox", **layer},
        [(2, 3, 3, 4), (2, 3, 60, 100)],
        lambda p, x, d: seen.prior_box((3, 4), image, sizes, **how),
        gradient=False,
    )


prior_box("plain", [(30, 30)], {"min_size": 30})
prior_box(
    "ssd",
    [(30, 30), (60**0.5 * 30**0.5,) * 2, (30 * 2**0.5, 30 / 2**0.5), (30 / 2**0.5, 30 * 2**0.5)],
    {"min_size": 30, "max_size": 60, "aspect_ratio": [2, 2, 1], "variance": [0.1, 0.1, 0.2, 0.2]},
    variance=(0.1, 0.1, 0.2, 0.2),
)
prior_box(
    "steps",
    [(20, 20), (20 * 3**0.5, 20 / 3**0.5), (50, 50), (50 * 3**0.5, 50 / 3**0.5)],
    {
        "min_size": [20, 50],
        "aspect_ratio": 3,
        "flip": False,
        "clip": True,
        "variance": 0.3,
        "step_h": 16,
        "step_w": 8,
        "offset": 0.25,
    },
    step=(16, 8),
    offset=0.25,
    clip=True,
    variance=(0.3,) * 4,
)
prior_box(
    "image", [(9, 9)], {"min_size": 9, "img_size": 50, "step": 10}, step=(10, 10), image=(50, 50)
)

# Names of other branches --------------------------------------------------------------------------

for _kind in ("DepthwiseConvolution", "ConvolutionDepthwise"):
    case(
        f"fork_{_kind.lower()}",
        {"type": _kind, "num_output": 3, "kernel_size": 3, "pad": 1},
        [(2, 3, 5, 4)],
        lambda p, x: ref.conv(x, p, pad=1, group=3),
    )
_video = {"kernel_size": 3, "kernel_depth": 2, "stride": 2, "temporal_pad": 1}
_three_d = {"stride": [1, 2, 2], "pad": [1, 0, 0]}
case(
    "fork_convolution3d",
    {"type": "Convolution3D", "num_output": 3, **_video},
    [(2, 2, 3, 5, 7)],
    lambda p, x: ref.conv(x, p, **_three_d),
)
case(
    "fork_deconvolution3d",
    {"type": "Deconvolution3D", "num_output": 3, **_video},
    [(1, 2, 3, 2, 3)],
    lambda p, x: seen.deconv(x, p, **_three_d),
)
for _how in ("MAX", "AVE"):
    case(
        f"fork_pooling3d_{_how.lower()}",
        {"type": "Pooling3D", "pool": _how, **_video},
        [(1, 2, 4, 6, 5)],
        lambda p, x, how=_how: ref.pool(x, how, [2, 3, 3], [1, 2, 2], [1, 0, 0]),
    )
