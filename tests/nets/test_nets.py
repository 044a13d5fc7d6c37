"""The nets that are shipped, and the lecture's three nets that only count weights."""

from __future__ import annotations

import re
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import netdef
from compiler.frontend.build import build
from compiler.ir.graph import Graph
from compiler.summary import Summary, summarize
from netdef.formats import read_net, read_solver
from netdef.inspecting import Inspection
from netdef.probing import build_anyhow
from netdef.stepping import step_of
from runtime.data.digits import load_digits
from schemas.errors import NetError
from tests.nets.sequences import SEQUENCES

ROOT = Path(__file__).parent.parent.parent
NETS = ROOT / "nets"
HERE = Path(__file__).parent
PUBLISHED = next((p for up in HERE.parents if (p := up / "shared" / "corpus").is_dir()), None)
PHASES = ("TRAIN", "TEST")


@dataclass(frozen=True)
class Count:
    """What a net has for one item; `known` says who published which figure."""

    parameters: int
    macs: int
    known: str
    training: int = 0  # parameters in phase TRAIN, where more layers take part


COUNTS = {
    "lenet": Count(431_080, 2_293_000, "20*26 + 50*501 + 500*801 + 10*501"),
    "lenet5": Count(60_850, 326_520, "60,000 in the paper, section II.B, and 850 of the output"),
    "mlp": Count(520_260, 519_500, "784*500 + 500*250 + 250*10, with biases for the parameters"),
    "cifar10_quick": Count(145_578, 12_354_176, "32*76 + 32*801 + 64*801 + 64*1025 + 10*65"),
    "cifar10_full": Count(89_578, 12_298_240, "32*76 + 32*801 + 64*801 + 10*1025"),
    "nin": Count(966_986, 222_486_528, "0.97 M"),
    "alexnet": Count(60_965_224, 724_406_816, "61.0 M, 724 M (grouped, at 227)"),
    "caffenet": Count(60_965_224, 724_406_816, "61.0 M, 724 M (grouped, at 227)"),
    "zfnet": Count(62_357_608, 1_168_032_896, "62.4 M: without groups, at 224"),
    "overfeat": Count(145_920_872, 2_801_403_904, "145 M, 2.81 G in the paper"),
    "vgg16": Count(138_357_544, 15_470_264_320, "138 M in the paper, table 2; 15.47 G"),
    "googlenet": Count(
        6_998_552, 1_582_671_872, "7.0 M, 1.58 G; 13.4 M with both heads", training=13_378_280
    ),
    "resnet18": Count(11_689_512, 1_814_073_344, "11.69 M, 1.8 G in the paper, table 1"),
    "resnet50": Count(25_557_032, 3_857_973_248, "25.56 M, 3.8 G: stride in the first 1x1"),
    "squeezenet": Count(1_248_424, 861_339_936, "1.25 M in the paper, table 1"),
    "mobilenet_v1": Count(4_231_976, 568_740_352, "4.2 M, 569 M in the paper, table 4"),
    "autoencoder": Count(2_837_314, 2_833_000, "784-1000-500-250-30 and back: 2,837,314"),
    "siamese": Count(431_102, 4_586_040, "LeNet and a layer of 2: 431,080 + 22; twice the work"),
    "fcn32s": Count(134_432_597, 180_925_453_056, "134 M in the paper, table 1"),
}
# Nets that are small enough to be fused in a test.
SMALL = ("lenet5", "nin", "squeezenet", "autoencoder", "siamese")
# The same nets in the corpus of published files: their learned blobs have the same shapes.
CORPUS = {
    "alexnet": "BVLC__caffe/models/bvlc_alexnet/train_val.prototxt",
    "caffenet": "BVLC__caffe/models/bvlc_reference_caffenet/train_val.prototxt",
    "googlenet": "BVLC__caffe/models/bvlc_googlenet/train_val.prototxt",
    "squeezenet": "DeepScale__SqueezeNet/SqueezeNet_v1.0/train_val.prototxt",
    "overfeat": "soumith__convnet-benchmarks/caffe/imagenet_winners/overfeat.prototxt",
    "resnet50": "KaimingHe__deep-residual-networks/prototxt/ResNet-50-deploy.prototxt",
    "autoencoder": "BVLC__caffe/examples/mnist/mnist_autoencoder.prototxt",
    "siamese": "BVLC__caffe/examples/siamese/mnist_siamese_train_test.prototxt",
}


@cache
def shipped(name: str, phase: str) -> Graph:
    """A net, also where its data set is not here."""
    return build_anyhow(read_net(NETS / name / "net.yaml"), phase)[0]


def batch(graph: Graph) -> int:
    return next(iter(graph.inputs.values())).shape[0]


def test_every_net_is_counted() -> None:
    assert {path.parent.name for path in NETS.glob("*/net.yaml")} == set(COUNTS) | set(SEQUENCES)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    known = COUNTS[name]
    summary = summarize(shipped(name, "TEST"))
    assert (summary.parameters, summary.macs_an_item) == (known.parameters, known.macs)
    training = summarize(shipped(name, "TRAIN"))
    assert training.parameters == (known.training or known.parameters)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", COUNTS)
def test_phases(name: str, phase: str) -> None:
    graph = shipped(name, phase)
    assert graph.loss is not None
    measured = name not in ("autoencoder", "siamese")
    assert ("accuracy" in graph.outputs) == (measured and phase == "TEST")


@pytest.mark.parametrize("name", COUNTS)
def test_deployed_without_data_and_labels(name: str) -> None:
    first, node = next(iter(shipped(name, "TEST").inputs.items()))
    spec = read_net(NETS / name / "net.yaml")
    graph = build(spec, "TEST", deploy=True, inputs={first: (1, *node.shape[1:])})
    assert list(graph.inputs) == [first]
    wanted = {"autoencoder": {"decode1neuron", "prob"}, "siamese": {"feat", "feat_p"}}
    assert set(graph.outputs) == wanted.get(name, {"prob"})


