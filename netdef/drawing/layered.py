"""Layered layout: items in rows, each below what it reads, with few crossings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    ways: list[tuple[float, float, float]] = field(default_factory=list)  # x, top, bottom: a row
    dummies: list[tuple[int, int]] = field(default_factory=list)  # (row, dummy)


def arrange(
    items: Sequence[Item], links: Sequence[Link], gap: tuple[float, float], last: Sequence[int] = ()
) -> tuple[float, float]:
    """Places the items and finds the links' ways; returns width and height.

    `links` stand in the order of their targets, sources first. Items `last` share the last row.
    """
    _rows(items, links, last)
    rows = _order(items, links)
    width, height, places = _place(items, rows, *gap)
    for link in links:
        link.ways = [places[dummy] for _, dummy in link.dummies]
    return width, height


def _rows(items: Sequence[Item], links: Sequence[Link], last: Sequence[int]) -> None:
    """Puts every item below those it reads, and cuts long links into one dummy a row."""
    for link in links:
        items[link.target].row = max(items[link.target].row, items[link.source].row + 1)
    lowest = max((item.row for item in items), default=0)
    for i in last:
        items[i].row = lowest
    dummies: dict[tuple[int, str, int], int] = {}
    for link in links:
        for row in range(items[link.source].row + 1, items[link.target].row):
            key = (link.source, link.key, row)
            link.dummies.append((row, dummies.setdefault(key, len(items) + len(dummies))))


def _order(items: Sequence[Item], links: Sequence[Link]) -> list[list[int]]:
    """Returns the members of each row from left to right, with few crossings (barycentres)."""
    count = 1 + max((item.row for item in items), default=0)
    rows: list[list[int]] = [[] for _ in range(count)]
    for i, item in enumerate(items):
        rows[item.row].append(i)
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for link in links:
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


def _place(
    items: Sequence[Item], rows: Sequence[Sequence[int]], gap_x: float, gap_y: float
) -> tuple[float, float, dict[int, tuple[float, float, float]]]:
    """Gives every item its coordinates; returns width, height and where dummies pass a row."""

    def wide(member: int) -> float:
        return items[member].width if member < len(items) else WAY

    def length(row: Sequence[int]) -> float:
        return sum(map(wide, row)) + gap_x * max(0, len(row) - 1)

    whole = max((length(row) for row in rows), default=0)
    dummies: dict[int, tuple[float, float, float]] = {}
    y = 0.0
    for row in rows:
        x = (whole - length(row)) / 2
        tall = max((items[m].height for m in row if m < len(items)), default=0)
        for member in row:
            if member < len(items):
                items[member].x, items[member].y = x, y
            else:
                dummies[member] = (x + WAY / 2, y, y + tall)
            x += wide(member) + gap_x
        y += tall + gap_y
    return whole, y - gap_y, dummies
