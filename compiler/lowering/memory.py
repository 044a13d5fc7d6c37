"""Plans memory: which buffers share which bytes of one arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from compiler.kernels.guards import reach
from compiler.kernels.schedule import Buffer, Loop, Place, Schedule
from schemas.program import ARENA, INPUTS, ITEMSIZE, Slot

ALIGN = 256
# A vector load of the last elements may reach past the end of a buffer by less than this.
TAIL = 64


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of a buffer (of the arena, once it is placed), and the launches that they live for."""

    start: int
    end: int
    first: int
    last: int


Blocks = dict[str, list[Block]]  # by buffer, from its start on


@dataclass(frozen=True)
class MemoryPlan:
    """Where every buffer lies, and the slots to allocate."""

    places: dict[str, Place]
    slots: tuple[Slot, ...]
    blocks: Blocks  # what lies in the arena

    @property
    def arena_bytes(self) -> int:
        return next((s.nbytes for s in self.slots if s.name == ARENA), 0)


def nbytes(buffer: Buffer) -> int:
    """Returns a buffer's size in bytes, rounded up so that the next one is aligned."""
    return _aligned(buffer.size * ITEMSIZE[buffer.dtype] + TAIL)


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _lifetimes(schedule: Schedule) -> dict[str, tuple[int, int]]:
    """Returns the first and the last launch that touches each buffer of the arena.

    Inputs live from the start of the step (they are written before it), outputs until its end. A
    part of a buffer lives as long as the whole.
    """
    lives: dict[str, tuple[int, int]] = {}
    written: set[str] = set()
    last = _last(schedule)
    for i, launch in enumerate(schedule.launches):
        for kernel in launch:
            for name in kernel.reads() | kernel.writes():
                whole = schedule.buffers[name].base or name
                first, _ = lives.get(whole, (i, i))
                lives[whole] = (first, i)
                if name in kernel.writes():
                    written.add(whole)
    for name, buffer in schedule.buffers.items():
        if buffer.role == "input":
            lives[name] = (0, lives.get(name, (0, 0))[1])
        elif buffer.role == "output" and buffer.base is None:
            # One that no launch writes is an input that is fetched.
            lives[name] = (lives[name][0] if name in written else 0, last)
    return {n: life for n, life in lives.items() if in_arena(schedule.buffers[n])}


def _last(schedule: Schedule) -> int:
    return max(0, len(schedule.launches) - 1)  # a net of inputs alone has no launch


def in_arena(buffer: Buffer) -> bool:
    return buffer.role in ("input", "inner", "output", "packed")


def _given(schedule: Schedule) -> list[str]:
    """Returns the inputs. An output that no launch writes is one, too: it is fetched."""
    buffers = schedule.buffers
    every = {name for kernel in schedule.kernels() for name in kernel.writes()}
    written = {buffers[name].base or name for name in every}
    return [
        name
        for name, buffer in sorted(buffers.items())
        if buffer.base is None
        and (buffer.role == "input" or (buffer.role == "output" and name not in written))
    ]


def blocks_of(schedule: Schedule, inlet: bool = False) -> Blocks:
    """Returns what the arena's buffers are made of: one block each, of packed ones many."""
    found: Blocks = {}
    given = _given(schedule) if inlet else []
    for name, (first, last) in _lifetimes(schedule).items():
        if name in given:
            continue
        buffer = schedule.buffers[name]
        if buffer.role == "packed":
            found[name] = _parts(schedule, buffer, last)
        else:
            found[name] = [Block(0, nbytes(buffer), first, last)]
    return found


def _parts(schedule: Schedule, buffer: Buffer, last: int) -> list[Block]:
    """Returns a block for each part of a packed buffer that a kernel writes, and for each gap.

    A gap is zeros from step to step: nothing else ever lies there.
    """
    blocks, at = [], 0
    for (start, end), first in sorted(_written(schedule, buffer).items()):
        if at < start:
            blocks.append(_rounded(at, start, 0, _last(schedule)))
        blocks.append(_rounded(start, end, first, last))
        at = max(at, end)
    return [*blocks, _rounded(at, nbytes(buffer), 0, _last(schedule))]