@pytest.mark.parametrize("name", SMALL)
def test_training_step_is_fused(name: str) -> None:
    spec = read_net(NETS / name / "net.yaml")
    step, arena, _, _ = step_of(spec)
    inspection = Inspection(spec, step, arena, "cpu")
    inspection.run("fuse")
    fused, lowered = (len(k) for k in (inspection.unit.kernels, inspection.unit.graph.nodes()))
    assert 0 < fused < lowered / 2


def test_googlenet_learns_by_three_losses() -> None:
    heads = {"loss1/loss": 0.3, "loss2/loss": 0.3}
    assert shipped("googlenet", "TRAIN").loss_weights == {**heads, "loss": 1.0}
    assert shipped("googlenet", "TEST").loss_weights == {"loss": 1.0}


def learned(graph: Graph) -> Counter[tuple[int, ...]]:
    return Counter(info.shape for info in graph.params.values() if info.lr_mult)


@pytest.mark.skipif(PUBLISHED is None, reason="no corpus beside the checkout")
@pytest.mark.parametrize("name", CORPUS)
def test_learned_blobs_are_those_of_the_published_file(name: str) -> None:
    assert PUBLISHED is not None
    shapes = {"data": (100, 1, 28, 28)} if name == "autoencoder" else {}
    shapes = {"pair_data": (64, 2, 28, 28)} if name == "siamese" else shapes
    spec = read_net(PUBLISHED / CORPUS[name])
    phase = "TEST" if name in ("overfeat", "resnet50") else "TRAIN"
    theirs = learned(build_anyhow(spec, phase, shapes)[0])
    if name == "resnet50":
        theirs[64,] -= 1  # a bias of conv1, which BatchNorm takes away again
    assert learned(shipped(name, phase)) == +theirs


@pytest.mark.skipif(PUBLISHED is None, reason="no corpus beside the checkout")
def test_siamese_computes_what_the_published_file_does() -> None:
    assert PUBLISHED is not None
    pairs = load_digits("digits-pairs", "TRAIN")
    batch = {"pair_data": pairs.data[:8].astype(np.float32) / 256, "sim": pairs.label[:8]}
    found = []
    for path in (NETS / "siamese" / "net.yaml", PUBLISHED / CORPUS["siamese"]):
        shapes = {name: array.shape for name, array in batch.items()}
        net = netdef.Net(read_net(path), "TRAIN", backend="cpu", inputs=shapes, threads=1)
        loss = net.forward(**batch)["loss"]
        net.backward()
        grads = {key.split("/")[-1]: value for key, value in net.grads.items()}
        found.append((loss, grads["conv1"]["weight"], grads["ip2"]["bias"]))
        net.close()
    assert found[0][0] > 0  # weights are drawn by their shared names, so the start is the same
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", COUNTS)
def test_solver_names_its_net(name: str) -> None:
    spec = read_solver(NETS / name / "solver.yaml")
    assert spec.net == "net.yaml"
    assert spec.max_iter > 0 and spec.test_iters and spec.random_seed >= 0


@pytest.mark.parametrize("name", COUNTS)
def test_page_tells_the_counts(name: str) -> None:
    page = (NETS / name / "README.md").read_text()
    assert f"{COUNTS[name].parameters:,}" in page and f"{COUNTS[name].macs:,}" in page


def test_table_tells_the_counts() -> None:
    text = (ROOT / "docs" / "nets.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\]\(\.\./nets/\1/README\.md\) \|(.*)\|$", text, re.MULTILINE)
    told = {name: [cell.strip() for cell in row.split("|")] for name, row in rows}
    assert set(told) == set(COUNTS) | set(SEQUENCES)  # those have a table of their own
    for name in COUNTS:
        _, _, shape, parameters, macs, size, _ = told[name]
        graph, known = shipped(name, "TRAIN"), COUNTS[name]
        assert shape == "x".join(map(str, next(iter(graph.inputs.values())).shape[1:]))
        assert (parameters, macs) == (f"{known.parameters:,}", f"{known.macs:,}")
        assert size == str(batch(graph)), name


@pytest.mark.parametrize(
    "path", sorted(NETS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_editors_find_the_schema(path: Path) -> None:
    kind = "solver" if path.stem.startswith("solver") else "net"
    first = path.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema=../../schemas/{kind}.schema.json"


@pytest.mark.parametrize("name", ["cifar10_quick", "cifar10_full"])
def test_missing_data_is_a_located_error(name: str) -> None:
    if (NETS / "cifar10.npz").exists():
        pytest.skip("the data set has been made")
    with pytest.raises(NetError) as caught:
        netdef.load(NETS / name / "net.yaml", phase="TRAIN", backend="reference")
    text = str(caught.value)
    assert "cifar10.npz" in text
    assert "nets/README.md says how to make this file" in text  # the comment in the net's own line


def counted(name: str) -> Summary:
    """Counts a net of this folder, which has to need next to no memory."""
    spec = read_net(HERE / f"{name}.yaml")
    tracemalloc.start()
    try:
        found = summarize(build(spec, "TEST"))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    return found


def test_fully_connected_weights() -> None:
    found = counted("fully_connected")
    assert found.parameters == found.macs == 1_600_000_000


def test_locally_connected_weights() -> None:
    found = counted("locally_connected")
    assert found.parameters == found.macs == 40_000 * 10 * 10 == 4_000_000


def test_convolutional_weights() -> None:
    found = counted("convolutional")
    assert found.parameters == 10_000
    assert found.rows[-1].tops == (("filters", (1, 100, 191, 191)),)
