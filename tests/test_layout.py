"""Where a drawing puts boxes and lines: apart, in order, straight."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from netdef.drawing import MARGIN, Picture
from netdef.drawing.layered import spread
from netdef.formats import read_net
from netdef.probing import build_anyhow

NETS = Path(__file__).parent.parent / "nets"


def drawn(name: str, phase: str = "TRAIN") -> Picture:
    return Picture(build_anyhow(read_net(NETS / name / "net.yaml"), phase)[0])


@pytest.mark.parametrize(
    "wanted, places",
    [
        ([0, 100, 200], [0, 100, 200]),  # far enough apart
        ([0, 0], [-34, 34]),  # as far to the left as to the right
        ([0, 0, 0], [-68, 0, 68]),
        ([0, 0, 500], [-34, 34, 500]),
        ([100, 0], [16, 84]),  # their order stays
        ([], []),
    ],
)
def test_neighbours_lie_as_near_to_their_places_as_gaps_allow(
    wanted: list[float], places: list[float]
) -> None:
    assert spread(wanted, [40] * len(wanted), 28) == pytest.approx(places)


@pytest.mark.parametrize("name", ["googlenet", "resnet50", "siamese", "lenet5"])
def test_boxes_do_not_touch(name: str) -> None:
    layout = drawn(name)
    for one, two in combinations(layout.items, 2):
        beside = one.x + one.width < two.x or two.x + two.width < one.x
        assert beside or one.y + one.height < two.y or two.y + two.height < one.y
    for box in layout.items:
        assert -MARGIN < box.x and box.x + box.width < layout.width + MARGIN
        assert -MARGIN < box.y and box.y + box.height < layout.height + MARGIN


@pytest.mark.parametrize("name", ["googlenet", "resnet50", "siamese"])
def test_labels_pass_beside_all_boxes(name: str) -> None:
    layout = drawn(name)
    right = max(box.x + box.width for box in layout.items)
    lanes = [link for edge, link in layout.links if edge.side]
    assert lanes
    for link in lanes:
        ((x, top, bottom),) = link.ways
        assert right < x < layout.width and top < bottom


def test_further_tops_of_a_slice_are_no_labels() -> None:
    layout = drawn("siamese")
    blobs = {edge.blob: edge.side for edge in layout.edges}
    assert blobs["sim"] and not blobs["data"] and not blobs["data_p"]


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet50", "siamese"])
def test_what_alone_follows_a_layer_stands_below_it(name: str) -> None:
    layout = drawn(name)
    solid = [edge for edge in layout.edges if not edge.side]
    sources, targets = ([getattr(e, end) for e in solid] for end in ("source", "target"))
    alone = [e for e in solid if sources.count(e.source) == targets.count(e.target) == 1]
    assert len(alone) >= 10
    for edge in alone:
        above, below = layout.items[edge.source], layout.items[edge.target]
        assert below.x == pytest.approx(above.x, abs=0.5)
