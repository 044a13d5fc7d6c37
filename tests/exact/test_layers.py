"""Every layer type of Caffe through the public API: tops, and gradients of bottoms and blobs."""

from __future__ import annotations

import zlib
from fnmatch import fnmatch

import numpy as np
import pytest

from tests.exact import (
    cases_accuracy,
    cases_conv,
    cases_loss,
    cases_neuron,
    cases_norm,
    cases_shape,
    cases_sliding,
)
from tests.exact.harness import TOLERANCE, Case, close, expected_slopes, loaded

TABLES = (
    *(cases_conv, cases_sliding, cases_neuron, cases_shape, cases_norm),
    *(cases_loss, cases_accuracy),
)
CASES: list[Case] = [case for table in TABLES for case in table.CASES]
BACKENDS = ["reference", "cpu"]


# What a backend sees of these is another row's program: the reference, and so the graph, is enough.
GRAPH_ONLY = (
    *("conv*_negative_axis", "convolution_nd_im2col", "convolution_pad_over_kernel"),
    *("convolution_h_w", "convolution_no_bias", "convolution_3d_group", "convolution_plain"),
    *("convolutiondepthwise_*", "convolution3d", "deconvolution_plain", "deconvolution_gaps"),
    *("convolution_group", "convolution_lists", "convolution_stride_*", "deconvolution_[3d]*"),
    *(
        "pooling_*_overlap",
        "pooling_*_stride_over_kernel",
        "deconvolution_1d",
        "im2col_dilation",
        "crop_*axis*",
        "interp_s*",
        "pooling_default_is_max",
    ),
    *("pooling_*_even", "pooling_*_sides", "pooling_*_floor", "pooling3d", "pooling_1d"),
    *("reshape_[acw]*", "reshape_n*", "flatten_*", "slice_*", "concat_*", "tile_*", "split"),
    *("reduction_*_axis_0", "reduction_*_axis_-1", "argmax_*values", "inner_product_axis_*"),
    *(
        "scale_bias_axis*",
        "scale_axis*",
        "bias_*",
        "scale_two_bottoms_[is]*",
        "power_-1*",
        "power_3",
    ),
    *(
        "softmax_loss_*_all",
        "softmax_loss_*counts",
        "softmax_loss_normaliz*",
        "softmax_loss_[bfn]*_some",
    ),
    *("sigmoid_loss_[fn]*", "infogain_[bn]*", "accuracy_top_[13]*", "hinge_of_planes"),
)
RUNS = [
    pytest.param(case, backend, id=f"{case}-{backend}")
    for case in CASES
    for backend in BACKENDS
    if backend == "reference" or not any(fnmatch(case.name, name) for name in GRAPH_ONLY)
]


@pytest.mark.parametrize("case, backend", RUNS)
def test_layer(case: Case, backend: str) -> None:
    """Tops as the oracle says; gradients for random gradients of all tops, of every element."""
    forward, backward = (case.tolerance * t for t in TOLERANCE[backend])
    net = loaded(case, backend)
    assert sorted(net.outputs) == sorted({*case.tops} - {*case.bottoms} or case.tops)
    got = net.forward(**case.bottoms)
    for name, want in case.tops_of(case.values).items():
        close(got[name], want, forward, name)
    random = np.random.default_rng(zlib.crc32(case.name.encode()) + 1)
    seeds = {
        top: random.standard_normal(net.outputs[top]).astype(np.float32).astype(float)
        for top in case.tops
    }
    slopes = expected_slopes(case, seeds)
    found = net.backward(**seeds)
    if any(name in case.blobs for name in slopes):
        found |= net.grads["l"]
    for name, want in slopes.items():
        close(found[name], want, backward, f"gradient of {name}")
    net.close()


def test_exceptions_name_cases() -> None:
    idle = [n for n in GRAPH_ONLY if not any(fnmatch(case.name, n) for case in CASES)]
    assert not idle


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
