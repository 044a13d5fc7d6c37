"""Cases of convolutions and their like."""

from __future__ import annotations

from typing import Any

from tests.exact import oracle_sliding as o
from tests.exact.harness import Table

case = Table()
CASES = case.rows


# Convolution -------------------------------------------------------------------------------------


def conv(
    name: str,
    fields: str,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    kind: str = "Convolution",
    bias: bool = True,
    oracle: Any = o.conv,
    **geometry: Any,
) -> None:
    outputs = weight[0] if kind != "Deconvolution" else weight[1] * geometry.get("group", 1)
    blobs = {"weight": weight} | ({"bias": (outputs,)} if bias else {})
    given = f"convolution_param {{ num_output: {outputs} {fields} }}"
    case(
        f"{kind.lower()}_{name}",
        kind,
        given,
        {"x": shape},
        lambda x, weight, bias=None: oracle(x, weight, bias, **geometry),
        blobs=blobs,
    )


conv("plain", "kernel_size: 3", (2, 3, 5, 4), (4, 3, 3, 3))
conv("pointwise", "kernel_size: 1", (2, 3, 3, 2), (4, 3, 1, 1))
conv("no_bias", "kernel_size: 2 bias_term: false", (2, 2, 4, 4), (3, 2, 2, 2), bias=False)
conv("stride_rounds_down", "kernel_size: 3 stride: 2", (1, 2, 6, 8), (2, 2, 3, 3), stride=2)
conv("stride_over_kernel", "kernel_size: 2 stride: 3", (2, 2, 8, 6), (3, 2, 2, 2), stride=3)
conv("pad", "kernel_size: 3 pad: 2", (1, 2, 3, 4), (2, 2, 3, 3), pad=2)
conv("pad_over_kernel", "kernel_size: 1 pad: 1", (1, 2, 3, 2), (2, 2, 1, 1), pad=1)
conv("group", "kernel_size: 2 group: 2", (2, 4, 3, 4), (6, 2, 2, 2), group=2)
conv("group_each", "kernel_size: 3 group: 3 pad: 1", (1, 3, 4, 4), (3, 1, 3, 3), group=3, pad=1)
conv("dilation", "kernel_size: 3 dilation: 2 pad: 1", (1, 2, 5, 6), (2, 2, 3, 3), dilation=2, pad=1)
conv(
    "h_w",
    "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0",
    (2, 2, 5, 4),
    (3, 2, 3, 2),
    stride=(2, 1),
    pad=(1, 0),
)
conv(
    "lists",
    "kernel_size: 2 kernel_size: 3 stride: 2 stride: 1 pad: 0 pad: 2 dilation: 1 dilation: 2",
    (1, 2, 5, 4),
    (2, 2, 2, 3),
    stride=(2, 1),
    pad=(0, 2),
    dilation=(1, 2),
)
conv(
    "everything",
    "kernel_size: 3 stride: 2 pad: 3 dilation: 2 group: 2",
    (2, 4, 5, 4),
    (4, 2, 3, 3),
    stride=2,
    pad=3,
    dilation=2,
    group=2,
)
conv("1d", "kernel_size: 3 stride: 2 pad: 1", (2, 3, 7), (4, 3, 3), stride=2, pad=1)
conv("3d", "kernel_size: 2 pad: 1 stride: 2", (1, 2, 3, 4, 3), (3, 2, 2, 2, 2), stride=2, pad=1)
conv("3d_group", "kernel_size: 2 group: 2", (1, 4, 2, 3, 3), (2, 2, 2, 2, 2), group=2)
conv("negative_axis", "kernel_size: 3 axis: -3", (2, 3, 4, 3), (2, 3, 3, 3))
conv("nd_im2col", "kernel_size: 3 force_nd_im2col: true", (1, 2, 4, 3), (2, 2, 3, 3))
case(
    "convolution_without_spatial_axes",
    "Convolution",
    "convolution_param { num_output: 3 }",
    {"x": (4, 5)},
    lambda x, weight, bias: x @ weight.T + bias,
    blobs={"weight": (3, 5), "bias": (3,)},
)
case(
    "convolution_later_axis",
    "Convolution",
    "convolution_param { num_output: 3 kernel_size: 2 axis: 2 }",
    {"x": (2, 2, 3, 3, 3)},
    lambda x, weight, bias: o.conv(x.reshape(4, 3, 3, 3), weight, bias).reshape(2, 2, 3, 2, 2),
    blobs={"weight": (3, 3, 2, 2), "bias": (3,)},
)
case(
    "convolution_two_bottoms_share_the_weight",
    "Convolution",
    "convolution_param { num_output: 3 kernel_size: 2 }",
    {"x": (2, 2, 3, 3), "z": (2, 2, 3, 3)},
    lambda x, z, weight, bias: (o.conv(x, weight, bias), o.conv(z, weight, bias)),
    blobs={"weight": (3, 2, 2, 2), "bias": (3,)},
    tops=("y", "w"),
)
for kind in ("DepthwiseConvolution", "ConvolutionDepthwise"):
    conv("alias", "kernel_size: 3 pad: 1", (1, 3, 4, 3), (3, 1, 3, 3), kind, pad=1, group=3)

