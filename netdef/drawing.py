"""Draws a net as SVG: a layered layout of our own, boxes and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from compiler.graph import Graph, LayerInfo

LEAST, MOST, LINE, PAD = 150, 320, 17, 8  # of a box: widths, height of a line of text, rim
BOLD, SMALL = 7.4, 6.3  # width of a letter of a name, of a type
GAP_X, GAP_Y, MARGIN = 28, 34, 24
SWEEPS = 12
# Colours by what a layer does: fill, frame.
COLOURS = {
    "data": ("#e8f1e4", "#6a9a58"),
    "learned": ("#e3ecf7", "#5b83b8"),
    "loss": ("#f9e6e3", "#c0695c"),
    "other": ("#f4f2ec", "#9a927e"),
}
DATA = frozenset("Data DummyData HDF5Data ImageData Input MemoryData WindowData".split())
STYLE = """
text { font: 12px system-ui, "Helvetica Neue", Arial, sans-serif; fill: #222; }
.name { font-weight: 600; } .small { fill: #666; font-size: 11px; } .edge { fill: none;
stroke: #777; stroke-width: 1.3; } .side { stroke: #bbb; stroke-dasharray: 4 3; }
"""


Dummies = dict[int, tuple[float, float, float]]  # where an edge passes a row: x, top, bottom


@dataclass
class Box:
    """A layer, with the layers that work in place on its top below it."""

    layers: list[LayerInfo]
    row: int = 0
    place: float = 0.0  # in its row, from the left
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


@dataclass
class Edge:
    """A blob from one box to another; `side`: not its first top (labels)."""

    source: int
    target: int
    blob: str
    side: bool
    through: list[tuple[int, int]] = field(default_factory=list)  # (row, dummy) on the way


def draw(graph: Graph) -> str:
    """Returns the net as an SVG document."""
    boxes, edges = _boxes(graph)
    width = min(MOST, max([LEAST, *(box.need for box in boxes)]))
    for box in boxes:
        box.width = width
    _rows(boxes, edges)
    rows = _order(boxes, edges)
    width, height, dummies = _place(boxes, rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{escape(graph.name or 'net')}, phase {graph.phase}</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#777"/></marker></defs>',
        *(_edge_svg(edge, boxes, dummies) for edge in edges),
        *(_box_svg(box) for box in boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


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
                edges.append(Edge(source, len(boxes) - 1, name, which > 0))
        home.update({name: (len(boxes) - 1, which) for which, name in enumerate(tops)})
    return boxes, edges


def _rows(boxes: Sequence[Box], edges: Sequence[Edge]) -> None:
    """Puts every box below the boxes it reads, and cuts long edges into one dummy a row.

    Edges of one blob share their dummies: a label that is read in many places is one line.
    """
    for edge in edges:  # in the order of the layers: sources are final before their readers
        boxes[edge.target].row = max(boxes[edge.target].row, boxes[edge.source].row + 1)
    dummies: dict[tuple[int, str, int], int] = {}
    for edge in edges:
        for row in range(boxes[edge.source].row + 1, boxes[edge.target].row):
            key = (edge.source, edge.blob, row)
            edge.through.append((row, dummies.setdefault(key, len(boxes) + len(dummies))))


def _order(boxes: Sequence[Box], edges: Sequence[Edge]) -> list[list[int]]:
    """Returns the members of each row from left to right, with few crossings (barycentres)."""
    count = 1 + max((box.row for box in boxes), default=0)
    rows: list[list[int]] = [[] for _ in range(count)]
    for i, box in enumerate(boxes):
        rows[box.row].append(i)
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for edge in edges:
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
    return rows


def _sort(row: list[int], rows: Sequence[Sequence[int]], near: Mapping[int, list[int]]) -> None:
    """Sorts a row by the mean place of its members' neighbours in the next row."""
    wanted = {n for member in row for n in near.get(member, ())}
    places = {m: i - len(r) / 2 for r in rows for i, m in enumerate(r) if m in wanted}
    here = {member: i - len(row) / 2 for i, member in enumerate(row)}

    def mean(member: int) -> float:
        found = [places[n] for n in near.get(member, ())]
        return sum(found) / len(found) if found else here[member]

    row.sort(key=mean)


def _place(boxes: Sequence[Box], rows: Sequence[Sequence[int]]) -> tuple[float, float, Dummies]:
    """Gives every box and dummy its coordinates; returns width, height and the dummies'."""

    def wide(member: int) -> float:
        return boxes[member].width if member < len(boxes) else 14

    def length(row: Sequence[int]) -> float:
        return sum(map(wide, row)) + GAP_X * max(0, len(row) - 1)

    whole = max((length(row) for row in rows), default=0)
    dummies: Dummies = {}
    y: float = MARGIN
    for row in rows:
        x = MARGIN + (whole - length(row)) / 2
        tall = max((boxes[m].height for m in row if m < len(boxes)), default=0)
        for member in row:
            if member < len(boxes):
                boxes[member].x, boxes[member].y = x, y
            else:
                dummies[member] = (x + 7, y, y + tall)
            x += wide(member) + GAP_X
        y += tall + GAP_Y
    return whole + 2 * MARGIN, y - GAP_Y + MARGIN, dummies


def _edge_svg(edge: Edge, boxes: Sequence[Box], dummies: Dummies) -> str:
    """Returns an edge: curves between rows, straight past the boxes of a row."""
    source, target = boxes[edge.source], boxes[edge.target]
    aside = 40 if edge.side else 0
    x, y = source.middle + aside, source.y + source.height
    path = f"M{x:.1f} {y:.1f}"
    ways = [dummies[dummy] for _, dummy in edge.through]
    for to, top, bottom in [*ways, (target.middle + aside, target.y, target.y)]:
        middle = (y + top) / 2
        path += f" C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {top:.1f}"
        path += f" V{bottom:.1f}" if bottom > top else ""
        x, y = to, bottom
    kind = "edge side" if edge.side else "edge"
    title = f"<title>{escape(edge.blob)}</title>"
    return f'<path class="{kind}" d="{path}" marker-end="url(#tip)">{title}</path>'


def _box_svg(box: Box) -> str:
    fill, frame = COLOURS[_kind(box.layers[0])]
    parts = [
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="5" fill="{fill}" stroke="{frame}"/>'
    ]
    for i, (line, style) in enumerate(box.lines):
        at = box.y + PAD + LINE * i + 13
        text = f'<text class="{style}" x="{box.x + PAD:.1f}" y="{at:.1f}">{escape(line)}</text>'
        parts.append(text)
        if style == "name":
            kind = escape(box.layers[i].type)
            right = box.x + box.width - PAD
            end = f'x="{right:.1f}" y="{at:.1f}" text-anchor="end"'
            parts.append(f'<text class="small" {end}>{kind}</text>')
    return f"<g>{_title(box)}{''.join(parts)}</g>"


def _title(box: Box) -> str:
    """Returns what shows when the mouse rests on a box: everything, uncut."""
    lines = []
    for one in box.layers:
        tops = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in one.tops)
        lines.append(f"{one.name} ({one.type}): {tops}; {one.span.file}:{one.span.line}")
    return f"<title>{escape(chr(10).join(lines))}</title>"


def _kind(info: LayerInfo) -> str:
    if info.type in DATA:
        return "data"
    if info.params:
        return "learned"
    return "loss" if info.type.endswith("Loss") or info.type == "Accuracy" else "other"


def _cut(name: str, beside: str, width: float) -> str:
    """Returns a name cut to the room that the type beside it leaves."""
    room = int((width - 3 * PAD - SMALL * len(beside)) / BOLD + 0.01)
    return name if len(name) <= room else f"{name[: max(3, room - 1)]}…"
