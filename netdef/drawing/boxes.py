"""Boxes of a drawing: layers with those that work in place on them, and who reads whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compiler.frontend.wiring import split_delay
from compiler.ir.graph import Cycle, Graph, LayerInfo

LEAST, MOST, LINE, PAD = 150, 320, 17, 8  # of a box: widths, height of a line of text, rim
BOLD, SMALL = 7.4, 6.3  # width of a letter of a name, of a type
DATA = frozenset("Data DummyData HDF5Data ImageData Input MemoryData WindowData".split())


@dataclass
class Box:
    """A layer, with the layers that work in place on its top below it."""

    layers: list[LayerInfo]

    @property
    def cycle(self) -> Cycle | None:
        return self.layers[0].cycle

    @property
    def need(self) -> float:
        """Returns the width that the names and types ask for."""
        return max(BOLD * len(one.name) + SMALL * len(one.type) + 3 * PAD for one in self.layers)

    def lines(self, width: float, step: bool) -> list[tuple[str, str]]:
        """Returns (text, style class) of each line: names, then the shape that leaves the box.

        `step`: the shape of one time step.
        """
        found = [(_cut(one.name, one.type, width), "name") for one in self.layers]
        shapes = [shape[1:] if step else shape for _, shape in self.layers[-1].tops]
        return [*found, *([("x".join(map(str, shapes[0])) or "scalar", "small")] if shapes else [])]

    @property
    def height(self) -> float:
        return LINE * (len(self.layers) + bool(self.layers[-1].tops)) + 2 * PAD

    @property
    def kind(self) -> str:
        first = self.layers[0]
        if first.type in DATA:
            return "data"
        if first.params:
            return "learned"
        return "loss" if first.type.endswith("Loss") or first.type == "Accuracy" else "other"

    @property
    def title(self) -> str:
        """Returns what shows when the mouse rests on the box: everything, uncut."""
        lines = []
        for one in self.layers:
            tops = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in one.tops)
            lines.append(f"{one.name} ({one.type}): {tops}; {one.span.file}:{one.span.line}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Edge:
    """A blob from one box to another; `side`: a further top of a data layer (labels)."""

    source: int
    target: int
    blob: str
    side: bool
    delay: int = 0  # steps earlier; negative: later


def boxes_of(graph: Graph) -> tuple[list[Box], list[Edge]]:
    """Stacks in-place layers on their producer and returns the boxes and what connects them."""
    boxes: list[Box] = []
    home: dict[str, tuple[int, int]] = {}  # blob -> (box, which top)
    edges: list[Edge] = []
    late: list[tuple[int, str, int]] = []  # (box, blob, delay): read at another time step
    for info in graph.layers:
        tops = [name for name, _ in info.tops]
        bottoms = [split_delay(name) for name, _ in info.bottoms]
        if len(tops) == 1 and bottoms == [(tops[0], 0)] and tops[0] in home:
            at, which = home[tops[0]]
            read = any(e.source == at and e.blob == tops[0] for e in edges)
            if which == 0 and not read and boxes[at].cycle == info.cycle:
                boxes[at].layers.append(info)
                continue
        boxes.append(Box([info]))
        for name, delay in bottoms:
            if delay:
                late.append((len(boxes) - 1, name, delay))
            elif name in home:
                source, which = home[name]
                edges.append(Edge(source, len(boxes) - 1, name, _side(boxes[source], which)))
        home.update({name: (len(boxes) - 1, which) for which, name in enumerate(tops)})
    return boxes, [*edges, *_late(boxes, home, late)]


def _late(
    boxes: list[Box], home: dict[str, tuple[int, int]], late: list[tuple[int, str, int]]
) -> Iterator[Edge]:
    """Yields what is read at another time step: a blob as all layers leave it, and states."""
    for reader, name, delay in late:
        source, which = home[name]
        yield Edge(source, reader, name, _side(boxes[source], which), delay)
    for i, box in enumerate(boxes):
        for one in box.layers:
            for name, delay in one.remembered:
                yield Edge(i, i, f"{one.name}/{name}", False, delay)


def _side(box: Box, which: int) -> bool:
    return which > 0 and box.kind == "data"


def _cut(name: str, beside: str, width: float) -> str:
    """Returns a name cut to the room that the type beside it leaves."""
    room = int((width - 3 * PAD - SMALL * len(beside)) / BOLD + 0.01)
    return name if len(name) <= room else f"{name[: max(3, room - 1)]}…"
