"""What net.forward, net.backward and net.params take, and what they say to mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import netdef
from schemas.errors import NetError

Array = np.ndarray[Any, Any]
X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
WEIGHT = np.array([[1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]])
IP = (
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"'
    " inner_product_param { num_output: 2 } }\n"
)
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }\n'
PLAIN = 'input: "x" input_shape { dim: 2 dim: 3 }\n' + IP
LABELLED = 'input: "label" input_shape { dim: 2 }\n' + PLAIN + LOSS
MEMORY = (
    'layer { name: "d" type: "MemoryData" top: "x" top: "label"'
    " memory_data_param { batch_size: 2 channels: 3 height: 1 width: 1 } }\n" + IP + LOSS
)
DUMMY = (
    'layer { name: "d" type: "DummyData" top: "x" top: "label" dummy_data_param {'
    " shape { dim: 2 dim: 3 } shape { dim: 2 }"
    ' data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }\n' + IP + LOSS
)


def load(text: str, backend: str = "reference", phase: str = "TRAIN") -> netdef.Net:
    net = netdef.load(text=text, format="prototxt", phase=phase, backend=backend)
    net.params["ip"] = {"weight": WEIGHT, "bias": np.zeros(2)}
    return net


WAYS = {
    "list": X.tolist(),
    "integers": X.astype(int),
    "small_integers": X.astype(np.int8),
    "float32": X.astype(np.float32),
    "half": X.astype(np.float16),
    "columns_first": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": X[::-1, ::-1][::-1, ::-1],
    "read_only": np.broadcast_to(X, X.shape),
}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_any_array_of_numbers_will_do(backend: str) -> None:
    net = load(PLAIN, backend)
    for way, value in WAYS.items():
        np.testing.assert_array_equal(net.forward(x=value)["y"], X @ WEIGHT.T, err_msg=way)
        seed = np.asarray(value)[:, :2]
        np.testing.assert_array_equal(net.backward(y=seed)["x"], X[:, :2] @ WEIGHT, err_msg=way)
    net.close()


@pytest.mark.parametrize("backend, kind", [("reference", np.float64), ("cpu", np.float32)])
def test_results_are_arrays_of_the_backend_s_precision(backend: str, kind: type) -> None:
    net = load(LABELLED, backend)
    out = net.forward(x=X, label=[0, 1], blobs=["y"])
    assert list(out) == ["loss", "y"] and out["loss"].shape == () and float(out["loss"]) > 0
    grads = net.backward()
    arrays = [*out.values(), *grads.values(), *net.grads["ip"].values()]
    assert {array.dtype for array in arrays} == {np.dtype(kind)}
    out["y"][:] = 0  # the caller's own
    assert net.forward(blobs="y")["y"].any()
    net.close()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_another_batch_size_than_the_file_s(backend: str) -> None:
    net = load(LABELLED, backend)
    small = net.forward(x=X, label=[0, 1])["loss"]
    wide = net.forward(x=np.tile(X, (3, 1)), label=[0, 1] * 3)
    assert wide["loss"] == pytest.approx(float(small), rel=1e-6)
    assert net.backward()["x"].shape == (6, 3)
    with pytest.raises(NetError, match="needs 1 labels, not 6"):
        net.forward(x=X[:1])
    assert net.forward(x=X[:1], label=[0])["loss"] > 0
    net.close()


CONV = (
    'input: "x" input_shape { dim: 1 dim: 2 dim: 4 dim: 4 }\n'
    'layer { name: "c" type: "Convolution" bottom: "x" top: "y"'
    " convolution_param { num_output: 3 kernel_size: 3"
    ' weight_filler { type: "constant" value: 1 } } }\n'
)
DENSE = (
    'layer { name: "d" type: "InnerProduct" bottom: "y" top: "z"'
    " inner_product_param { num_output: 1 } }"
)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_reshape_takes_images_of_another_size_where_the_weights_fit(backend: str) -> None:
    net = netdef.load(text=CONV, format="prototxt", backend=backend)
    wide = np.ones((2, 2, 5, 7))
    with pytest.raises(
        NetError, match="input 'x' has shape .1, 2, 4, 4., not .2, 2, 5, 7."
    ) as told:
        net.forward(x=wide)
    assert told.value.hint == "if that is meant: net.reshape(x=(2, 2, 5, 7))"
    net.reshape(x=wide.shape)
    assert net.inputs == {"x": wide.shape} and net.outputs == {"y": (2, 3, 3, 5)}
    np.testing.assert_array_equal(net.forward(x=wide)["y"], np.full((2, 3, 3, 5), 18))
    assert net.backward(y=np.ones((2, 3, 3, 5)))["x"].shape == wide.shape
    assert net.forward(x=wide[:1])["y"].shape == (1, 3, 3, 5)
    with pytest.raises(NetError, match="weights do not fit 'x' .1, 3, 4, 4.") as told:
        net.reshape(x=(1, 3, 4, 4))
    assert told.value.hint == "'c/weight' would have shape (3, 3, 3, 3), but has (3, 2, 3, 3)"
    with pytest.raises(NetError, match="layer 'c'"):
        net.reshape(x=(1, 2, 2, 4))
    net.reshape(x=[1, 2, 4, 4])
    assert net.forward()["y"].shape == (1, 3, 2, 2)
    net.close()


def test_reshape_leaves_dense_layers_and_data_layers_alone() -> None:
    net = netdef.load(text=CONV + DENSE, format="prototxt", backend="reference")
    with pytest.raises(NetError, match="weights do not fit") as told:
        net.reshape(x=(1, 2, 5, 7))
    assert told.value.hint == "'d/weight' would have shape (1, 45), but has (1, 12)"
    with pytest.raises(NetError, match="layer 'd' gives 'x' its shape"):
        load(DUMMY).reshape(x=(5, 3))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_batch_of_nothing_has_no_loss_and_no_gradient(backend: str) -> None:
    net = load(LABELLED, backend)
    assert net.forward(x=np.ones((0, 3)), label=[])["loss"] == 0
    assert net.backward()["x"].shape == (0, 3)
    assert not net.grads["ip"]["weight"].any()
    net.close()


MISTAKES: dict[str, tuple[Any, str]] = {
    "no_such_input": (lambda n: n.forward(z=X), "no input 'z'"),
    "other_shape": (lambda n: n.forward(x=X.T), r"input 'x' has shape \(2, 3\), not \(3, 2\)"),
    "other_rank": (lambda n: n.forward(x=X[0]), r"input 'x' has shape \(2, 3\), not \(3,\)"),
    "words": (lambda n: n.forward(x=[["a"] * 3] * 2), "'x' must be an array of numbers, not list"),
    "ragged": (lambda n: n.forward(x=[[1], [1, 2]]), "'x' must be an array of numbers, not list"),
    "nothing": (lambda n: n.forward(x=None), "'x' must be an array of numbers, not NoneType"),
    "complex": (lambda n: n.forward(x=X * 1j), "not ndarray of complex128"),
    "no_such_class": (
        lambda n: n.forward(x=X, label=[0, 2]),
        "'label': labels go from 0 to 2, but 'y' has scores of 2 classes",
    ),
    "negative_class": (lambda n: n.forward(x=X, label=[0, -1]), "labels go from -1 to 0"),
    "blob_number": (lambda n: n.forward(blobs=[3]), "no blob '3'"),
    "backward_first": (lambda n: n.backward(), "nothing has been computed yet"),
    "grads_first": (lambda n: n.grads["ip"], "there are no gradients yet"),
    "gradient_shape": (
        lambda n: (n.forward(x=X), n.backward(y=X)),
        r"'y' has shape \(2, 2\), not \(2, 3\)",
    ),
    "gradient_of_words": (
        lambda n: (n.forward(x=X), n.backward(y="all")),
        "'y' must be an array of numbers, not str",
    ),
    "weight_shape": (
        lambda n: n.params["ip"].__setitem__("weight", X.T),
        r"'ip/weight' has shape \(2, 3\), not \(3, 2\)",
    ),
    "blob_by_number": (lambda n: n.params["ip"][0], "no blob '0'"),
    "blobs_by_order": (
        lambda n: n.params.__setitem__("ip", [WEIGHT]),
        "'ip' takes its blobs by name",
    ),
    "no_such_layer": (lambda n: n.params["ip2"], "no layer 'ip2' with learned blobs"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str) -> None:
    call, message = MISTAKES[mistake]
    net = load(LABELLED)
    with pytest.raises(NetError, match=message):
        call(net)
    assert net.forward(x=X, label=[0, 1])["loss"] > 0  # and nothing is spoilt


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_an_input_left_out_is_zero_each_time(backend: str) -> None:
    add = 'layer { name: "e" type: "Eltwise" bottom: "x" bottom: "h" top: "z" }\n'
    more = 'layer { name: "i2" type: "InnerProduct" bottom: "z" top: "w" inner_product_param {'
    more += ' num_output: 300 weight_filler { type: "constant" value: 1 } } }'
    net = load('input: "h" input_shape { dim: 2 dim: 3 }\n' + PLAIN + add + more, backend)
    for _ in range(3):
        np.testing.assert_allclose(net.forward(x=X)["w"], X.sum(1, keepdims=True) * np.ones(300))
    net.close()


def test_memory_data_must_be_given() -> None:
    net = load(MEMORY)
    with pytest.raises(NetError, match="layer 'd' .MemoryData.: nobody gives it data"):
        net.forward()
    out = net.forward(x=X.reshape(2, 3, 1, 1), label=[0, 1], blobs=["y"])
    np.testing.assert_array_equal(out["y"], X @ WEIGHT.T)
    assert net.forward()["loss"] == out["loss"]


def test_what_is_not_given_comes_from_the_data_layer() -> None:
    net = load(DUMMY)
    first, second = (net.forward(blobs=["x", "label"]) for _ in range(2))
    assert (first["x"] != second["x"]).all()  # drawn anew
    np.testing.assert_array_equal(first["label"], [1, 1])
    given = load(DUMMY).forward(x=X, blobs=["x", "label"])
    np.testing.assert_array_equal(given["x"], X)
    np.testing.assert_array_equal(given["label"], [1, 1])
