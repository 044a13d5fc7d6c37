"""The Python API: load, forward, backward, params, weights, Solver, compile."""

from __future__ import annotations

import numpy as np
import pytest

import netdef
from schemas.errors import UsageError

NET = """\
name: small
layers:
- {name: data, type: Input, shape: [4, 1, 6, 6]}
- {name: conv1, type: Convolution, num_output: 3, kernel_size: 3, weight_filler: xavier}
- {name: pool1, type: Pooling, kernel_size: 2, stride: 2}
- {name: ip1, type: InnerProduct, num_output: 5, weight_filler: xavier}
- {name: prob, type: Softmax}
"""
PROTOTXT = """\
input: "data" input_shape { dim: 2 dim: 3 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
TRAINED = """\
name: digits
layers:
- {name: data, type: Data, top: [data, label], source: digits8, batch_size: 8, scale: 0.0625}
- {name: ip1, type: InnerProduct, num_output: 10, weight_filler: xavier}
- {name: accuracy, type: Accuracy, bottom: [ip1, label], phase: TEST}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip1, label]}
"""
SOLVER = """\
net: net.yaml
base_lr: 0.1
momentum: 0.9
test_iter: 2
test_interval: 9
max_iter: 9
random_seed: 1
"""
BACKENDS = ["reference", "cpu"]


@pytest.fixture(params=BACKENDS)
def net(request):
    loaded = netdef.load(text=NET, format="yaml", phase="TEST", backend=request.param)
    yield loaded
    loaded.close()


@pytest.fixture
def solver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(TRAINED)
    (tmp_path / "solver.yaml").write_text(SOLVER)
    made = netdef.Solver("solver.yaml", backend="cpu")
    yield made
    made.close()


def items(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_shapes_and_outputs(net):
    assert net.inputs == {"data": (4, 1, 6, 6)} and net.outputs == {"prob": (4, 5)}
    assert list(net.params) == ["conv1", "ip1"]
    assert list(net.params["conv1"]) == ["weight", "bias"]
    assert net.params["conv1"]["weight"].shape == (3, 1, 3, 3)
    out = net.forward(data=items(4, 1, 6, 6), blobs=["pool1"])
    assert {name: value.shape for name, value in out.items()} == {
        "prob": (4, 5),
        "pool1": (4, 3, 2, 2),
    }
    assert out["prob"].sum(axis=1) == pytest.approx(np.ones(4))
    assert net.forward(data=items(2, 1, 6, 6))["prob"].shape == (2, 5)


def test_backward_gives_input_and_parameter_gradients(net):
    x, g = items(4, 1, 6, 6), items(4, 5)
    net.forward(data=x)
    found = net.backward(prob=g)
    assert list(found) == ["data"]
    weight, step = net.params["ip1"]["weight"], items(5, 12)
    slope = (net.grads["ip1"]["weight"] * step).sum()
    values = []
    for sign in (1, -1):
        net.params["ip1"]["weight"] = weight + sign * 1e-2 * step
        values.append((net.forward(data=x)["prob"].astype(float) * g).sum())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-2, rel=1e-2)


def test_inputs_left_out_keep_their_last_value(net):
    first = net.forward(data=items(3, 1, 6, 6))["prob"]
    again = net.forward(blobs="pool1")
    assert again["pool1"].shape == (3, 3, 2, 2)
    np.testing.assert_array_equal(again["prob"], first)


def test_params_are_assignable(net):
    net.params["ip1"]["bias"] = np.arange(5)
    assert net.params["ip1"]["bias"].tolist() == [0, 1, 2, 3, 4]
    net.params["ip1"] = {"weight": np.zeros((5, 12)), "bias": np.ones(5)}
    assert net.params["ip1"]["bias"].tolist() == [1] * 5
    assert net.forward(data=items(4, 1, 6, 6))["prob"] == pytest.approx(np.full((4, 5), 0.2))
    assert "bias" in net.params["ip1"] and "scale" not in net.params["ip1"]
    assert net.params.get("conv9") is None


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda n: n.forward(dat=0), "no input 'dat'"),
        (lambda n: n.forward(data=np.zeros((4, 1, 5, 6))), "input 'data' has shape (4, 1, 6, 6)"),
        (lambda n: n.forward(blobs=["pol1"]), "no blob 'pol1'"),
        (lambda n: n.backward(prob=np.zeros((4, 5))), "nothing has been computed yet"),
        (lambda n: (n.forward(), n.backward(prop=0)), "no blob 'prop'"),
        (lambda n: (n.forward(), n.backward(prob=0)), "'prob' has shape (4, 5), not ()"),
        (lambda n: (n.forward(), n.backward()), "the net has no loss"),
        (lambda n: n.grads, "there are no gradients yet"),
        (lambda n: n.params["ip2"], "no layer 'ip2' with learned blobs"),
        (lambda n: n.params["ip1"]["wieght"], "no blob 'wieght'"),
        (
            lambda n: n.params["ip1"].__setitem__("bias", [0]),
            "'ip1/bias' has shape (5,), not (1,)",
        ),
    ],
)
def test_mistakes_of_a_caller(net, call, message):
    with pytest.raises(UsageError) as caught:
        call(net)
    assert caught.value.message.startswith(message)


def test_prototxt_text_and_an_unknown_phase():
    net = netdef.load(text=PROTOTXT, format="prototxt", backend="reference", phase="test")
    net.forward(data=items(2, 3))
    assert net.backward(prob=items(2, 2))["data"].shape == (2, 3)
    with pytest.raises(UsageError, match="there is no phase 'TRIAN'"):
        netdef.load(text=PROTOTXT, format="prototxt", phase="TRIAN")


def test_weights_go_to_a_file_and_back(net, tmp_path):
    before = net.params["conv1"]["weight"]
    net.save_weights(tmp_path / "x.safetensors")
    net.params["conv1"]["weight"] = np.zeros_like(before)
    assert net.load_weights(tmp_path / "x.safetensors") == []
    np.testing.assert_array_equal(net.params["conv1"]["weight"], before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_net_with_data_layers_reads_its_batches(backend):
    net = netdef.load(text=TRAINED, format="yaml", backend=backend)
    first, second = (net.forward(blobs=["data", "label"]) for _ in range(2))
    assert first["data"].max() == 1.0 and first["data"].shape == (8, 1, 8, 8)
    assert (first["data"] != second["data"]).any()
    given = net.forward(data=first["data"], label=first["label"])
    assert given["loss"] == first["loss"]
    assert net.forward()["loss"] == first["loss"]  # what was given stays
    net.close()


def test_solver_steps_snapshots_and_restores(solver):
    solver.step(4)
    solver.snapshot("a")
    solver.step(3)
    assert solver.iteration == 7
    after = solver.weights()
    solver.restore("a")
    assert solver.iteration == 4
    solver.step(3)
    for key, value in solver.weights().items():
        np.testing.assert_array_equal(value, after[key])
    assert 0 <= solver.test()["accuracy"] <= 1


def test_the_net_of_a_solver_has_the_weights_of_the_solver(solver):
    net = solver.net
    solver.step(3)
    np.testing.assert_array_equal(net.params["ip1"]["weight"], solver.weights()["ip1/weight"])
    net.params["ip1"]["weight"] = np.zeros((10, 64))
    assert not solver.weights()["ip1/weight"].any()
    assert net.forward()["loss"] > 0
    assert solver.net is net
    net.close()
    solver.step(1)  # the solver's memory is its own
    assert solver.weights()["ip1/weight"].any()


def test_compile_needs_no_gpu(tmp_path):
    pytest.importorskip("triton")
    (tmp_path / "net.yaml").write_text(NET)
    program = netdef.compile(tmp_path / "net.yaml", target="sm_90")
    assert program.target == "sm_90" and program.launches


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_elements_of_a_blob_are_assigned_as_in_pycaffe(backend):
    ip = "{name: ip, type: InnerProduct, num_output: 2}"
    text = f"layers: [{{name: x, type: Input, shape: [1, 2]}}, {ip}]"
    net = netdef.load(text=text, format="yaml", backend=backend)
    net.params["ip"]["weight"][...] = [[1, 2], [3, 4]]
    net.params["ip"]["bias"][1] = 5
    assert net.forward(x=[[1, 1]])["ip"].tolist() == [[3, 12]]
    net.close()
