"""What holds between layers: loss weights, sharing, wiring, phases, and state from pass to pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import netdef
from schemas.errors import NetError

Array = np.ndarray[Any, Any]
BACKENDS = ["reference", "cpu"]
X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
INPUT = 'input: "x" input_shape { dim: 2 dim: 3 }\n'


def layer(name: str, kind: str, bottom: str, top: str, more: str = "") -> str:
    ends = "".join(f' bottom: "{b}"' for b in bottom.split())
    ends += "".join(f' top: "{t}"' for t in top.split())
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {more} }}\n'


def ones(name: str, bottom: str, top: str, outputs: int = 2, more: str = "") -> str:
    """An InnerProduct whose weights are 1 and whose biases are 0."""
    filler = 'weight_filler { type: "constant" value: 1 }'
    param = f"inner_product_param {{ num_output: {outputs} {filler} }}"
    return layer(name, "InnerProduct", bottom, top, f"{param} {more}")


@pytest.fixture(params=BACKENDS)
def load(request: pytest.FixtureRequest) -> Any:
    opened = []

    def loaded(text: str, phase: str = "TRAIN") -> netdef.Net:
        opened.append(netdef.load(text=text, format="prototxt", phase=phase, backend=request.param))
        return opened[-1]

    yield loaded
    for net in opened:
        net.close()


# Losses ------------------------------------------------------------------------------------------


def test_any_top_can_be_a_loss_and_is_summed_up(load: Any) -> None:
    net = load(INPUT + layer("r", "ReLU", "x", "y", "loss_weight: 0.5"))
    net.forward(x=X)
    np.testing.assert_allclose(net.backward()["x"], 0.5 * (X > 0))


def test_a_loss_with_readers_gets_both_gradients(load: Any) -> None:
    square = layer("s", "Power", "y", "z", "power_param { power: 2 } loss_weight: 3")
    net = load(INPUT + layer("r", "ReLU", "x", "y", "loss_weight: 0.5") + square)
    net.forward(x=X)
    np.testing.assert_allclose(net.backward()["x"], (X > 0) * (0.5 + 6 * X), rtol=1e-6)


def test_several_losses_are_added_up_with_their_weights(load: Any) -> None:
    a = layer("a", "Reduction", "x", "a", "loss_weight: -2")
    b = layer("b", "Reduction", "x", "b", "reduction_param { operation: SUMSQ } loss_weight: 3")
    net = load(INPUT + a + b)
    out = net.forward(x=X)
    assert (out["a"], out["b"]) == (X.sum(), (X**2).sum())
    np.testing.assert_allclose(net.backward()["x"], -2 + 6 * X)


def test_loss_weight_of_a_layer_in_place_is_of_what_it_leaves(load: Any) -> None:
    first = layer("p", "Power", "y", "y", "power_param { scale: 3 } loss_weight: 0.5")
    second = layer("q", "Power", "y", "y", "power_param { scale: 2 } loss_weight: 1")
    net = load(INPUT + ones("ip", "x", "y") + first + second)
    net.forward(x=X)
    np.testing.assert_allclose(net.backward()["x"], 2 * (0.5 * 3 + 6))


def test_a_shown_loss_is_not_weighted_and_a_given_gradient_replaces_the_weight(load: Any) -> None:
    label = 'input: "label" input_shape { dim: 2 }\n'
    ends = "x label", "loss", "loss_weight: 2"
    net = load(INPUT + label + layer("loss", "SoftmaxWithLoss", *ends))
    shown = net.forward(x=X, label=[0, 1])["loss"]
    p = np.exp(X - X.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert shown == pytest.approx(-np.log(p[[0, 1], [0, 1]]).mean())
    slope = (p - np.eye(3)[[0, 1]]) / 2
    np.testing.assert_allclose(net.backward()["x"], 2 * slope, rtol=1e-5, atol=1e-7)
    for one in (1, 1.0, np.ones(1), np.ones(())):  # Caffe's losses have no axes, old ones had
        np.testing.assert_allclose(net.backward(loss=one)["x"], slope, rtol=1e-5, atol=1e-7)


def test_two_tops_of_a_loss_need_two_loss_weights() -> None:
    label = 'input: "label" input_shape { dim: 2 }\n'
    loss = layer("loss", "SoftmaxWithLoss", "x label", "loss prob", "loss_weight: 1")
    with pytest.raises(NetError, match="1 loss_weight for 2 tops"):
        netdef.load(text=INPUT + label + loss, format="prototxt", backend="reference")


def test_a_measure_beside_a_loss_has_no_gradient(load: Any) -> None:
    label = 'input: "label" input_shape { dim: 2 }\n'
    loss = layer("loss", "SoftmaxWithLoss", "x label", "loss")
    alone, beside = load(INPUT + label + loss), None
    beside = load(INPUT + label + layer("a", "Accuracy", "x label", "a", "loss_weight: 0") + loss)
    for net in (alone, beside):
        net.forward(x=X, label=[2, 1])
    np.testing.assert_array_equal(alone.backward()["x"], beside.backward()["x"])


# Which gradients there are -----------------------------------------------------------------------


def test_lr_mult_0_stops_the_gradient_of_that_blob_alone(load: Any) -> None:
    frozen = ones("a", "x", "y", more="param { lr_mult: 0 }")
    net = load(INPUT + frozen + ones("b", "y", "z", more="loss_weight: 1"))
    net.forward(x=X)
    np.testing.assert_array_equal(net.backward()["x"], 4)
    assert not net.grads["a"]["weight"].any()
    np.testing.assert_array_equal(net.grads["a"]["bias"], 4)
    np.testing.assert_array_equal(net.grads["b"]["weight"], [[5, 5], [5, 5]])


def test_propagate_down_false_stops_what_is_below(load: Any) -> None:
    top = ones("b", "y", "z", more="loss_weight: 1 propagate_down: false")
    net = load(INPUT + ones("a", "x", "y") + top)
    net.forward(x=X)
    assert not net.backward()["x"].any() and not net.grads["a"]["weight"].any()
    assert net.grads["b"]["weight"].any()


def test_propagate_down_is_one_word_for_each_bottom() -> None:
    text = INPUT + ones("a", "x", "y", more="propagate_down: true propagate_down: false")
    with pytest.raises(NetError, match="2 propagate_downs for 1 bottom"):
        netdef.load(text=text, format="prototxt", backend="reference")


def test_force_backward_is_understood(load: Any) -> None:
    net = load("force_backward: true\n" + INPUT + ones("a", "x", "y", more="loss_weight: 1"))
    net.forward(x=X)
    np.testing.assert_array_equal(net.backward()["x"], 2)


def test_gradients_of_all_readers_are_added_up(load: Any) -> None:
    twice = layer("p", "Eltwise", "y y s", "z", "eltwise_param { operation: PROD }")
    square = layer("s", "Power", "y", "s", "power_param { power: 2 }")
    net = load(INPUT + ones("a", "x", "y") + twice + square)  # z = y^4; `s` is made later
    net.forward(x=X)
    y = X.sum(1, keepdims=True) * np.ones((2, 2))
    found = net.backward(z=np.ones((2, 2)))["x"]
    np.testing.assert_allclose(found, (4 * y**3).sum(1, keepdims=True) * np.ones(3), rtol=1e-6)


def test_given_gradients_of_inner_blob_and_output_are_added_up(load: Any) -> None:
    relu = layer("r", "ReLU", "y", "y")
    net = load(INPUT + ones("a", "x", "y") + relu + ones("b", "y", "z"))
    out = net.forward(x=X, blobs=["y"])
    np.testing.assert_array_equal(out["y"], [[2, 2], [3, 3]])  # what is left after all in place
    one = np.ones((2, 2))
    np.testing.assert_array_equal(net.backward(y=one)["x"], 2)
    np.testing.assert_array_equal(net.backward(z=one)["x"], 4)
    np.testing.assert_array_equal(net.backward(y=one, z=one)["x"], 6)


def test_gradients_of_the_tops_of_a_split_are_added_up(load: Any) -> None:
    net = load(INPUT + layer("s", "Split", "x", "a b"))
    net.forward(x=X)
    np.testing.assert_array_equal(net.backward(a=X, b=2 * X)["x"], 3 * X)
    np.testing.assert_array_equal(net.backward(b=X)["x"], X)


def test_no_gradient_goes_through_the_probabilities_of_a_loss(load: Any) -> None:
    label = 'input: "label" input_shape { dim: 2 }\n'
    loss = layer("l", "SoftmaxWithLoss", "x label", "loss prob", "loss_weight: 0 loss_weight: 0")
    square = layer("s", "Reduction", "prob", "y", "reduction_param { operation: SUMSQ }")
    net = load(INPUT + label + loss + square)
    net.forward(x=X, label=[0, 1])
    assert not net.backward(y=1)["x"].any()


# Sharing -----------------------------------------------------------------------------------------


def test_layers_that_share_a_blob_add_up_its_gradients(load: Any) -> None:
    more = 'param { name: "w" } loss_weight: '
    net = load(INPUT + ones("a", "x", "y", 3, more + "1") + ones("b", "y", "z", 3, more + "2"))
    net.forward(x=X)
    net.backward()
    # d/dW of sum(y) + 2 sum(W y), y = W x: rows of (1 + 2 * 3) x, and 2 y.
    want = 7 * X.sum(0) + 2 * X.sum() * np.ones(3)
    for name in "ab":
        np.testing.assert_allclose(net.grads[name]["weight"], np.tile(want, (3, 1)))
    np.testing.assert_array_equal(net.grads["a"]["bias"], 14)
    np.testing.assert_array_equal(net.grads["b"]["bias"], 4)
    net.params["b"]["weight"] = np.eye(3)
    np.testing.assert_array_equal(net.params["a"]["weight"], np.eye(3))


def test_permissive_sharing_needs_only_as_many_numbers(load: Any) -> None:
    share = 'param { name: "w" share_mode: PERMISSIVE }'
    other = layer("b", "Scale", "x", "z", f"scale_param {{ axis: 0 num_axes: 2 }} {share}")
    net = load(INPUT + ones("a", "x", "y", 2, share) + other)
    net.params["a"]["weight"] = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(net.forward(x=X)["z"], X * np.arange(6).reshape(2, 3))


def test_a_shared_blob_of_another_shape_is_refused() -> None:
    share = 'param { name: "w" }'
    text = INPUT + ones("a", "x", "y", 2, share) + ones("b", "y", "z", 2, share)
    with pytest.raises(NetError, match="shares 'w'"):
        netdef.load(text=text, format="prototxt", backend="reference")


# Wiring ------------------------------------------------------------------------------------------


def test_outputs_are_the_unread_blobs_by_alphabet(load: Any) -> None:
    net = load(INPUT + layer("s", "Split", "x", "zz b a") + ones("ip", "b", "c"))
    assert list(net.outputs) == list(net.forward(x=X)) == ["a", "c", "zz"]


def test_a_chain_in_place_leaves_its_last_value(load: Any) -> None:
    chain = "".join(layer(f"p{i}", "Power", "x", "x", "power_param { shift: 1 }") for i in range(3))
    net = load(INPUT + chain)
    np.testing.assert_array_equal(net.forward(x=X)["x"], X + 3)
    np.testing.assert_array_equal(net.backward(x=X)["x"], X)


def test_silence_takes_outputs_away_and_keeps_weights(load: Any) -> None:
    net = load(INPUT + ones("a", "x", "y") + layer("s", "Silence", "y", ""))
    assert net.outputs == {} and net.forward(x=X) == {}
    net.params["a"]["bias"] = [7, 8]
    np.testing.assert_array_equal(net.forward(blobs=["y"])["y"], [[9, 10], [10, 11]])
    np.testing.assert_array_equal(net.backward(y=np.ones((2, 2)))["x"], 2)


def test_parameter_is_a_learned_top(load: Any) -> None:
    blob = layer("p", "Parameter", "", "w", "parameter_param { shape { dim: 2 dim: 3 } }")
    net = load(
        INPUT + blob + layer("e", "Eltwise", "x w", "y", "eltwise_param { operation: PROD }")
    )
    assert not net.params["p"]["weight"].any()
    net.params["p"]["weight"] = 2 * X
    np.testing.assert_allclose(net.forward(x=X)["y"], 2 * X**2)
    np.testing.assert_allclose(net.backward(y=X)["x"], 2 * X**2)
    np.testing.assert_allclose(net.grads["p"]["weight"], X**2)


ITEMS = np.arange(8.0).reshape(4, 2)
CHOICE = 'input: "x" input_shape { dim: 4 dim: 2 } input: "s" input_shape { dim: 4 }\n'


@pytest.mark.parametrize("chosen", [[1, 0, 0, 1], [0, 0, 2, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_filter_shortens_its_tops(load: Any, chosen: list[int]) -> None:
    mean = layer("r", "Reduction", "y", "m", "reduction_param { operation: SUMSQ axis: 1 }")
    net = load(CHOICE + layer("f", "Filter", "x x s", "y z") + mean)
    assert net.outputs == {"m": (4,), "z": (4, 2)}  # Caffe, too, assumes that all pass
    rows = np.flatnonzero(chosen)
    for _ in range(2):
        out = net.forward(x=ITEMS, s=chosen, blobs=["y"])
        np.testing.assert_array_equal(out["y"], ITEMS[rows])
        np.testing.assert_array_equal(out["z"], ITEMS[rows])
        np.testing.assert_array_equal(out["m"], (ITEMS[rows] ** 2).sum(1))
        d = np.zeros((4, 2))
        d[rows] = 2 * ITEMS[rows] + 1
        found = net.backward(m=np.ones(len(rows)), z=np.ones((len(rows), 2)))
        np.testing.assert_array_equal(found["x"], d)


def test_filters_in_a_row_choose_by_what_the_net_computes(load: Any) -> None:
    first = layer("t", "Threshold", "s", "t", "threshold_param { threshold: 0.5 }")
    first += layer("f", "Filter", "x s t", "y u")
    second = layer("v", "Threshold", "u", "v", "threshold_param { threshold: 2 }")
    second += layer("g", "Filter", "y v", "z")
    norm = layer("b", "BatchNorm", "x", "n")
    net = load(CHOICE + first + second + norm)
    for _ in range(2):
        out = net.forward(x=ITEMS, s=[1, 3, 0, 4])
        np.testing.assert_array_equal(out["z"], ITEMS[[1, 3]])
    # Looking at the selectors has not counted the batch twice.
    assert net.params["b"]["scale_factor"] == pytest.approx(1.999)


def test_an_index_that_is_not_there_is_refused(load: Any) -> None:
    embed = "embed_param { num_output: 2 input_dim: 4 }"
    net = load('input: "i" input_shape { dim: 3 }\n' + layer("e", "Embed", "i", "y", embed))
    with pytest.raises(
        NetError, match="'i' goes from 0 to 4, but layer 'e' .Embed. has items 0 to 3"
    ):
        net.forward(i=[0, 4, 1])
    net = load(CHOICE + layer("r", "BatchReindex", "x s", "y"))
    with pytest.raises(
        NetError, match="'s' goes from -1 to 3, but layer 'r' .BatchReindex. has items"
    ):
        net.forward(x=ITEMS, s=[0, -1, 1, 3])


def test_infogain_matrix_of_a_file_is_that_of_a_bottom(load: Any, tmp_path: Any) -> None:
    h = np.random.default_rng(0).random((3, 3)).astype(np.float32)
    # A BlobProto: num, channels, height, width, then data.
    blob = bytes([8, 1, 16, 1, 24, 3, 32, 3, 42, 36]) + h.tobytes()
    (tmp_path / "h.binaryproto").write_bytes(blob)
    label = 'input: "label" input_shape { dim: 2 }\n'
    source = f'infogain_loss_param {{ source: "{tmp_path / "h.binaryproto"}" }}'
    other = 'input: "h" input_shape { dim: 1 dim: 1 dim: 3 dim: 3 }\n'
    file = load(INPUT + label + layer("l", "InfogainLoss", "x label", "loss", source))
    bottom = load(INPUT + label + other + layer("l", "InfogainLoss", "x label h", "loss"))
    got = file.forward(x=X, label=[0, 2])["loss"]
    want = bottom.forward(x=X, label=[0, 2], h=h.reshape(1, 1, 3, 3))["loss"]
    assert got == pytest.approx(float(want))
    np.testing.assert_allclose(file.backward()["x"], bottom.backward()["x"], rtol=1e-6)


# State and chance --------------------------------------------------------------------------------

BATCHES = [np.random.default_rng(i).standard_normal((4, 3, 2)) for i in range(3)]
NORM = 'input: "x" input_shape { dim: 4 dim: 3 dim: 2 }\n' + layer(
    "b", "BatchNorm", "x", "y", "batch_norm_param { moving_average_fraction: 0.9 }"
)


def test_batch_norm_keeps_decaying_sums(load: Any) -> None:
    """The variance's is that of a sample, m / (m - 1); backward adds nothing."""
    net = load(NORM)
    mean, variance, factor = np.zeros(3), np.zeros(3), 0.0
    for x in BATCHES:
        net.forward(x=x)
        net.backward(y=x)
        factor = 0.9 * factor + 1
        mean = 0.9 * mean + x.mean((0, 2))
        variance = 0.9 * variance + 8 / 7 * x.var((0, 2))
        found = net.params["b"]
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["variance"], variance, rtol=1e-5)
        assert found["scale_factor"] == pytest.approx(factor)


