"""Tells which kernels are the same but for the names of their buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from compiler.kernel import (
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
from compiler.kernel_text import render


@dataclass(frozen=True, slots=True)
class Shape:
    """Kernels of equal `key` compile to equal code; `buffers` are this kernel's, in its order."""

    key: tuple[str, ...]
    buffers: tuple[str, ...]


def shape_of(kernel: Kernel) -> Shape:
    """Returns the kernel without its own name and the names of its buffers."""
    order: dict[str, str] = {}
    types: list[str] = []
    for s in kernel.body:
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

    bare = replace(renamed(kernel, order), name="", layers=())
    return Shape((render(bare), *types), tuple(order))


def renamed(kernel: Kernel, names: Mapping[str, str]) -> Kernel:
    """Returns the kernel with other names for its buffers, as far as `names` has them."""

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer in names:
            return replace(e, buffer=names[e.buffer])
        return None

    def one(s: Reduce | Store) -> Reduce | Store:
        if isinstance(s, Store):
            name = names.get(s.buffer, s.buffer)
            return replace(s, buffer=name, value=rebuild(s.value, visit))
        payload = rebuild(s.payload, visit) if s.payload is not None else None
        return replace(s, value=rebuild(s.value, visit), payload=payload)

    return replace(kernel, body=tuple(one(s) for s in kernel.body))


def _name(order: dict[str, str], types: list[str], buffer: str, dtype: str) -> None:
    types.append(dtype)
    if buffer not in order:
        order[buffer] = buffer if buffer == SCALAR_BUFFER else f"buffer {len(order)}"
