"""Draws a net as SVG: a layered layout of our own, boxes and curves."""

from __future__ import annotations

from html import escape

from compiler.graph import Graph, LayerInfo
from netdef.layout import DATA, LINE, PAD, Box, Edge, Layout, lay_out

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
"""


def draw(graph: Graph) -> str:
    """Returns the net as an SVG document."""
    layout = lay_out(graph)
    size = f"{layout.width:.0f} {layout.height:.0f}"
    wide, high = size.split()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" '
        f'viewBox="0 0 {size}">',
        f"<title>{escape(graph.name or 'net')}, phase {graph.phase}</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#777"/></marker></defs>',
        *(_edge_svg(edge, layout) for edge in layout.edges),
        *(_box_svg(box) for box in layout.boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _edge_svg(edge: Edge, layout: Layout) -> str:
    """Returns an edge: curves between rows, straight past the boxes of a row."""
    source, target = layout.boxes[edge.source], layout.boxes[edge.target]
    aside = 40 if edge.side else 0
    x, y = source.middle + aside, source.y + source.height
    path = f"M{x:.1f} {y:.1f}"
    for to, top, bottom in [*layout.way(edge), (target.middle + aside, target.y, target.y)]:
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
