"""Places the boxes of a drawing: layers in rows, few crossings, straight edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from compiler.graph import Graph, LayerInfo

LEAST, MOST, LINE, PAD = 150, 320, 17, 8  # of a box: widths, height of a line of text, rim
BOLD, SMALL = 7.4, 6.3  # width of a letter of a name, of a type
GAP_X, GAP_Y, MARGIN = 28, 34, 24
DUMMY = 14  # width of an edge that passes a row
SWEEPS = 12
# Layers whose further tops are labels, drawn aside.
DATA = frozenset("Data DummyData HDF5Data ImageData Input MemoryData WindowData".split())


@dataclass
class Box:
    """A layer, with the layers that work in place on its top below it."""

    layers: list[LayerInfo]
    row: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = LEAST

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def need(self) -> float:
        """Returns the width that the names and types ask for."""
        return max(BOLD * len(one.name) + SMALL * len(one.type) + 3 * PAD for one in self.layers)

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Returns (text, style class) of each line: names, then the shape that leaves the box."""
        found = [(_cut(one.name, one.type, self.width), "name") for one in self.layers]
        shapes = [shape for _, shape in self.layers[-1].tops]
        return [*found, *([("x".join(map(str, shapes[0])) or "scalar", "small")] if shapes else [])]

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 2 * PAD


def _cut(name: str, beside: str, width: float) -> str:
    """Returns a name cut to the room that the type beside it leaves."""
    room = int((width - 3 * PAD - SMALL * len(beside)) / BOLD + 0.01)
    return name if len(name) <= room else f"{name[: max(3, room - 1)]}…"


@dataclass
class Edge:
    """A blob from one box to another; `side`: a label, or another further top of data."""

    source: int
    target: int
    blob: str
    side: bool
    through: list[tuple[int, int]] = field(default_factory=list)  # (row, dummy) on the way
    lane: int = 0  # beside the rows, from 1; 0: the edge goes through them


@dataclass
class Layout:
    """Boxes with their places, and the ways between them."""

    boxes: list[Box]
    edges: list[Edge]
    width: float = 0.0
    height: float = 0.0
    rows: list[tuple[float, float]] = field(default_factory=list)  # top and bottom of each
    dummies: dict[int, float] = field(default_factory=dict)  # dummy -> x

    def way(self, edge: Edge) -> list[tuple[float, float, float]]:
        """Returns where an edge passes rows: x, and from which y to which it is straight."""
        if edge.lane:
            first, last = self.boxes[edge.source].row + 1, self.boxes[edge.target].row - 1
            x = self.width - MARGIN - DUMMY * (edge.lane - 0.5)
            return [(x, self.rows[first][0], self.rows[last][1])]
        return [(self.dummies[dummy], *self.rows[row]) for row, dummy in edge.through]


def lay_out(graph: Graph) -> Layout:
    """Returns the drawing of a net, every box below those it reads."""
    boxes, edges = _boxes(graph)
    width = min(MOST, max([LEAST, *(box.need for box in boxes)]))
    for box in boxes:
        box.width = width
    _rows(boxes, edges)
    layout = Layout(boxes, edges)
    _place(layout, *_order(boxes, edges))
    return layout


def _boxes(graph: Graph) -> tuple[list[Box], list[Edge]]:
    """Stacks in-place layers on their producer and returns the boxes and what connects them."""
    boxes: list[Box] = []
    home: dict[str, tuple[int, int]] = {}  # blob -> (box, which top)
    edges: list[Edge] = []
    for info in graph.layers:
        tops = [name for name, _ in info.tops]
        bottoms = [name for name, _ in info.bottoms]
        if len(tops) == 1 and tops == bottoms and tops[0] in home:
            at, which = home[tops[0]]
            if which == 0 and not any(e.source == at and e.blob == tops[0] for e in edges):
                boxes[at].layers.append(info)
                continue
        boxes.append(Box([info]))
        for name in bottoms:
            if name in home:
                source, which = home[name]
                side = which > 0 and boxes[source].layers[0].type in DATA
                edges.append(Edge(source, len(boxes) - 1, name, side))
        home.update({name: (len(boxes) - 1, which) for which, name in enumerate(tops)})
    return boxes, edges


def _rows(boxes: Sequence[Box], edges: Sequence[Edge]) -> None:
    """Puts every box below the boxes it reads, and cuts long edges into one dummy a row.

    Edges of one blob share their dummies: a blob that is read in many places is one line. Labels
    that pass rows have a lane beside all of them, so that they bend no other edge.
    """
    for edge in edges:  # in the order of the layers: sources are final before their readers
        boxes[edge.target].row = max(boxes[edge.target].row, boxes[edge.source].row + 1)
    dummies: dict[tuple[int, str, int], int] = {}
    lanes: dict[tuple[int, str], int] = {}
    for edge in edges:
        if edge.side and boxes[edge.target].row > boxes[edge.source].row + 1:
            edge.lane = lanes.setdefault((edge.source, edge.blob), len(lanes) + 1)
            continue
        for row in range(boxes[edge.source].row + 1, boxes[edge.target].row):
            key = (edge.source, edge.blob, row)
            edge.through.append((row, dummies.setdefault(key, len(boxes) + len(dummies))))