def _written(schedule: Schedule, buffer: Buffer) -> dict[tuple[int, int], int]:
    """Returns the bytes that kernels write of a buffer, (start, end) -> the first launch to."""
    found: dict[tuple[int, int], int] = {}
    size = ITEMSIZE[buffer.dtype]
    for i, launch in enumerate(schedule.launches):
        for kernel in launch:
            for store in (s for one in (kernel, *kernel.joins) for s in one.stores):
                if store.buffer == buffer.name:
                    # What only the whole reads is on no cycle: a loop does not make it.
                    assert not isinstance(launch, Loop), kernel.name
                    low, high = reach(store)
                    found.setdefault((low * size, (high + 1) * size), i)
    return found


def _rounded(start: int, end: int, first: int, last: int) -> Block:
    return Block(start // ALIGN * ALIGN, _aligned(end), first, last)


def plan_memory(schedule: Schedule, inlet: bool = False) -> MemoryPlan:
    """Places the arena's buffers one by one, each at the lowest offset that stays free.

    Of a few orders it takes the one that needs least memory: none is always best. Persistent
    buffers get a slot each, so that the programs of one solver can share them. With an `inlet`,
    all inputs are one slot, in which nothing else ever lies.
    """
    given = _given(schedule) if inlet else []
    blocks = blocks_of(schedule, inlet)
    orders = _orders(blocks, _last(schedule))
    placed = min((_placed(blocks, order) for order in orders), key=_end)
    places = {name: Place(ARENA, placed[name][0].start - blocks[name][0].start) for name in placed}
    slots = [Slot(ARENA, _end(placed), persistent=False)] if placed else []
    at = 0
    for name in given:
        places[name] = Place(INPUTS, at)
        at += nbytes(schedule.buffers[name])
    if given:
        slots.append(Slot(INPUTS, at, persistent=False))
    for name, buffer in sorted(schedule.buffers.items()):
        if buffer.base is not None:
            whole = places[buffer.base]
            places[name] = replace(
                whole, offset=whole.offset + buffer.shift * ITEMSIZE[buffer.dtype]
            )
        elif not in_arena(buffer):
            places[name] = Place(name, 0)
            slots.append(Slot(name, nbytes(buffer), persistent=True))
    return MemoryPlan(places, tuple(slots), placed)


def _orders(blocks: Blocks, last: int) -> list[list[str]]:
    """Returns orders to place buffers in: by size, by length of life, by its end as on a stack.

    By length of life, those at the worst launch come first: they must lie close.
    """
    worst = worst_launch(blocks, last + 1)
    there = {n for n, parts in blocks.items() if any(b.first <= worst <= b.last for b in parts)}
    born = {name: min(b.first for b in parts) for name, parts in blocks.items()}
    dead = {name: max(b.last for b in parts) for name, parts in blocks.items()}
    by_size = sorted(blocks, key=lambda name: (-blocks[name][-1].end, name))
    by_life = sorted(by_size, key=lambda name: (name not in there, born[name] - dead[name]))
    return [by_size, by_life, sorted(by_size, key=lambda name: -dead[name])]


def worst_launch(blocks: Blocks, launches: int) -> int:
    """Returns the first of the launches at which most memory is live."""
    change = [0] * (launches + 1)
    for block in (b for parts in blocks.values() for b in parts):
        change[block.first] += block.end - block.start
        change[block.last + 1] -= block.end - block.start
    live = list(accumulate(change[:-1]))
    return live.index(max(live))


def _placed(blocks: Blocks, order: Sequence[str]) -> Blocks:
    """Returns the blocks where they lie in the arena."""
    placed: Blocks = {}
    taken: list[Block] = []
    for name in order:
        at = _lowest(blocks[name], taken)
        placed[name] = [replace(b, start=at + b.start, end=at + b.end) for b in blocks[name]]
        taken += placed[name]
    return placed


def _lowest(blocks: Sequence[Block], taken: Sequence[Block]) -> int:
    """Returns the lowest offset at which no block lies on bytes that are taken while it lives."""
    barred = sorted(
        (t.start - b.end, t.end - b.start)  # any offset between these two
        for b in blocks
        for t in taken
        if b.first <= t.last and t.first <= b.last
    )
    at = 0
    for low, high in barred:
        if at <= low:
            break
        at = max(at, high)
    return at


def _end(placed: Blocks) -> int:
    return max((b.end for parts in placed.values() for b in parts), default=0)
