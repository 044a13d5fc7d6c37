"""Building: phases, order, in-place blobs, sharing, losses, deployment, counting."""

from __future__ import annotations

import pytest

from compiler.frontend.build import build
from compiler.ir.graph import Graph
from compiler.summary import summarize
from netdef.formats import read_net
from schemas.params import Feed

LENET = """
name: LeNet
layers:
- {name: data,  type: Data, top: [data, label], source: digits, batch_size: 64, phase: TRAIN}
- {name: data,  type: Data, top: [data, label], source: digits, batch_size: 100, phase: TEST}
- {name: conv1, type: Convolution, num_output: 20, kernel_size: 5, bottom: data}
- {name: pool1, type: Pooling, kernel_size: 2, stride: 2}
- {name: conv2, type: Convolution, num_output: 50, kernel_size: 5}
- {name: pool2, type: Pooling, kernel_size: 2, stride: 2}
- {name: ip1,   type: InnerProduct, num_output: 500}
- {name: relu1, type: ReLU, bottom: ip1, top: ip1}
- {name: ip2,   type: InnerProduct, num_output: 10, bottom: ip1}
- {name: accuracy, type: Accuracy, bottom: [ip2, label], phase: TEST}
- {name: loss,  type: SoftmaxWithLoss, bottom: [ip2, label]}
"""


def probe(feed: Feed) -> tuple[tuple[int, ...], ...]:
    batch = feed.options["batch_size"]
    return ((batch, 1, 28, 28), (batch,))[: len(feed.tops)]


def lenet(phase: str, **options: object) -> Graph:
    return build(read_net(text=LENET), phase, probe=probe, **options)  # type: ignore[arg-type]


def net(body: str, phase: str = "TRAIN", **options: object) -> Graph:
    return build(read_net(text="layers:\n" + body), phase, **options)  # type: ignore[arg-type]


def test_training_net() -> None:
    graph = lenet("TRAIN")
    assert {name: node.shape for name, node in graph.inputs.items()} == {
        "data": (64, 1, 28, 28),
        "label": (64,),
    }
    assert list(graph.params) == [
        f"{layer}/{blob}"
        for layer in ("conv1", "conv2", "ip1", "ip2")
        for blob in ("weight", "bias")
    ]
    assert graph.params["ip1/weight"].shape == (500, 800)
    assert list(graph.outputs) == ["loss"] and graph.loss_weights == {"loss": 1.0}
    assert graph.loss is graph.outputs["loss"]
    (feed,) = graph.feeds
    assert feed.tops == ("data", "label") and feed.shapes == ((64, 1, 28, 28), (64,))
    assert feed.options["scale"] == 1.0 and feed.phase == "TRAIN"
    assert graph.places["conv1"].line == 6 and not graph.warnings


def test_test_net() -> None:
    graph = lenet("TEST")
    assert graph.inputs["data"].shape[0] == 100
    assert list(graph.outputs) == ["accuracy", "loss"]


def test_in_place_rebinds_the_blob() -> None:
    graph = lenet("TRAIN")
    assert graph.blobs["ip1"].prim == "relu"
    assert [info.name for info in graph.layers][5:7] == ["ip1", "relu1"]


def test_every_node_has_an_origin() -> None:
    graph = lenet("TRAIN")
    nodes = graph.nodes([graph.loss] if graph.loss else [])
    assert all(node in graph.origin for node in nodes)
    assert graph.origin[graph.blobs["conv2"]] == "conv2"
    assert graph.origin[graph.param_nodes["ip2/bias"]] == "ip2"


def test_deployed() -> None:
    graph = lenet("TEST", deploy=True)
    assert {name: node.shape for name, node in graph.inputs.items()} == {"data": (100, 1, 28, 28)}
    assert list(graph.outputs) == ["prob"] and graph.outputs["prob"].shape == (100, 10)
    assert graph.loss is None and not graph.feeds
    assert [info.type for info in graph.layers if info.name == "loss"] == ["Softmax"]


def test_deployed_at_another_size_needs_no_data() -> None:
    graph = build(read_net(text=LENET), "TEST", deploy=True, inputs={"data": (3, 1, 28, 28)})
    assert graph.outputs["prob"].shape == (3, 10)


def test_deployed_regression_loses_its_target() -> None:
    graph = net(
        """
- {name: x, type: Input, shape: [[4, 3], [4, 2]], top: [x, y]}
- {name: ip, type: InnerProduct, num_output: 2, bottom: x}
- {name: loss, type: EuclideanLoss, bottom: [ip, y]}
""",
        deploy=True,
    )
    assert list(graph.inputs) == ["x"] and list(graph.outputs) == ["ip"]


def test_layers_may_stand_in_any_order() -> None:
    graph = net(
        """
- {name: b, type: TanH, bottom: a}
- {name: a, type: ReLU, bottom: x}
- {name: x, type: Input, shape: [2, 3], top: x}
"""
    )
    assert [info.name for info in graph.layers] == ["x", "a", "b"]


