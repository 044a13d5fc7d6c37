"""Layered layout: items in rows, each below what it reads, with few crossings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

SWEEPS = 12
WAY = 14.0  # room that a link takes where it passes a row


@dataclass
class Item:
    """A box of some size; `row`, `x` and `y` (left upper corner) are found here."""

    width: float
    height: float
    row: int = 0
    x: float = 0.0
    y: float = 0.0


@dataclass
class Link:
    """From one item down to another; `leaves` and `enters` are places on them, from the left.

    Links of one source and key share their way: a label that is read in many places is one line.
    """

    source: int
    target: int
    key: str
    leaves: float
    enters: float
    side: bool = False  # a label: where it passes rows, it does so beside all of them
    ways: list[tuple[float, float, float]] = field(default_factory=list)  # x, top, bottom: a row
    dummies: list[tuple[int, int]] = field(default_factory=list)  # (row, dummy)
    lane: int = 0  # beside the rows, from 1; 0: the link goes through them


def arrange(
    items: Sequence[Item], links: Sequence[Link], gap: tuple[float, float], last: Sequence[int] = ()
) -> tuple[float, float]:
    """Places the items and finds the links' ways; returns width and height.

    `links` stand in the order of their targets, sources first. Items `last` share the last row.
    """
    _rows(items, links, last)
    rows, above, below = _order(items, links)
    x, width = _place(items, rows, above, below, gap[0])
    lanes = max((link.lane for link in links), default=0)
    width += gap[0] + WAY * lanes if lanes else 0
    y, ends = 0.0, []
    for row in rows:
        tall = max((items[m].height for m in row if m < len(items)), default=0)
        for member in row:
            if member < len(items):
                items[member].x, items[member].y = x[member] - items[member].width / 2, y
        ends.append((y, y + tall))
        y += tall + gap[1]
    for link in links:
        link.ways = [(x[dummy], *ends[row]) for row, dummy in link.dummies]
        if link.lane:
            first, final = items[link.source].row + 1, items[link.target].row - 1
            link.ways = [(width - WAY * (link.lane - 0.5), ends[first][0], ends[final][1])]
    return width, y - gap[1]


def _rows(items: Sequence[Item], links: Sequence[Link], last: Sequence[int]) -> None:
    """Puts every item below those it reads, and cuts long links into one dummy a row.

    Labels that pass rows have a lane beside all of them, so that they bend no other link.
    """
    for link in links:
        items[link.target].row = max(items[link.target].row, items[link.source].row + 1)
    lowest = max((item.row for item in items), default=0)
    for i in last:
        items[i].row = lowest
    dummies: dict[tuple[int, str, int], int] = {}
    lanes: dict[tuple[int, str], int] = {}
    for link in links:
        if link.side and items[link.target].row > items[link.source].row + 1:
            link.lane = lanes.setdefault((link.source, link.key), len(lanes) + 1)
            continue
        for row in range(items[link.source].row + 1, items[link.target].row):
            key = (link.source, link.key, row)
            link.dummies.append((row, dummies.setdefault(key, len(items) + len(dummies))))


Near = Mapping[int, Sequence[int]]  # item or dummy -> those it is tied to in the next row


def _order(
    items: Sequence[Item], links: Sequence[Link]
) -> tuple[list[list[int]], dict[int, list[int]], dict[int, list[int]]]:
    """Returns the members of each row from left to right, with few crossings (barycentres).

    And what each member is tied to in the row above and in the row below.
    """
    count = 1 + max((item.row for item in items), default=0)
    rows: list[list[int]] = [[] for _ in range(count)]
    for i, item in enumerate(items):
        rows[item.row].append(i)
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for link in (link for link in links if not link.lane):
        chain = [link.source, *(dummy for _, dummy in link.dummies), link.target]
        for row, dummy in link.dummies:
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


def _place(
    items: Sequence[Item], rows: Sequence[Sequence[int]], above: Near, below: Near, gap: float
) -> tuple[dict[int, float], float]:
    """Returns the middle of every member, links as straight as may be, and the whole width."""
    wide = {m: items[m].width if m < len(items) else WAY for row in rows for m in row}
    x: dict[int, float] = {}
    for row in rows:
        for i, member in enumerate(row):
            x[member] = (i - (len(row) - 1) / 2) * (wide[member] + gap)
    for sweep in range(SWEEPS + 1):  # the last one is down: what follows one item is below it
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = above if down else below
            wanted = [_wanted(m, near.get(m, ()), x) for m in row]
            x.update(zip(row, spread(wanted, [wide[m] for m in row], gap), strict=True))
    left = min((x[m] - wide[m] / 2 for m in x), default=0)
    right = max((x[m] + wide[m] / 2 for m in x), default=0)
    return {m: at - left for m, at in x.items()}, right - left


def _wanted(member: int, near: Sequence[int], x: Mapping[int, float]) -> float:
    """Returns the middle of a member's neighbours in the next row; its own place if it has none."""
    return median(x[n] for n in near) if near else x[member]


def spread(wanted: Sequence[float], wide: Sequence[float], gap: float) -> list[float]:
    """Returns the places nearest to the wanted ones, by least squares, with gaps between them.

    Neighbours that would come too close form a group, which lies where its members want it on
    average (pool adjacent violators).
    """
    offsets: list[float] = []
    for i, width in enumerate(wide):
        offsets.append(offsets[-1] + (wide[i - 1] + width) / 2 + gap if i else 0.0)
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