conv("plain", "kernel_size: 3", (2, 3, 3, 2), (3, 4, 3, 3), "Deconvolution", oracle=o.deconv)
conv(
    "stride_pad",
    "kernel_size: 4 stride: 2 pad: 1",
    (1, 2, 3, 4),
    (2, 3, 4, 4),
    "Deconvolution",
    oracle=o.deconv,
    stride=2,
    pad=1,
)
conv(
    "group",
    "kernel_size: 2 stride: 2 group: 2",
    (2, 4, 2, 3),
    (4, 3, 2, 2),
    "Deconvolution",
    oracle=o.deconv,
    stride=2,
    group=2,
)
conv(
    "dilation",
    "kernel_size: 2 dilation: 3 bias_term: false",
    (1, 2, 3, 2),
    (2, 2, 2, 2),
    "Deconvolution",
    bias=False,
    oracle=o.deconv,
    dilation=3,
)
conv(
    "gaps",
    "kernel_size: 2 stride: 3",
    (1, 2, 2, 3),
    (2, 2, 2, 2),
    "Deconvolution",
    oracle=o.deconv,
    stride=3,
)
conv("1d", "kernel_size: 3", (2, 2, 4), (2, 3, 3), "Deconvolution", oracle=o.deconv)
conv(
    "3d",
    "kernel_size: 2 stride: 2",
    (1, 2, 2, 2, 2),
    (2, 2, 2, 2, 2),
    "Deconvolution",
    oracle=o.deconv,
    stride=2,
)

case(
    "convolution3d",
    "Convolution3D",
    "convolution3d_param { num_output: 2 kernel_size: 3 kernel_depth: 2 stride: 2 pad: 1"
    " temporal_pad: 1 }",
    {"x": (1, 2, 3, 4, 3)},
    lambda x, weight, bias: o.conv(x, weight, bias, (1, 2, 2), 1),
    blobs={"weight": (2, 2, 2, 3, 3), "bias": (2,)},
)

# Im2col, LocallyConnected ------------------------------------------------------------------------

case(
    "im2col",
    "Im2col",
    "convolution_param { kernel_size: 2 stride: 2 pad: 1 }",
    {"x": (2, 2, 4, 5)},
    lambda x: o.im2col(x, 2, 2, 1),
)
case(
    "im2col_dilation",
    "Im2col",
    "convolution_param { kernel_h: 2 kernel_w: 3 dilation: 2 }",
    {"x": (1, 2, 4, 6)},
    lambda x: o.im2col(x, (2, 3), dilation=2),
)
case(
    "locally_connected",
    "LocallyConnected",
    "local_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 }",
    {"x": (2, 2, 4, 5)},
    lambda x, weight, bias: o.local(x, weight, bias, 3, stride=2, pad=1),
    blobs={"weight": (2, 2, 3, 3, 2, 3), "bias": (2, 2, 3)},
)