def test_batch_norm_divides_the_sums_in_test(load: Any) -> None:
    train, test = load(NORM), load(NORM, "TEST")
    for x in BATCHES:
        train.forward(x=x)
    test.params["b"] = dict(train.params["b"])
    mean, variance, factor = train.params["b"].values()
    mean, variance = (v[:, None] / factor for v in (mean, variance))
    got = test.forward(x=BATCHES[0])["y"]
    np.testing.assert_allclose(got, (BATCHES[0] - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    np.testing.assert_array_equal(test.params["b"]["mean"], train.params["b"]["mean"])


@pytest.mark.parametrize("top", ["x", "y"], ids=["in_place", "apart"])
def test_dropout_drops_its_share_and_scales_the_rest(load: Any, top: str) -> None:
    shape = 'input: "x" input_shape { dim: 100 dim: 200 }\n'
    net = load(shape + layer("d", "Dropout", "x", top, "dropout_param { dropout_ratio: 0.3 }"))
    one, masks = np.ones((100, 200)), []
    for _ in range(2):
        masks.append(net.forward(x=one)[top])
        np.testing.assert_allclose(np.unique(masks[-1]), [0, 1 / 0.7], rtol=1e-6)
        assert (masks[-1] == 0).mean() == pytest.approx(0.3, abs=0.02)  # 6 standard deviations
        np.testing.assert_array_equal(net.backward(**{top: one})["x"], masks[-1])
    assert (masks[0] != masks[1]).any()


def test_stochastic_pooling_draws_elements_by_their_size(load: Any) -> None:
    shape = 'input: "x" input_shape { dim: 1 dim: 1 dim: 160 dim: 160 }\n'
    param = "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"
    net = load(shape + layer("p", "Pooling", "x", "y", param))
    x = np.tile([[1.0, 2.0], [3.0, 4.0]], (80, 80))[None, None]
    values, counts = np.unique(net.forward(x=x)["y"], return_counts=True)
    np.testing.assert_array_equal(values, [1, 2, 3, 4])
    np.testing.assert_allclose(counts / 6400, [0.1, 0.2, 0.3, 0.4], atol=0.04)
    d = net.backward(y=np.ones((1, 1, 80, 80)))["x"]
    assert d.sum() == 6400 and (d * x).sum() == (values * counts).sum()
