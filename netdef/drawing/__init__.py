"""Draws a net as SVG: a layered layout of our own, boxes and curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from compiler.ir.graph import Graph
from compiler.ir.node import toposort
from netdef.drawing.boxes import LEAST, LINE, MOST, PAD, Box, Edge, boxes_of
from netdef.drawing.layered import Item, Link, arrange
from netdef.drawing.panel import GAP_X, GAP_Y, PILL, Line, Panel, Pill

MARGIN = 24.0
SIDE = 40.0  # how far from the middle a label leaves and enters
# Colours by what a layer does: fill, frame.
COLOURS = {
    "data": ("#e8f1e4", "#6a9a58"),
    "learned": ("#e3ecf7", "#5b83b8"),
    "loss": ("#f9e6e3", "#c0695c"),
    "other": ("#f4f2ec", "#9a927e"),
}
STYLE = """
text { font: 12px system-ui, "Helvetica Neue", Arial, sans-serif; fill: #222; }
.name { font-weight: 600; } .small { fill: #666; font-size: 11px; } .edge { fill: none;
stroke: #777; stroke-width: 1.3; } .side { stroke: #bbb; stroke-dasharray: 4 3; }
.delayed { stroke: #7d5ba6; stroke-dasharray: 5 3; } .panel { fill: #faf8fd; stroke: #cdbfe0; }
.time { fill: #7d5ba6; font-size: 11px; stroke: #faf8fd; stroke-width: 4; paint-order: stroke; }
.pill { fill: #ffffff; stroke: #7d5ba6; }
"""
TIPS = """<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" \
markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#777"/></marker>
<marker id="late" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#7d5ba6"/></marker></defs>"""


def draw(graph: Graph, unroll: int = 0) -> str:
    """Returns the net as an SVG document; `unroll` steps of each cycle stand side by side.

    With 0 a cycle is drawn once, with edges back to the layers that read an earlier step.
    """
    picture = Picture(graph, unroll)
    width, height = picture.width + 2 * MARGIN, picture.height + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{escape(graph.name or 'net')}, phase {graph.phase}</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        TIPS,
        f'<g transform="translate({MARGIN:.0f} {MARGIN:.0f})">',
        *picture.parts(),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class Picture:
    """All boxes and panels with their places."""

    def __init__(self, graph: Graph, unroll: int = 0) -> None:
        self.boxes, self.edges = boxes_of(graph)
        self.box_width = min(MOST, max([LEAST, *(box.need for box in self.boxes)]))
        self.starts = _starts(graph)
        self.panels = self._panels(unroll)
        self.items: list[Item] = []
        self.home: dict[int, int] = {}  # box -> item
        seen: dict[int, int] = {}  # cycle -> item
        for i, box in enumerate(self.boxes):
            panel = self.panels.get(box.cycle.number) if box.cycle else None
            if panel is None:
                self.home[i] = len(self.items)
                self.items.append(Item(self.box_width, box.height))
                continue
            if panel.cycle.number not in seen:
                seen[panel.cycle.number] = len(self.items)
                self.items.append(Item(panel.width, panel.height))
            self.home[i] = seen[panel.cycle.number]
        self.links = [pair for edge in self.edges for pair in self._outer(edge)]
        self.links.sort(key=lambda pair: pair[1].target)
        self.width, self.height = arrange(self.items, [k for _, k in self.links], (GAP_X, GAP_Y))

    def _panels(self, unroll: int) -> dict[int, Panel]:
        """Returns the panel of each cycle by its number, laid out."""
        cycles = {box.cycle.number: box.cycle for box in self.boxes if box.cycle is not None}
        panels = {}
        for number, cycle in cycles.items():
            own = {i: box for i, box in enumerate(self.boxes) if box.cycle == cycle}
            panel = Panel(
                cycle,
                own,
                self.box_width,
                min(unroll, cycle.steps),
                [e for e in self.edges if e.source in own and e.target in own],
                [
                    (_port(e), e.target)
                    for e in self.edges
                    if e.target in own and e.source not in own
                ],
                [(e.blob, e.source) for e in self.edges if e.source in own and e.target not in own],
                self.starts,
            )
            panel.lay_out()
            panels[number] = panel
        return panels

    def _panel(self, box: int) -> Panel | None:
        cycle = self.boxes[box].cycle
        return self.panels[cycle.number] if cycle is not None else None

    def _outer(self, edge: Edge) -> Iterable[tuple[Edge, Link]]:
        """Yields the links between boxes and the rims of panels: one for each step."""
        source, target = self._panel(edge.source), self._panel(edge.target)
        if source is not None and source is target:
            return
        steps = max([1, *(p.columns for p in (source, target) if p is not None)])
        middle = self.box_width / 2 + (SIDE if edge.side else 0)
        for step in range(steps):
            leaves = source.bottoms[edge.blob, step] if source else middle
            enters = target.tops[_port(edge), step] if target else middle
            key = f"{edge.blob}@{step}" if source and target else edge.blob
            ends = self.home[edge.source], self.home[edge.target]
            side = edge.side and source is target is None
            yield edge, Link(*ends, key, leaves, enters, side)

    # ---- SVG ---------------------------------------------------------------------------------

    def parts(self) -> list[str]:
        """Returns the picture's elements, panels first, boxes last."""
        inner = [(p, self._corner(p)) for p in self.panels.values()]
        found = [_frame(p, *at) for p, at in inner]
        for edge, link in self.links:
            source, target = self.items[link.source], self.items[link.target]
            start = (source.x + link.leaves, source.y + source.height)
            tip = self._panel(edge.target) is None
            found.append(_curve(edge, start, link.ways, (target.x + link.enters, target.y), tip))
        for panel, at in inner:
            found += _panel_lines(panel, *at)
        for i, box in enumerate(self.boxes):
            if self._panel(i) is None:
                item = self.items[self.home[i]]
                found.append(_box(box, item.x, item.y, self.box_width))
        for panel, (x, y) in inner:
            for one in panel.placed:
                step = panel.columns > 0
                box = self.boxes[one.box]
                found.append(_box(box, x + one.x, y + one.y, self.box_width, step))
        return found

    def _corner(self, panel: Panel) -> tuple[float, float]:
        item = self.items[self.home[next(iter(panel.boxes))]]
        return item.x, item.y


def _port(edge: Edge) -> str:
    return f"{edge.blob}[t{-edge.delay:+d}]" if edge.delay else edge.blob


def _starts(graph: Graph) -> dict[str, str]:
    """Returns for each blob on a cycle what stands before its first step."""
    found = {}
    for one in graph.recurrences:
        leaves = {node.prim: node for node in toposort([one.initial])}
        name = str(one.leaf.attr("name")).partition("[")[0]
        if "param" in leaves:
            found[name] = "learned"
        elif "input" in leaves:
            found[name] = "given"
        elif "state" in leaves:
            found[name] = "last batch"
        elif "const" in leaves:
            found[name] = f"{leaves['const'].attr('value'):g}"
    return found


def _frame(panel: Panel, x: float, y: float) -> str:
    """Returns the ground of a panel."""
    size = f'width="{panel.width:.1f}" height="{panel.height:.1f}"'
    return f'<rect class="panel" x="{x:.1f}" y="{y:.1f}" {size} rx="8"/>'


def _panel_lines(panel: Panel, x: float, y: float) -> list[str]:
    """Returns the lines within a panel and the words beside them."""
    parts = []
    for c in panel.curves:
        ways = [(x + at, y + high, y + low) for at, high, low in c.ways]
        start, end = ((x + at, y + down) for at, down in (c.start, c.end))
        parts.append(_curve(c.edge, start, ways, end, c.tip))
    parts += [_bent(line, x, y) for line in panel.lines]
    parts += [_pill(pill, x, y) for pill in panel.pills]
    labels = [line.label for line in panel.lines if line.label is not None]
    words = [*labels, *((text, at, 17.0) for text, at in panel.heads)]
    for text, at, down in words:
        where = f'x="{x + at:.1f}" y="{y + down:.1f}" text-anchor="middle"'
        parts.append(f'<text class="time" {where}>{escape(text)}</text>')
    return parts


def _curve(
    edge: Edge,
    start: tuple[float, float],
    ways: Sequence[tuple[float, float, float]],
    end: tuple[float, float],
    tip: bool,
) -> str:
    """Returns an edge: curves between rows, straight past the boxes of a row."""
    x, y = start
    path = f"M{x:.1f} {y:.1f}"
    for to, top, bottom in [*ways, (*end, end[1])]:
        middle = (y + top) / 2
        path += f" C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {top:.1f}"
        path += f" V{bottom:.1f}" if bottom > top else ""
        x, y = to, bottom
    kind = "edge delayed" if edge.delay else "edge side" if edge.side else "edge"
    label = ""
    if edge.delay:
        words = f"t{-edge.delay:+d}"
        label = f'<text class="time" x="{end[0] + 6:.1f}" y="{end[1] - 10:.1f}">{words}</text>'
    mark = f' marker-end="url(#{"late" if edge.delay else "tip"})"' if tip else ""
    title = f"<title>{escape(_port(edge))}</title>"
    return f'<path class="{kind}" d="{path}"{mark}>{title}</path>{label}'


def _bent(line: Line, x: float, y: float) -> str:
    """Returns a line of straight pieces with round corners."""
    points = [(x + a, y + b) for a, b in line.points]
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for before, at, after in zip(points, points[1:], points[2:], strict=False):
        a, b = (_toward(at, other, 6) for other in (before, after))
        path += f" L{a[0]:.1f} {a[1]:.1f} Q{at[0]:.1f} {at[1]:.1f} {b[0]:.1f} {b[1]:.1f}"
    path += f" L{points[-1][0]:.1f} {points[-1][1]:.1f}"
    mark = ' marker-end="url(#late)"' if line.tip else ""
    title = f"<title>{escape(line.blob)}</title>"
    return f'<path class="edge delayed" d="{path}"{mark}>{title}</path>'


def _toward(at: tuple[float, float], to: tuple[float, float], far: float) -> tuple[float, float]:
    length = abs(to[0] - at[0]) + abs(to[1] - at[1])
    part = min(far, length / 2) / length if length else 0
    return at[0] + (to[0] - at[0]) * part, at[1] + (to[1] - at[1]) * part


def _pill(pill: Pill, x: float, y: float) -> str:
    left, top = x + pill.x, y + pill.y - PILL / 2
    rect = f'<rect class="pill" x="{left:.1f}" y="{top:.1f}" width="{pill.width:.1f}"'
    text = f'<text class="small" x="{left + 7:.1f}" y="{top + 14:.1f}">{escape(pill.text)}</text>'
    return f'{rect} height="{PILL:.0f}" rx="{PILL / 2:.0f}"/>{text}'


def _box(box: Box, x: float, y: float, width: float, step: bool = False) -> str:
    fill, frame = COLOURS[box.kind]
    parts = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{box.height:.1f}" rx="5" fill="{fill}" stroke="{frame}"/>'
    ]
    for i, (line, style) in enumerate(box.lines(width, step)):
        at = y + PAD + LINE * i + 13
        text = f'<text class="{style}" x="{x + PAD:.1f}" y="{at:.1f}">{escape(line)}</text>'
        parts.append(text)
        if style == "name":
            kind = escape(box.layers[i].type)
            end = f'x="{x + width - PAD:.1f}" y="{at:.1f}" text-anchor="end"'
            parts.append(f'<text class="small" {end}>{kind}</text>')
    return f"<g>{_title(box)}{''.join(parts)}</g>"


def _title(box: Box) -> str:
    return f"<title>{escape(box.title)}</title>"
