"""The nets that are shipped, and the lecture's three nets that only count weights."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

import netdef
from compiler.build import build
from compiler.graph import Graph
from compiler.summary import Summary, summarize
from netdef.formats import read_net, read_solver
from runtime.data import EMBEDDED
from schemas.errors import NetError
from schemas.params import Feed

ROOT = Path(__file__).parent.parent.parent
NETS = ROOT / "nets"
HERE = Path(__file__).parent

# net: parameters, multiply-accumulates of one item
COUNTS = {
    "lenet": (431_080, 2_293_000),
    "mlp": (520_260, 519_500),
    "cifar10_quick": (145_578, 12_354_176),
    "cifar10_full": (89_578, 12_298_240),
}


def probe(feed: Feed) -> tuple[tuple[int, ...], ...]:
    """The shapes of a data layer, CIFAR-10's for a file that is not shipped."""
    batch = feed.options["batch_size"]
    return ((batch, *EMBEDDED.get(feed.options["source"], (3, 32, 32))), (batch,))


def shipped(name: str, phase: str) -> Graph:
    return build(read_net(NETS / name / "net.yaml"), phase, probe=probe)


def test_every_net_is_counted() -> None:
    assert {path.parent.name for path in NETS.glob("*/net.yaml")} == set(COUNTS)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str, phase: str) -> None:
    graph = shipped(name, phase)
    summary = summarize(graph)
    batch = next(iter(graph.inputs.values())).shape[0]
    assert (summary.parameters, summary.macs // batch) == COUNTS[name]
    assert ("accuracy" in graph.outputs) == (phase == "TEST")


@pytest.mark.parametrize("name", COUNTS)
def test_solver_names_its_net(name: str) -> None:
    spec = read_solver(NETS / name / "solver.yaml")
    assert spec.net == "net.yaml"
    assert spec.max_iter > 0 and spec.test_iters and spec.random_seed >= 0


@pytest.mark.parametrize("name", COUNTS)
def test_readme_tells_the_counts(name: str) -> None:
    parameters, macs = (f"{count:,}" for count in COUNTS[name])
    own = (NETS / name / "README.md").read_text()
    index = (NETS / "README.md").read_text()
    assert parameters in own and macs in own
    assert f"[{name}]({name}/README.md)" in index and parameters in index and macs in index


@pytest.mark.parametrize(
    "path", sorted(NETS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_editors_find_the_schema(path: Path) -> None:
    kind = "solver" if path.stem == "solver" else "net"
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
