"""A compiled kernel's text: the function, its buffers in order, and how many tiles it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compiler.kernel import SCALAR_BUFFER, Kernel
from compiler.llvm.builder import Builder

NAME = "NAME"  # stands for the function's name until the kernel has one


@dataclass(frozen=True, slots=True)
class Piece:
    """Equal texts are one function, whatever buffers and layers their kernels are of."""

    text: str
    buffers: tuple[str, ...]
    tiles: int
    extras: frozenset[str]  # declarations and constants


def pointers_of(kernel: Kernel) -> dict[str, str]:
    """Returns a parameter name for each buffer, in order of appearance."""
    names = [load.buffer for load in kernel.loads()] + [s.buffer for s in kernel.stores]
    if SCALAR_BUFFER in kernel.reads():
        names.append(SCALAR_BUFFER)
    return {name: f"%p{n}" for n, name in enumerate(dict.fromkeys(names))}


def finish(b: Builder, pointers: Mapping[str, str], tiles: int) -> Piece:
    params = ", ".join([*(f"ptr {p}" for p in pointers.values()), "i64 %lo", "i64 %hi"])
    extras = frozenset(b.declares | b.globals)
    return Piece(b.function(NAME, params), tuple(pointers), tiles, extras)
