"""Buffers, loops and launches: what fusion hands to memory planning and to the backends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from compiler.kernels.kernel import Kernel
from schemas.program import ITEMSIZE, Dtype, Repeat, Role


@dataclass(frozen=True, slots=True)
class Buffer:
    """A block of memory that kernels address by element offset.

    `role` inner buffers live from their first writer to their last reader and share one arena;
    so do packed ones, but each part of them from its own first writer on, and what no kernel writes
    stays the zeros that it starts as. All others are persistent or belong to the outside. One with
    a `base` is a part of another buffer, `shift` elements behind its start: a sequence within one
    that has the steps before it.
    """

    name: str
    dtype: Dtype
    size: int  # elements
    role: Role
    base: str | None = None
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """Kernels that go through time together: all of them once a step, `count` steps.

    The kernels are those of step 0. In step t, each pointer of a kernel stands
    `t * moves[kernel name][buffer]` elements further on (0 where there is none). The steps run from
    0 up, or down to 0 if `backwards`. `bases` are the buffers that the loop writes by their parts.
    """

    name: str
    count: int
    backwards: bool
    kernels: tuple[Kernel, ...]
    bases: frozenset[str]
    moves: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rows: tuple[tuple[Kernel, ...], ...] = ()  # kernels grouped: what runs at the same time

    @property
    def kind(self) -> str:
        return "loop"

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for k in self.kernels for layer in k.layers))

    def reads(self) -> set[str]:
        """Returns what its kernels read, also where they write it: others may write a part."""
        return set().union(*(k.reads() for k in self.kernels))

    def writes(self) -> set[str]:
        return set(self.bases).union(*(k.writes() for k in self.kernels))

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self.kernels)


Work = Kernel | Loop
Launch = tuple[Kernel, ...] | Loop


def repeat_of(launch: Launch) -> Repeat | None:
    """Returns what a Program says of a loop, None for any other launch."""
    if isinstance(launch, Loop):
        return Repeat(launch.name, launch.count, launch.backwards)
    return None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Kernels in launch order; kernels of one launch do not depend on each other.

    A launch that is a Loop repeats its own launches, `Loop.rows`, once a time step.
    """

    launches: tuple[Launch, ...]
    buffers: dict[str, Buffer]

    def kernels(self) -> list[Kernel]:
        return [k for launch in self.launches for k in launch]

    def byte_moves(self, launch: Launch, kernel: Kernel) -> dict[str, int]:
        """Returns how many bytes a kernel's pointers are further on in each step of its loop."""
        if not isinstance(launch, Loop):
            return {}
        moves = launch.moves.get(kernel.name, {})
        return {b: by * ITEMSIZE[self.buffers[b].dtype] for b, by in moves.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the memory plan puts a buffer: byte offset in a slot."""

    slot: str
    offset: int
