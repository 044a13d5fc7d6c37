"""First values of weights: the distributions of Caffe's fillers, and what they count as fan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import netdef
from schemas.errors import NetError

Array = np.ndarray[Any, Any]
# (outputs, channels / group, height, width): 9000 numbers
SHAPE, GROUP = (60, 6, 5, 5), 2
FAN_IN, FAN_OUT = 6 * 25, 60 * 25


def filled(
    filler: str, shape: tuple[int, ...] = SHAPE, group: int = GROUP, kind: str = ""
) -> Array:
    """Returns the weight of a convolution (or of an InnerProduct) that a filler has filled."""
    outputs, channels, *kernel = shape
    dims = " ".join(f"dim: {n}" for n in (1, channels * group, *kernel))
    sides = " ".join(f"kernel_size: {n}" for n in kernel)
    fields = f"num_output: {outputs} weight_filler {{ {filler} }}"
    param = f"convolution_param {{ {fields} group: {group} {sides} }}"
    if kind:
        param = f"inner_product_param {{ {fields} {kind} }}"
    text = (
        f'input: "x" input_shape {{ {dims} }}\n'
        f'layer {{ name: "l" type: "{"InnerProduct" if kind else "Convolution"}" '
        f'bottom: "x" top: "y" {param} }}'
    )
    net = netdef.load(text=text, format="prototxt", backend="reference")
    assert not net.params["l"]["bias"].any()  # Caffe's default filler is constant 0
    return net.params["l"]["weight"]


def is_uniform(values: Array, low: float, high: float) -> None:
    spread = high - low
    assert low - 1e-6 <= values.min() <= low + 0.01 * spread
    assert high - 0.01 * spread <= values.max() <= high + 1e-6
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * spread)
    assert values.std() == pytest.approx(spread / math.sqrt(12), rel=0.03)


def is_normal(values: Array, mean: float, std: float) -> None:
    assert values.mean() == pytest.approx(mean, abs=0.06 * std)
    assert values.std() == pytest.approx(std, rel=0.04)
    inside = (abs(values - mean) < std).mean()
    assert inside == pytest.approx(0.6827, abs=0.03)


def test_constant_and_its_default() -> None:
    assert (filled('type: "constant" value: 0.25') == 0.25).all()
    assert not filled("").any()


def test_uniform_and_its_default_0_to_1() -> None:
    is_uniform(filled('type: "uniform" min: -2 max: 3'), -2, 3)
    is_uniform(filled('type: "uniform"'), 0, 1)


def test_gaussian_and_its_default_std_of_1() -> None:
    is_normal(filled('type: "gaussian" mean: 2 std: 0.1'), 2, 0.1)
    is_normal(filled('type: "gaussian"'), 0, 1)


def test_sparse_keeps_a_share_of_outputs_not_of_inputs() -> None:
    values = filled('type: "gaussian" std: 3 sparse: 15')
    assert (values != 0).mean() == pytest.approx(15 / 60, abs=0.03)
    is_normal(values[values != 0], 0, 3)


@pytest.mark.parametrize(
    "norm, n",
    [
        ("", FAN_IN),
        ("variance_norm: FAN_IN", FAN_IN),
        ("variance_norm: FAN_OUT", FAN_OUT),  # of the weight as it is: the group does not count
        ("variance_norm: AVERAGE", (FAN_IN + FAN_OUT) / 2),
    ],
)
def test_xavier_and_msra_count_the_weight_s_own_axes(norm: str, n: float) -> None:
    bound = math.sqrt(3 / n)
    is_uniform(filled(f'type: "xavier" {norm}'), -bound, bound)
    is_normal(filled(f'type: "msra" {norm}'), 0, math.sqrt(2 / n))


def test_a_transposed_inner_product_has_the_other_fan() -> None:
    bound = math.sqrt(3 / 600)
    is_uniform(filled('type: "xavier"', (100, 600), 1, "axis: 1"), -bound, bound)
    bound = math.sqrt(3 / 100)
    is_uniform(filled('type: "xavier"', (100, 600), 1, "transpose: true"), -bound, bound)


def test_positive_unitball_has_rows_that_sum_to_1() -> None:
    values = filled('type: "positive_unitball"').reshape(60, -1)
    assert values.min() >= 0
    np.testing.assert_allclose(values.sum(1), 1, rtol=1e-5)
    assert values.std() == pytest.approx(values.mean() / math.sqrt(3), rel=0.05)  # as U(0, 1)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
def test_bilinear_is_one_hat_for_every_pair(side: int) -> None:
    values = filled('type: "bilinear"', (3, 2, side, side), 1)
    f = math.ceil(side / 2)
    c = (side - 1) / (2 * f)
    line = [1 - abs(i / f - c) for i in range(side)]
    np.testing.assert_allclose(values, np.broadcast_to(np.outer(line, line), values.shape), 1e-6)


def test_fillers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NetError, match="square"):
        filled('type: "bilinear"', (3, 2, 2, 3), 1)
    with pytest.raises(NetError, match="must be constant, uniform, .* not 'xavir'"):
        filled('type: "xavir"')


def test_upsampling_by_a_deconvolution_keeps_a_constant() -> None:
    """Caffe's recipe: group = num_output = C, kernel 2 f - f % 2, stride f, pad ceil((f-1)/2)."""
    text = (
        'input: "x" input_shape { dim: 1 dim: 3 dim: 5 dim: 4 }\n'
        'layer { name: "l" type: "Deconvolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: false"
        ' weight_filler { type: "bilinear" } } }'
    )
    net = netdef.load(text=text, format="prototxt", backend="reference")
    y = net.forward(x=np.ones((1, 3, 5, 4)))["y"]
    assert y.shape == (1, 3, 10, 8)
    np.testing.assert_allclose(y[:, :, 1:-1, 1:-1], 1, rtol=1e-6)
