"""Decides how a contraction is tiled: which factor is the vector, rows, sums, cache blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from compiler.kernels.index import Axis, Index, axes_of, substitute
from compiler.kernels.kernel import Guard, Kernel, Load, load_axes, product
from compiler.llvm.host import Host

_NEAR = 256 * 1024  # bytes that stay in the second-level cache beside all else
_PACK = 256 * 1024  # largest copy of a panel, which lies on the stack
_PANEL = 64 * 1024  # a panel's copy where sums are cut: tiles read it from the nearest caches
_USES = 8  # tiles that make a copy worth it
_CROOKED_USES = 3  # the same where its rows begin between vectors, and it is copied once
_FAR_USES = 2  # the same where each of them lies on a page of its own
_FAR = 128  # elements from step to step from which on the scalar factor is asked for ahead
_PAGE = 4096  # bytes that the processor reads ahead in
_APART = 3  # cycles that it takes to choose a row's pointer
_BRIEF = 64  # longest sum that costs no more than to write its results
_LONG = 4096  # longest sum kept in one accumulator
_SCRATCH = 256 * 1024  # bytes of results that wait on the stack for the rest of their sums
_ZEROS = 4096  # most elements of a row that is outside of its guards


@dataclass(frozen=True, slots=True)
class Plan:
    """A tile is `mr` rows by `nv` vectors; its sums run over `sums`, outermost first.

    The scalar factor gives one number a row and step, the vector factor `nv` vectors along `vec`.
    even: there is one row axis and the scalar factor's address grows by `step` from row to row;
    else rows are all points of `rows`, each with an address of its own. From `depth` on, what the
    loops over `sums` still vary no longer decides whether a row's guards hold.
    """

    scalar: Load
    vector: Load
    vec: Axis
    outer: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    even: bool
    sums: tuple[Axis, ...]
    depth: int
    mr: int
    nv: int
    lanes: int
    lead: int  # outermost sums that all tiles of a group walk together, one by one
    chunk: int  # of the sum behind them that a tile takes at a time, 0: there are no blocks
    group: int  # tiles whose results wait while a block is summed
    packed: bool  # a panel is copied to the stack before its tiles
    nr: int = 0  # columns at a time whose lanes run along the sum (llvm/dot.py); 0: they do not

    @property
    def panels_inside(self) -> bool:
        """Tells whether a tile's neighbours are the other columns of its rows."""
        length = math.prod(a.size for a in self.sums)
        return not self.packed and length * self.vec.size * 4 <= _NEAR

    @property
    def blocks(self) -> int:
        """Returns how many parts the sums have."""
        if not self.chunk:
            return 1
        lead = math.prod(a.size for a in self.sums[: self.lead])
        return lead * -(-self.sums[self.lead].size // self.chunk)

    @property
    def row_count(self) -> int:
        return math.prod(a.size for a in self.rows)

    @property
    def row_tiles(self) -> int:
        return -(-self.row_count // self.mr)

    @property
    def width(self) -> int:
        return self.nv * self.lanes

    @property
    def panels(self) -> int:
        return -(-self.vec.size // self.width)

    @property
    def panel(self) -> int:
        """Elements of a panel's copy: of a block of the sums."""
        steps = (self.chunk or self.sums[0].size, *(a.size for a in self.sums[self.lead + 1 :]))
        return math.prod(steps) * self.width

    @property
    def tiles(self) -> int:
        return math.prod(a.size for a in self.outer) * self.row_tiles * self.panels

    @property
    def step(self) -> int:
        return self.scalar.offset.coefficient(self.rows[0]) if self.rows else 0

    @property
    def across(self) -> bool:
        """Tells whether rows are neighbours and steps far apart, which no processor foresees."""
        near = self.even and self.step == 1 and not self.scalar.guards
        return near and bool(self.sums) and self.scalar.offset.coefficient(self.sums[-1]) >= _FAR

    @property
    def zeros(self) -> int:
        return _extent(self.scalar, self.sums[self.depth :])

    @property
    def vector_axes(self) -> set[Axis]:
        return load_axes(self.vector)

    def uneven(self) -> tuple[Guard, ...]:
        """Returns the guards that differ from row to row."""
        return tuple(g for g in self.scalar.guards if set(self.rows) & axes_of(g.index))

    def shared(self) -> tuple[Guard, ...]:
        """Returns the guards that all rows of a tile share."""
        uneven = self.uneven()
        return (*(g for g in self.scalar.guards if g not in uneven), *self.vector.guards)


def plan(kernel: Kernel, host: Host) -> Plan | None:
    """Returns the best plan, None where no factor can be the vector."""
    factors = product(kernel.reduces[0])
    assert factors is not None
    found = [*vectors(kernel, host.lanes)]
    if not found or any(f.guards and f.other != 0 for f in factors):
        return None
    _, scalar, vector, vec = max(found, key=lambda f: f[0])
    return _tiled(kernel, host, scalar, vector, vec)


def vectors(
    kernel: Kernel, lanes: int
) -> Iterable[tuple[tuple[bool, float, int], Load, Load, Axis]]:
    """Yields the ways to load a factor in vectors: (how good it is, scalar, vector, axis)."""
    factors = product(kernel.reduces[0])
    assert factors is not None
    for scalar, vector in (factors, factors[::-1]):
        for axis in kernel.space:
            guarded = any(axis in axes_of(g.index) for g in vector.guards)
            if axis in load_axes(scalar) or guarded or not _plain(vector.offset, axis):
                continue
            if vector.offset.coefficient(axis) == 1:
                store = kernel.stores[0].offset
                side = _plain(store, axis) and store.coefficient(axis) == 1
                filled = axis.size / (-(-axis.size // lanes) * lanes)
                how_good = side, filled if filled < 0.3 else 1.0, axis.size
                yield how_good, scalar, vector, axis


def _plain(i: Index, axis: Axis) -> bool:
    """Tells whether an axis appears in no quotient or remainder."""
    return all(isinstance(a, Axis) or axis not in axes_of(a.of) for a, _ in i.terms)


def axes_alone(kernel: Kernel, load: Load, other: Load) -> list[Axis]:
    """Returns the axes of the space that one factor has and the other has not."""
    own, others = load_axes(load), load_axes(other)
    return [a for a in kernel.space if a in own and a not in others]


def _tiled(kernel: Kernel, host: Host, scalar: Load, vector: Load, vec: Axis) -> Plan:
    alone = axes_alone(kernel, scalar, vector)
    sums = kernel.reduces[0].axes
    even, rows, mr, nv = _rows(scalar, alone, vec, sums, host)
    outer = outer_axes(kernel, vector, vec, rows)
    lead, chunk, group = _blocks(sums, scalar, rows, nv * host.lanes, mr * nv * host.lanes * 4)
    depth = max(lead, guard_depth(scalar, rows, sums))
    made = Plan(
        scalar, vector, vec, outer, rows, even, sums, depth, mr, nv, host.lanes, lead,
        chunk, group, False,
    )  # fmt: skip
    near = replace(made, chunk=_panel_steps(made))
    if _worth_packing(near):
        return replace(near, packed=True)
    return made if made.blocks > 1 else replace(made, chunk=0, group=1)


def outer_axes(kernel: Kernel, vector: Load, vec: Axis, rows: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Returns the axes around a tile: what the vector factor depends on changes least often."""
    used = load_axes(vector)
    outer = (a for a in kernel.space if a is not vec and a not in rows)
    return tuple(sorted(outer, key=lambda a: a not in used))


def _panel_steps(plan: Plan) -> int:
    """Returns how much of the sum that is cut a panel holds, 0 if none is."""
    rest = math.prod(a.size for a in plan.sums[plan.lead + 1 :])
    return max(1, min(plan.chunk, _PANEL // (4 * rest * plan.width))) if plan.chunk else 0


def may_pack(plan: Plan) -> bool:
    """Tells whether a panel can be copied, and its copy has room."""
    return bool(plan.sums) and not plan.vector.guards and plan.panel * 4 <= _PACK


def _worth_packing(plan: Plan) -> bool:
    """Tells whether rows of the vector factor lie badly and are used often enough to copy them."""
    if not may_pack(plan):
        return False
    if plan.panels > 1 and plan.panels_inside and math.prod(a.size for a in plan.sums) <= _BRIEF:
        return False  # rows of results are written whole, one after the other
    uses = plan.row_tiles * math.prod(a.size for a in plan.outer if a not in plan.vector_axes)
    uses = min(uses, plan.group) if plan.chunk else uses
    steps = [plan.vector.offset.coefficient(a) for a in plan.sums]
    crooked = any(s % plan.lanes for s in (*steps, plan.vector.offset.const))
    if steps[-1] * 4 > _PAGE // 2:
        return uses >= _FAR_USES
    if crooked and not plan.chunk:
        return uses >= _CROOKED_USES
    return uses >= _USES and (crooked or steps[-1] > 4 * plan.width)


def _rows(
    scalar: Load, alone: list[Axis], vec: Axis, sums: tuple[Axis, ...], host: Host
) -> tuple[bool, tuple[Axis, ...], int, int]:
    """Chooses the row axes and the tile: (even, rows, mr, nv)."""
    choices = []
    for rows in row_choices(scalar, alone, sums, host):
        cycles, mr, nv = min(tiles(rows, vec.size, host))
        choices.append((cycles * rows.weight, rows, mr, nv))
    best = min(c[0] for c in choices)
    # Among nearly equal ones the innermost axis: its rows lie closest to each other.
    near = [c for c in choices if c[0] <= 1.08 * best]
    evens = [c for c in near if c[1].even]
    _, rows, mr, nv = evens[-1] if evens else near[0]
    return rows.even, rows.axes, mr, nv


@dataclass(frozen=True, slots=True)
class Rows:
    """What may be the rows of a tile: at most `most` of the points of `axes`.

    `apart`: cycles of a step for each row of a tile at an end of the axis, where guards let some
    rows in and others not, so that each has a pointer that is made anew.
    """

    axes: tuple[Axis, ...]
    even: bool
    most: int
    weight: float  # by what a tile's cycles are multiplied to compare them with those of others
    apart: float = 0.0

    @property
    def count(self) -> int:
        return math.prod(a.size for a in self.axes)


def row_choices(
    scalar: Load, alone: list[Axis], sums: tuple[Axis, ...], host: Host
) -> Iterable[Rows]:
    """Yields the axes that may be rows, `alone` being those that the scalar factor alone has."""
    indices = (scalar.offset, *(g.index for g in scalar.guards))
    for axis in alone:
        if all(_plain(i, axis) for i in indices):
            cost = _far(scalar.offset.coefficient(axis)) / _filled(scalar, [axis])
            guarded = any(axis in axes_of(g.index) for g in scalar.guards)
            depth = guard_depth(scalar, (axis,), sums)
            apart = _APART / math.prod(a.size for a in sums[depth:]) if guarded else 0.0
            yield Rows((axis,), True, 30, cost / axis.size, apart)
    if alone:
        # Separate addresses cost registers and instructions.
        cost = 1.15 / _filled(scalar, alone)
        yield Rows(tuple(alone), False, host.pointers, cost / math.prod(a.size for a in alone))
    else:
        yield Rows((), True, 1, 1.0)


def _far(step: int) -> float:
    """What it costs that rows lie on pages of their own."""
    return 1.1 if step >= 1024 else 1.0


def _filled(scalar: Load, rows: Iterable[Axis]) -> float:
    """Returns the share of (row, step) pairs inside of the guards: others are summed as zeros."""
    share = 1.0
    for guard in scalar.guards:
        axes = sorted(axes_of(guard.index), key=str)
        points = math.prod(a.size for a in axes)
        if set(rows) & set(axes) and points <= 4096:
            every = itertools.product(*(range(a.size) for a in axes))
            at = (substitute(guard.index, _fixed(axes, p)).const for p in every)
            share *= max(1, sum(guard.low <= i < guard.high for i in at)) / points
    return share


def _fixed(axes: Iterable[Axis], point: Iterable[int]) -> dict[Axis, Index]:
    return {a: Index(i) for a, i in zip(axes, point, strict=True)}


def tiles(rows: Rows, columns: int, host: Host) -> Iterable[tuple[float, int, int]]:
    """Yields register tiles as (cycles for one step of all sums, mr, nv)."""
    vectors, count = -(-columns // host.lanes), rows.count
    for nv in range(1, min(vectors, 8) + 1):
        panels = -(-vectors // nv)
        for mr in dict.fromkeys(-(-count // -(-count // r)) for r in range(1, rows.most + 1)):
            if mr * nv + nv + 1 > host.registers:
                break
            along = -(-count // mr)
            # Two multiplications a cycle; a sum is four cycles old when used again. What loads
            # cost besides was measured (Ice Lake).
            cycles = along * (max(mr * nv / 2, 4) + 0.5 * mr + 0.4 * nv + 1)
            yield panels * (cycles + min(2, along) * mr * rows.apart), mr, nv


def guard_depth(scalar: Load, rows: tuple[Axis, ...], sums: tuple[Axis, ...]) -> int:
    """Returns how many sum axes the rows' guards, and addresses that do not split, depend on."""
    deciding: set[Axis] = set()
    for guard in scalar.guards:
        if set(rows) & axes_of(guard.index):
            deciding |= axes_of(guard.index)
    mixed = not splits(scalar.offset, rows, sums)
    for atom, _ in scalar.offset.terms:
        if mixed and not isinstance(atom, Axis):
            deciding |= axes_of(atom.of)
    depth = max((n + 1 for n, a in enumerate(sums) if a in deciding), default=0)
    inner = sums[depth:]
    if deciding and (
        _extent(scalar, inner) > _ZEROS or any(scalar.offset.coefficient(a) < 0 for a in inner)
    ):
        return len(sums)
    return depth


def _extent(load: Load, axes: Iterable[Axis]) -> int:
    return 1 + sum((a.size - 1) * load.offset.coefficient(a) for a in axes)


def splits(offset: Index, rows: Iterable[Axis], sums: Iterable[Axis]) -> bool:
    """Tells whether an address is a part of the rows plus a part of the sums."""
    rows, sums = set(rows), set(sums)
    atoms = [axes_of(a.of) for a, _ in offset.terms if not isinstance(a, Axis)]
    return not any(used & rows and used & sums for used in atoms)


def without(i: Index, axes: Iterable[Axis]) -> Index:
    """Returns the index where the axes are 0."""
    return substitute(i, {a: Index(0) for a in axes})


def _blocks(
    sums: tuple[Axis, ...], scalar: Load, rows: tuple[Axis, ...], width: int, tile: int
) -> tuple[int, int, int]:
    """Returns (lead, chunk, group) of a plan: how sums are cut, and how many tiles share a part."""
    length = math.prod(a.size for a in sums)
    if length <= _LONG and length * 4 * width <= _NEAR:
        return 0, 0, 1
    if any(scalar.offset.coefficient(a) == 1 for a in rows):
        # A step reads numbers of all rows, side by side, of which a tile needs a few: what all
        # tiles of a group read must stay near.
        steps = _NEAR // 2 // (4 * (width + max(16, math.prod(a.size for a in rows))))
    else:
        # A tile alone reads its rows, a cache line of one at a time.
        steps = int(1.5 * _NEAR) // (4 * (width + 16))
    steps = max(128, min(_LONG // 2, steps))
    lead, rest = 0, length // sums[0].size
    while rest > 2 * steps and lead + 1 < len(sums):
        lead += 1
        rest //= sums[lead].size
    chunk = min(sums[lead].size, max(1, steps // rest))
    return lead, chunk, max(1, _SCRATCH // tile)