Near = Mapping[int, Sequence[int]]  # box or dummy -> those it is tied to in the next row


def _order(boxes: Sequence[Box], edges: Sequence[Edge]) -> tuple[list[list[int]], Near, Near]:
    """Returns the members of each row from left to right, with few crossings (barycentres).

    And what each member is tied to in the row above and in the row below.
    """
    count = 1 + max((box.row for box in boxes), default=0)
    rows: list[list[int]] = [[] for _ in range(count)]
    for i, box in enumerate(boxes):
        rows[box.row].append(i)
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for edge in (edge for edge in edges if not edge.lane):
        chain = [edge.source, *(dummy for _, dummy in edge.through), edge.target]
        for row, dummy in edge.through:
            if dummy not in rows[row]:
                rows[row].append(dummy)
        for first, second in zip(chain, chain[1:], strict=False):
            below.setdefault(first, []).append(second)
            above.setdefault(second, []).append(first)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for members in rows if down else reversed(rows):
            _sort(members, rows, near)
    return rows, above, below


def _sort(row: list[int], rows: Sequence[Sequence[int]], near: Mapping[int, list[int]]) -> None:
    """Sorts a row by the mean place of its members' neighbours in the next row."""
    wanted = {n for member in row for n in near.get(member, ())}
    places = {m: i - len(r) / 2 for r in rows for i, m in enumerate(r) if m in wanted}
    here = {member: i - len(row) / 2 for i, member in enumerate(row)}

    def mean(member: int) -> float:
        found = [places[n] for n in near.get(member, ())]
        return sum(found) / len(found) if found else here[member]

    row.sort(key=mean)


def _place(layout: Layout, rows: Sequence[Sequence[int]], above: Near, below: Near) -> None:
    """Gives every box and dummy its coordinates: rows from the top, edges as straight as may be."""
    boxes = layout.boxes
    wide = {m: boxes[m].width if m < len(boxes) else DUMMY for row in rows for m in row}
    x: dict[int, float] = {}
    for row in rows:
        for i, member in enumerate(row):
            x[member] = (i - (len(row) - 1) / 2) * (wide[member] + GAP_X)
    for sweep in range(SWEEPS + 1):  # the last one is down: what follows one layer is below it
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = above if down else below
            wanted = [_wanted(m, near.get(m, ()), x) for m in row]
            x.update(zip(row, _spread(wanted, [wide[m] for m in row]), strict=True))
    left = min((x[m] - wide[m] / 2 for m in x), default=0) - MARGIN
    lanes = max((edge.lane for edge in layout.edges), default=0)
    right = max((x[m] + wide[m] / 2 for m in x), default=0) + MARGIN
    layout.width = right - left + (GAP_X + DUMMY * lanes if lanes else 0)
    y: float = MARGIN
    for row in rows:
        tall = max((boxes[m].height for m in row if m < len(boxes)), default=0)
        layout.rows.append((y, y + tall))
        for member in row:
            if member < len(boxes):
                boxes[member].x, boxes[member].y = x[member] - left - wide[member] / 2, y
            else:
                layout.dummies[member] = x[member] - left
        y += tall + GAP_Y
    layout.height = y - GAP_Y + MARGIN


def _wanted(member: int, near: Sequence[int], x: Mapping[int, float]) -> float:
    """Returns the middle of a member's neighbours in the next row; its own place if it has none."""
    return median(x[n] for n in near) if near else x[member]


def _spread(wanted: Sequence[float], wide: Sequence[float]) -> list[float]:
    """Returns the places nearest to the wanted ones, by least squares, with gaps between them.

    Neighbours that would come too close form a group, which lies where its members want it on
    average (pool adjacent violators).
    """
    offsets: list[float] = []
    for i, width in enumerate(wide):
        offsets.append(offsets[-1] + (wide[i - 1] + width) / 2 + GAP_X if i else 0.0)
    groups: list[tuple[float, int]] = []  # where the group begins, and how many it has
    for place, offset in zip(wanted, offsets, strict=True):
        begin, count = place - offset, 1
        while groups and groups[-1][0] > begin:
            other, more = groups.pop()
            begin = (begin * count + other * more) / (count + more)
            count += more
        groups.append((begin, count))
    begins = [begin for begin, count in groups for _ in range(count)]
    return [begin + offset for begin, offset in zip(begins, offsets, strict=True)]
