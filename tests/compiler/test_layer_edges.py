"""Where elementwise and shaping layers are easily wrong: ties, in-place work, refused shapes."""

from __future__ import annotations

import numpy as np
import pytest

import netdef
from compiler.frontend.build import build
from netdef.formats import read_net
from schemas.errors import NetError

HEAD = "layers:\n- {name: data, type: Input, shape: [2, 3, 4, 6]}\n"


def slope(layer: str, at: float) -> float:
    """Returns the gradient of a layer at one number."""
    text = f"layers:\n- {{name: x, type: Input, shape: [1, 1]}}\n- {{name: y, {layer}}}\n"
    net = netdef.load(text=text, backend="reference")
    net.forward(x=np.array([[at]]))
    return float(net.backward(y=np.ones((1, 1)))["x"][0, 0])


@pytest.mark.parametrize(
    "layer, at, want",
    [
        ("type: BNLL", 0, 0.5),
        ("type: BNLL", 300, 1),
        ("type: BNLL", -300, 0),
        ("type: ELU, alpha: 0.7", 0, 0.7),
        ("type: ELU", 300, 1),
        ("type: PReLU", 0, 0.25),
        ("type: AbsVal", 0, 0),
        ("type: Clip, min: -1, max: 2", -1, 1),
        ("type: Clip, min: -1, max: 2", 2, 1),
        ("type: Clip, min: -1, max: 2", 2.5, 0),
        ("type: Threshold", 1, 0),
        ("type: Power, power: 2", 0, 0),
        ("type: Power, power: 3, scale: 0, shift: 2", 1, 0),
        ("type: MVN", 3, 0),
    ],
)
def test_slopes_at_the_edges(layer, at, want):
    assert slope(layer, at) == want


def test_a_constant_plane_has_no_contrast():
    net = netdef.load(text=HEAD + "- {name: y, type: MVN}\n", backend="cpu")
    x = np.full((2, 3, 4, 6), 2.0)
    np.testing.assert_array_equal(net.forward(data=x)["y"], 0)
    assert np.all(np.isfinite(net.backward(y=np.ones(x.shape))["data"]))


def test_equal_and_infinite_scores_are_ranked():
    text = "layers:\n- {name: x, type: Input, shape: [1, 4]}\n- {name: y, type: ArgMax, top_k: 4}"
    net = netdef.load(text=text, backend="cpu")
    scores = np.array([[-np.inf, 3.0, -np.inf, 3.0]])
    np.testing.assert_array_equal(net.forward(x=scores)["y"], [[[3, 1, 2, 0]]])


IN_PLACE = """
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 } } }
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "x" }
layer { name: "scale" type: "Scale" bottom: "x" top: "x" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "x" top: "x" }
layer { name: "bias" type: "Bias" bottom: "x" top: "x" }
layer { name: "power" type: "Power" bottom: "x" top: "x" power_param { power: 2 } }
"""


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_layers_with_blobs_work_in_place(backend):
    net = netdef.load(text=IN_PLACE, format="prototxt", phase="TRAIN", backend=backend)
    assert [(k, list(v)) for k, v in net.params.items()] == [
        ("bn", ["mean", "variance", "scale_factor"]),
        ("scale", ["weight", "bias"]),
        ("prelu", ["slope"]),
        ("bias", ["bias"]),
    ]
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    net.params["bias"]["bias"] = np.array([1.0, 2.0, 3.0])
    y = x - x.mean((0, 2), keepdims=True)
    y /= np.sqrt(y.var((0, 2), keepdims=True) + 1e-5)
    want = (np.where(y > 0, y, 0.25 * y) + np.array([1.0, 2.0, 3.0])[:, None]) ** 2
    np.testing.assert_allclose(net.forward(x=x)["x"], want, rtol=1e-4, atol=1e-5)
    # A constant added to a channel changes nothing.
    d = net.backward(x=np.ones(x.shape))["x"]
    assert np.abs(d).max() > 0.1
    np.testing.assert_allclose(d.sum((0, 2)), 0, atol=1e-5)


def test_silenced_blobs_are_no_outputs():
    text = HEAD + "- {name: s, type: Slice, top: [a, b, c]}\n- {name: q, type: Silence, bottom: "
    graph = build(read_net(text=text + "[a, c], top: []}\n", format="yaml"), "TEST")
    assert list(graph.outputs) == ["b"]


@pytest.mark.parametrize(
    "layer, message",
    [
        ("type: Reshape, top: data", "cannot work in place"),
        ("type: Reshape, shape: [-1, 5]", "144 elements do not make (-1, 5)"),
        ("type: Reshape, shape: [-1, -1]", "only one dim can be -1"),
        ("type: Reshape, shape: [0, 0, 0, 0, 0]", "keeps an axis that"),
        ("type: Reshape, shape: [-2]", "'shape' must be -1 or more along each axis"),
        ("type: Reshape, axis: 3, num_axes: 2", "2 axes from axis 3 on are too many"),
        ("type: Permute, order: [0, 0]", "order has an axis twice"),
        ("type: Permute, order: [4]", "order has an axis outside of"),
        ("type: Slice, top: [a, b]", "2 tops do not divide axis 1"),
        ("type: Slice, top: [a, b], slice_point: 3", "slice_points must grow"),
        ("type: Slice, top: [a, b], slice_point: [1, 2]", "2 slice_points for 2 tops"),
        ("type: Scale, axis: 2, num_axes: 3", "3 axes from axis 2 on are more than"),
        ("type: Scale, bottom: [data, data]", "the second bottom must have the shape"),
        ("type: Clip, min: 1", "'max' is missing"),
        ("type: Clip, min: 1, max: 0", "max 0 is less than min 1"),
        ("type: Log, base: 1", "there is no logarithm to base 1"),
        ("type: Exp, base: -2", "base -2 must be -1 (for e) or more than 0"),
        ("type: Power, scale: 0, power: -1", "0 ** -1 is not a number"),
        ("type: ArgMax, axis: 1, top_k: 4", "top_k 4 is more than 3 elements"),
        ("type: Crop, offset: [3, 0], bottom: [data, data]", "does not fit"),
        ("type: Crop, offset: [1, 2, 3], bottom: [data, data]", "3 offsets for 2 axes"),
        ("type: GroupNorm, num_groups: 2", "num_groups 2 does not divide the 3 channels"),
        ("type: Filter, bottom: [data, data]", "the last bottom must have one number an item"),
        ("type: Axpy, bottom: [data, data, data]", "the scale must have one number"),
    ],
)
def test_what_does_not_fit_is_said(layer, message):
    text = f"{HEAD}- {{name: y, {layer}}}\n"
    with pytest.raises(NetError) as caught:
        build(read_net(text=text, format="yaml"), "TEST")
    assert message in caught.value.flatten()[0].render()
    assert caught.value.flatten()[0].span.line == 3
