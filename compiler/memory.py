"""Plans memory: which buffers share which bytes of one arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from compiler.schedule import Buffer, Place, Schedule
from schemas.program import ITEMSIZE, Slot

ALIGN = 256
# A vector load of the last elements may reach past the end of a buffer by less than this.
TAIL = 64
ARENA = "arena"


@dataclass(frozen=True)
class MemoryPlan:
    """Where every buffer lies, and the slots to allocate."""

    places: dict[str, Place]
    slots: tuple[Slot, ...]
    lives: dict[str, tuple[int, int]]  # inner buffers: first and last launch

    @property
    def arena_bytes(self) -> int:
        return next((s.nbytes for s in self.slots if s.name == ARENA), 0)


def nbytes(buffer: Buffer) -> int:
    """Returns a buffer's size in bytes, rounded up so that the next one is aligned."""
    return -(-(buffer.size * ITEMSIZE[buffer.dtype] + TAIL) // ALIGN) * ALIGN


def lifetimes(schedule: Schedule) -> dict[str, tuple[int, int]]:
    """Returns the first and the last launch that touches each buffer of the arena.

    Inputs live from the start of the step (they are written before it), outputs until its end. A
    part of a buffer lives as long as the whole.
    """
    lives: dict[str, tuple[int, int]] = {}
    written: set[str] = set()
    last = max(0, len(schedule.launches) - 1)  # a net of inputs alone has no launch
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


def in_arena(buffer: Buffer) -> bool:
    return buffer.role in ("input", "inner", "output")


def plan_memory(schedule: Schedule) -> MemoryPlan:
    """Places the arena's buffers, largest first, each at the lowest offset that stays free.

    Persistent buffers get a slot each, so that the programs of one solver can share them.
    """
    lives = lifetimes(schedule)
    places: dict[str, Place] = {}
    taken: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    peak = 0
    for name in sorted(lives, key=lambda n: (-nbytes(schedule.buffers[n]), n)):
        first, last = lives[name]
        size = nbytes(schedule.buffers[name])
        clash = sorted(t for t in taken if t[2] <= last and first <= t[3])
        at = _lowest_gap(clash, size)
        taken.append((at, at + size, first, last))
        places[name] = Place(ARENA, at)
        peak = max(peak, at + size)
    slots = [Slot(ARENA, peak, persistent=False)] if peak else []
    for name, buffer in sorted(schedule.buffers.items()):
        if buffer.base is not None:
            whole = places[buffer.base]
            places[name] = replace(
                whole, offset=whole.offset + buffer.shift * ITEMSIZE[buffer.dtype]
            )
        elif not in_arena(buffer):
            places[name] = Place(name, 0)
            slots.append(Slot(name, nbytes(buffer), persistent=True))
    return MemoryPlan(places, tuple(slots), lives)


def _lowest_gap(clash: Sequence[tuple[int, int, int, int]], size: int) -> int:
    at = 0
    for offset, end, _, _ in clash:
        if offset - at >= size:
            break
        at = max(at, end)
    return at
