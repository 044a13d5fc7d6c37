"""Tells which kernels are the same but for where their operands lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from compiler.kernels.index import Index, bounds
from compiler.kernels.kernel import (
    SCALAR_BUFFER,
    Const,
    Expr,
    Kernel,
    Load,
    Random,
    Reduce,
    Store,
    rebuild,
    values,
    walk,
)
from compiler.kernels.kernel_text import render
from schemas.program import ITEMSIZE

ALIGNMENT = 16  # bytes; a pointer that is a multiple of it is read in whole vectors


@dataclass(frozen=True, slots=True)
class Shape:
    """Kernels of equal `key` compile to equal code; `buffers` are this kernel's, in its order."""

    key: tuple[str, ...]
    buffers: tuple[str, ...]


def shape_of(kernel: Kernel) -> Shape:
    """Returns the kernel without its own name and the names of its buffers."""
    order: dict[str, str] = {}
    types: list[str] = []
    for s in (s for one in (kernel, *kernel.joins) for s in one.body):
        for v in values(s):
            for e in walk(v):
                if isinstance(e, Load):
                    _name(order, types, e.buffer, e.dtype)
                elif isinstance(e, Const):
                    types.append(e.dtype)
                elif isinstance(e, Random):
                    _name(order, types, SCALAR_BUFFER, "f32")
        if isinstance(s, Store):
            _name(order, types, s.buffer, s.dtype)
        else:
            types.append(s.dtype)
    if kernel.parts is not None:
        _name(order, types, kernel.parts.buffer, "f32")
    bare = replace(renamed(kernel, order, starts(kernel)), name="", layers=())
    return Shape((render(bare), *types), tuple(order))


def starts(kernel: Kernel) -> dict[str, int]:
    """Returns the element of each buffer before which the kernel touches none.

    All weights lie in one arena, so equal layers read one buffer at different places. A start is a
    multiple of ALIGNMENT bytes: a pointer to it is as aligned as one to the buffer.
    """
    first: dict[str, int] = {}
    for part in kernel.accesses():
        start = max(0, bounds(part.offset)[0])
        start -= start % (ALIGNMENT // ITEMSIZE[part.dtype])
        first[part.buffer] = min(first.get(part.buffer, start), start)
    first.pop(SCALAR_BUFFER, None)  # a small block whose words have fixed places
    return first


def renamed(kernel: Kernel, names: Mapping[str, str], starts: Mapping[str, int]) -> Kernel:
    """Returns the kernel with other names for its buffers, which begin at `starts`."""

    def place(part: Load | Store) -> tuple[str, Index]:
        return names.get(part.buffer, part.buffer), part.offset - starts.get(part.buffer, 0)

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer in names:
            buffer, offset = place(e)
            return replace(e, buffer=buffer, offset=offset)
        return None

    def one(s: Reduce | Store) -> Reduce | Store:
        if isinstance(s, Store):
            buffer, offset = place(s)
            return replace(s, buffer=buffer, offset=offset, value=rebuild(s.value, visit))
        payload = rebuild(s.payload, visit) if s.payload is not None else None
        return replace(s, value=rebuild(s.value, visit), payload=payload)

    parts = kernel.parts
    if parts is not None:
        parts = replace(parts, buffer=names.get(parts.buffer, parts.buffer))
    joins = tuple(renamed(join, names, starts) for join in kernel.joins)
    return replace(kernel, body=tuple(one(s) for s in kernel.body), parts=parts, joins=joins)


def _name(order: dict[str, str], types: list[str], buffer: str, dtype: str) -> None:
    types.append(dtype)
    if buffer not in order:
        order[buffer] = buffer if buffer == SCALAR_BUFFER else f"buffer {len(order)}"
