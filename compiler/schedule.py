"""Buffers and launches: what fusion hands to memory planning and to the backends."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.kernel import Kernel
from schemas.program import Dtype, Role


@dataclass(frozen=True, slots=True)
class Buffer:
    """A block of memory that kernels address by element offset.

    `role` inner buffers live from their first writer to their last reader and share one arena;
    all others are persistent or belong to the outside.
    """

    name: str
    dtype: Dtype
    size: int  # elements
    role: Role


@dataclass(frozen=True, slots=True)
class Schedule:
    """Kernels in launch order; kernels of one launch do not depend on each other."""

    launches: tuple[tuple[Kernel, ...], ...]
    buffers: dict[str, Buffer]

    def kernels(self) -> list[Kernel]:
        return [k for launch in self.launches for k in launch]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the memory plan puts a buffer: byte offset in a slot."""

    slot: str
    offset: int
