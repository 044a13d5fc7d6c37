"""A compiled kernel's text: the function, its buffers in order, and how many tiles it has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from compiler.kernels.kernel import SCALAR_BUFFER, Kernel
from compiler.llvm.builder import Builder

NAME = "NAME"  # stands for the function's name until the kernel has one


@dataclass(frozen=True, slots=True)
class Piece:
    """Equal texts are one function, whatever buffers and layers their kernels are of."""

    text: str
    buffers: tuple[str, ...]
    tiles: int
    extras: frozenset[str]  # declarations and constants

    @property
    def symbol(self) -> str:
        """The function's name: it follows from the text, so that object code can be kept."""
        return f"k{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"

    @property
    def parameters(self) -> str:
        return ", ".join(["ptr"] * len(self.buffers) + ["i64", "i64"])

    def module(self) -> str:
        """Returns the function as a module of its own, called from others by its symbol."""
        function = self.text.replace(
            f"define internal void @{NAME}(", f"define void @{self.symbol}(", 1
        )
        return "\n".join([*sorted(self.extras), function])


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
