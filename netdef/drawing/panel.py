"""The layers of a cycle as a panel: once, with edges back, or step beside step (unrolled)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compiler.ir.graph import Cycle
from netdef.drawing.boxes import Box, Edge
from netdef.drawing.layered import Item, Link, arrange

GAP_X, GAP_Y = 28.0, 34.0
HEAD, RIM = 26.0, 14.0  # room for the title, at the sides
LANE, FIRST = 12.0, 12.0  # between lines side by side, before the first
ROOM = 10.0  # for words, before the first line back
ASIDE = 26.0  # how far from a box's middle a delayed line leaves and enters
PILL, LETTER = 20.0, 6.4


Point = tuple[float, float]


@dataclass(frozen=True)
class Placed:
    """A box in one step of the panel, with its left upper corner in it."""

    box: int
    step: int
    x: float
    y: float


@dataclass(frozen=True)
class Curve:
    """What is read in the same step, from row to row; `tip`: it ends at a box, not at the rim."""

    edge: Edge
    start: Point
    ways: tuple[tuple[float, float, float], ...]
    end: Point
    tip: bool


@dataclass(frozen=True)
class Line:
    """What is read in another step: corner points, past all boxes."""

    blob: str
    points: tuple[Point, ...]
    tip: bool = True
    label: tuple[str, float, float] | None = None  # text, x, y


@dataclass(frozen=True)
class Pill:
    """What stands before the first step."""

    text: str
    x: float  # of its left end
    y: float  # of its middle

    @property
    def width(self) -> float:
        return LETTER * len(self.text) + 14


@dataclass
class Panel:
    """The boxes of one cycle. Once `lay_out` has run, everything has its place in the panel.

    `entries` and `exits` are the blobs that come from outside and go there; a port is where one
    crosses the rim: (blob, step) -> x.
    """

    cycle: Cycle
    boxes: Mapping[int, Box]
    width_of_box: float
    columns: int  # 0: folded
    edges: Sequence[Edge]  # among its boxes, delayed or not
    entries: Sequence[tuple[str, int]]  # (blob, box)
    exits: Sequence[tuple[str, int]]
    starts: Mapping[str, str]  # blob -> what stands before its first step
    width: float = 0.0
    height: float = 0.0
    placed: list[Placed] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    tops: dict[tuple[str, int], float] = field(default_factory=dict)
    bottoms: dict[tuple[str, int], float] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    pills: list[Pill] = field(default_factory=list)
    heads: list[tuple[str, float]] = field(default_factory=list)  # column titles

    @property
    def delayed(self) -> list[Edge]:
        return [edge for edge in self.edges if edge.delay]

    @property
    def title(self) -> str:
        way = ", backwards" if self.cycle.backwards else ""
        return f"{self.cycle.steps} step{'s' if self.cycle.steps > 1 else ''}{way}"

    @property
    def more(self) -> bool:
        return 0 < self.columns < self.cycle.steps

    @property
    def last_head(self) -> str:
        return f"… t = {self.cycle.steps - 1}"

    def lay_out(self) -> None:
        self.at = {box: i for i, box in enumerate(self.boxes)}
        first = 1 if self.entries else 0  # the row behind that of the ports
        self.items = [Item(self.width_of_box, b.height, first) for b in self.boxes.values()]
        links = self._links()
        ends = range(
            len(self.items) - len(dict.fromkeys(b for b, _ in self.exits)), len(self.items)
        )
        room = GAP_Y + LANE * max(0, len(self.delayed) - 1)
        self.column, self.tall = arrange(self.items, [k for _, k in links], (GAP_X, room), ends)
        self.lane = FIRST * 2 + LANE * (len(self.delayed) - 1) if self.delayed else GAP_X
        pills = self._pill_texts()
        left = max((Pill(text, 0, 0).width for text in pills if not self._right(text)), default=0)
        right = max((Pill(text, 0, 0).width for text in pills if self._right(text)), default=0)
        self.left = RIM + (left + self.lane if left else 0)
        count = max(1, self.columns)
        self.end = self.left + count * self.column + (count - 1) * self.lane
        outside = self.lane if self.delayed and (not self.columns or right or self.more) else 0
        right = max(right, LETTER * len(self.last_head)) if self.more else right
        self.width = self.end + outside + right + RIM + (0 if self.columns else 2 * ROOM)
        self.height = HEAD + self.tall + (0 if self.exits else room)
        for step in range(count):
            self._column(step, links)
        self._delays()

    # ---- one step ----------------------------------------------------------------------------

    def _links(self) -> list[tuple[Edge, Link]]:
        """Adds the ports to the items; returns what is read in the same step."""
        half = self.width_of_box / 2
        found: list[tuple[Edge, Link]] = []
        ports: dict[str, int] = {}
        self.ports: dict[tuple[str, bool], int] = {}
        for blob, box in self.entries:
            if blob not in ports:
                ports[blob] = len(self.items)
                self.items.append(Item(16, 0))
            edge = Edge(ports[blob], box, blob, False)
            found.append((edge, Link(ports[blob], self.at[box], blob, 8, half)))
        for edge in self.edges:
            if not edge.delay:
                link = Link(self.at[edge.source], self.at[edge.target], edge.blob, half, half)
                found.append((edge, link))
        found.sort(key=lambda pair: pair[1].target)
        self.ports |= {(blob, True): i for blob, i in ports.items()}
        for blob, box in self.exits:
            if (blob, False) not in self.ports:
                self.ports[blob, False] = len(self.items)
                self.items.append(Item(16, 0))
                at = self.ports[blob, False]
                found.append((Edge(box, at, blob, False), Link(self.at[box], at, blob, half, 8)))
        return found

    def _x(self, step: int) -> float:
        return self.left + step * (self.column + self.lane)

    def _column(self, step: int, links: Iterable[tuple[Edge, Link]]) -> None:
        x = self._x(step)
        for box, i in self.at.items():
            item = self.items[i]
            self.placed.append(Placed(box, step, x + item.x, HEAD + item.y))
        for (blob, enters), i in self.ports.items():
            ports = self.tops if enters else self.bottoms
            ports[blob, step] = x + self.items[i].x + 8
        self.curves += [self._curve(edge, link, x) for edge, link in links]
        if not self.columns:
            self.heads.append((self.title, RIM + LETTER * len(self.title) / 2))
        else:
            self.heads.append((f"t = {step}", x + self.column / 2))
        if self.more and step == 0:
            at = self.width - RIM - LETTER * len(self.last_head) / 2
            self.heads.append((self.last_head, at))

    def _curve(self, edge: Edge, link: Link, x: float) -> Curve:
        """Returns what is read in one step; from a port it comes from the rim of the panel."""
        source, target = self.items[link.source], self.items[link.target]
        top = 0.0 if not source.height else HEAD + source.y + source.height
        bottom = self.height if not target.height else HEAD + target.y
        ways = tuple((x + at, HEAD + high, HEAD + low) for at, high, low in link.ways)
        if not source.height:  # straight down past the title
            ways = ((x + source.x + link.leaves, HEAD, HEAD), *ways)
        ends = (x + source.x + link.leaves, top), (x + target.x + link.enters, bottom)
        return Curve(edge, ends[0], ways, ends[1], target.height > 0)

    # ---- from step to step -------------------------------------------------------------------

    def _right(self, text: str) -> bool:
        return "[T" in text

    def _before(self, edge: Edge, step: int) -> str | None:
        """Returns what a step reads where the step before is not in the drawing."""
        source = step - edge.delay
        if not self.columns or 0 <= source < self.columns:
            return None
        if 0 <= source < self.cycle.steps:
            return ""
        beyond = source - self.cycle.steps
        name = edge.blob.rpartition("/")[2]
        where = f"{source}" if source < 0 else f"T+{beyond}" if beyond else "T"
        return f"{name}[{where}] = {self.starts.get(edge.blob, '0')}"

    def _pill_texts(self) -> list[str]:
        found = [self._before(e, s) for e in self.delayed for s in range(self.columns)]
        return [text for text in found if text]

    def _delays(self) -> None:
        for n, edge in enumerate(self.delayed):
            for step in range(max(1, self.columns)):
                self._back(n, edge) if not self.columns else self._over(n, edge, step)
            if self.more and edge.delay > 0:
                for step in range(max(0, self.columns - edge.delay), self.columns):
                    start = self._leave(n, edge, step, 1)
                    end = (self.width, start[-1][1])
                    self.lines.append(Line(edge.blob, (*start, end), tip=False))

    def _leave(self, n: int, edge: Edge, step: int, way: int) -> tuple[Point, ...]:
        """Returns the first points of a line: out of a box and down into the gap below its row."""
        item = self.items[self.at[edge.source]]
        x = self._x(step) + item.x + self.width_of_box / 2 + way * (ASIDE + LANE * n)
        row = max(i.y + i.height for i in self.items if i.row == item.row)
        return (x, HEAD + item.y + item.height), (x, HEAD + row + 10 + 6 * n)

    def _enter(self, n: int, edge: Edge, step: int, way: int) -> tuple[Point, ...]:
        """Returns the last points of a line: in the gap above a row and down into a box."""
        item = self.items[self.at[edge.target]]
        x = self._x(step) + item.x + self.width_of_box / 2 + way * (ASIDE + LANE * n)
        return (x, HEAD + item.y - 14 - 6 * n), (x, HEAD + item.y)

    def _back(self, n: int, edge: Edge) -> None:
        first, last = self._leave(n, edge, 0, 1), self._enter(n, edge, 0, 1)
        lane = self.end + ROOM + FIRST + LANE * n
        self._through(n, edge, first, lane, last)

    def _through(
        self, n: int, edge: Edge, first: tuple[Point, ...], lane: float, last: tuple[Point, ...]
    ) -> None:
        """Adds a line through a lane, with a label on it; labels of many lanes stand in turn."""
        bottom, top = first[-1][1], last[0][1]
        at = (bottom + top) / 2 + 15 * (n - (len(self.delayed) - 1) / 2)
        name = edge.blob.rpartition("/")[2]
        text = name if self.columns else f"{name}[t{-edge.delay:+d}]"
        points = (*first, (lane, bottom), (lane, top), *last)
        self.lines.append(Line(edge.blob, points, label=(text, lane, at + 4)))

    def _over(self, n: int, edge: Edge, step: int) -> None:
        """Adds the line to a step from the one that it reads, or from a pill."""
        way = 1 if edge.delay > 0 else -1
        source, last = step - edge.delay, self._enter(n, edge, step, -way)
        text = self._before(edge, step)
        if text is not None:
            self._pill(edge, text, last)
            return
        first = self._leave(n, edge, source, way)
        lane = self._x(source) + (self.column if way > 0 else 0) + way * (FIRST + LANE * n)
        self._through(n, edge, first, lane, last)

    def _pill(self, edge: Edge, text: str, last: tuple[Point, ...]) -> None:
        """Adds a line from what stands before the first step, or from steps that are not drawn."""
        y = last[0][1]
        if not text:
            self.lines.append(Line(edge.blob, ((self.width, y), *last)))
            return
        while any(abs(p.y - y) < PILL + 2 for p in self.pills):
            y += 2
        right = self._right(text)
        width = Pill(text, 0, y).width
        x = self.width - RIM - width if right else RIM
        self.pills.append(Pill(text, x, y))
        end = x if right else x + width
        lane = (x - FIRST) if right else self.left - FIRST
        self.lines.append(Line(edge.blob, ((end, y), (lane, y), (lane, last[0][1]), *last)))