def test_readers_of_a_blob_that_is_worked_on_in_place() -> None:
    """Each reads what stands in the blob at its place in the file, as in Caffe."""
    graph = net(
        """
- {name: x, type: Input, shape: [2, 3]}
- {name: before, type: Sigmoid, bottom: x}
- {name: first, type: ReLU, bottom: x, top: x}
- {name: between, type: Sigmoid, bottom: x}
- {name: second, type: TanH, bottom: x, top: x}
- {name: after, type: Sigmoid, bottom: x}
"""
    )
    read = {name: graph.blobs[name].src[0].prim for name in ("before", "between", "after")}
    assert read == {"before": "input", "between": "relu", "after": "tanh"}
    assert graph.blobs["x"].prim == "tanh"
    assert list(graph.outputs) == ["after", "before", "between"]


def test_shared_weights_are_one_node() -> None:
    graph = net(
        """
- {name: x, type: Input, shape: [2, 3]}
- {name: a, type: InnerProduct, num_output: 3, param: [{name: w, lr_mult: 2}, {name: b}]}
- {name: c, type: InnerProduct, num_output: 3, param: [{name: w}, {name: b}]}
"""
    )
    assert list(graph.params) == ["w", "b"] and graph.params["w"].lr_mult == 2
    assert [info.params for info in graph.layers[1:]] == [("w", "b")] * 2
    assert [row.parameters for row in summarize(graph).rows] == [0, 12, 0]


def test_loss_is_the_weighted_sum() -> None:
    graph = net(
        """
- {name: x, type: Input, shape: [[2, 3], [2, 3]], top: [x, y]}
- {name: a, type: EuclideanLoss, bottom: [x, y], loss_weight: 0.5}
- {name: b, type: TanH, bottom: x, loss_weight: 2}
- {name: c, type: EuclideanLoss, bottom: [b, y]}
- {name: d, type: EuclideanLoss, bottom: [b, x], loss_weight: 0}
"""
    )
    assert graph.loss_weights == {"a": 0.5, "b": 2.0, "c": 1.0}
    assert graph.loss is not None and graph.loss.shape == ()
    assert list(graph.outputs) == ["a", "c", "d"]


def test_a_loss_without_a_top_gets_its_name() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" }
    """
    graph = build(read_net(text=text, format="prototxt"), "TRAIN")
    assert list(graph.outputs) == ["loss"]


def test_dropout_streams_are_the_layers_own() -> None:
    body = """
- {name: x, type: Input, shape: [2, 3]}
- {name: a, type: Dropout}
- {name: b, type: Dropout}
"""
    streams = [
        {node.attr("stream") for node in net(body).nodes() if node.prim == "random"}
        for _ in range(2)
    ]
    assert len(streams[0]) == 2 and streams[0] == streams[1]
    assert not [node for node in net(body, "TEST").nodes() if node.prim == "random"]


def test_propagate_down_false_stops_the_gradient() -> None:
    graph = net(
        """
- {name: x, type: Input, shape: [2, 3]}
- {name: a, type: TanH, propagate_down: false}
"""
    )
    assert graph.blobs["a"].src[0].prim == "stop"


# Lecture 1 of the course counts three ways to look at a 200 x 200 picture.
COUNTS = {
    "fully connected, 40K hidden": ("type: InnerProduct, num_output: 40000", 1_600_000_000),
    "convolution, 100 filters of 10 x 10": (
        "type: Convolution, num_output: 100, kernel_size: 10",
        10_000,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_lecture(name: str) -> None:
    fields, weights = COUNTS[name]
    graph = net(
        f"""
- {{name: x, type: Input, shape: [1, 1, 200, 200]}}
- {{name: layer, {fields}, bias_term: false}}
"""
    )
    summary = summarize(graph)
    assert summary.parameters == weights
    work = {1_600_000_000: 1_600_000_000, 10_000: 10_000 * 191**2}
    assert summary.macs == work[weights]


def test_summary_of_lenet() -> None:
    summary = summarize(lenet("TEST"))
    assert [row.parameters for row in summary.rows if row.parameters] == [520, 25050, 400500, 5010]
    assert summary.parameters == 431_080
    conv1 = summary.rows[1]
    assert (conv1.layer, conv1.type) == ("conv1", "Convolution")
    assert conv1.tops == (("conv1", (100, 20, 24, 24)),)
    assert conv1.macs == 100 * 20 * 24 * 24 * 25
    assert conv1.activation_bytes == 4 * 100 * 20 * 24 * 24
    relu1 = next(row for row in summary.rows if row.layer == "relu1")
    assert relu1.activation_bytes == 0  # in place
    assert summary.macs == sum(row.macs for row in summary.rows)
