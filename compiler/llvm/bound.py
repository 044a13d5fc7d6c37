"""Kernels that differ only in the memory they touch are one kernel, compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from compiler.kernels.index import Index
from compiler.kernels.kernel import (
    SCALAR_BUFFER,
    Expr,
    Kernel,
    Load,
    Reduce,
    Statement,
    Store,
    rebuild,
)
from schemas.program import ITEMSIZE


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a numbered buffer of a bound kernel begins: bytes behind the start of a buffer."""

    buffer: str
    offset: int

    def __str__(self) -> str:
        return f"{self.buffer}+{self.offset}" if self.offset else self.buffer


@dataclass(frozen=True, slots=True)
class Bound:
    """A kernel without names, over buffers `0`, `1` ..., and what they are in one use of it."""

    kernel: Kernel
    memory: Mapping[str, Memory]


def bound(kernel: Kernel) -> Bound:
    """Separates what a kernel computes from where its operands lie.

    All weights lie in one arena, so the same layer twice reads the same buffer at two places. A
    numbered buffer therefore begins at the least constant offset that the kernel has for it.
    """
    first: dict[str, tuple[int, int]] = {}  # the offset in elements, and the size of one
    parts: list[Load | Store] = [*kernel.loads(), *kernel.stores]
    for part in parts:
        here = part.offset.const, ITEMSIZE[part.dtype]
        first[part.buffer] = min(first.get(part.buffer, here), here)
    first.pop(SCALAR_BUFFER, None)  # a small block whose words have fixed places
    numbers = {buffer: str(n) for n, buffer in enumerate(first)}
    memory = {numbers[b]: Memory(b, at * size) for b, (at, size) in first.items()}
    memory[SCALAR_BUFFER] = Memory(SCALAR_BUFFER, 0)
    starts = {buffer: (numbers[buffer], at) for buffer, (at, _) in first.items()}
    body = tuple(_moved(s, starts) for s in kernel.body)
    return Bound(Kernel("", kernel.space, body), memory)


def _moved(s: Statement, starts: Mapping[str, tuple[str, int]]) -> Statement:
    def place(buffer: str, offset: Index) -> tuple[str, Index]:
        number, start = starts.get(buffer, (buffer, 0))
        return number, Index(offset.const - start, offset.terms)

    def visit(e: Expr) -> Expr | None:
        if not isinstance(e, Load):
            return None
        return Load(*place(e.buffer, e.offset), e.dtype, e.guards, e.other)

    value = rebuild(s.value, visit)
    if isinstance(s, Reduce):
        payload = rebuild(s.payload, visit) if s.payload is not None else None
        return replace(s, value=value, payload=payload)
    buffer, offset = place(s.buffer, s.offset)
    return replace(s, buffer=buffer, offset=offset, value=value)
