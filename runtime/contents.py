"""The first values of a program's blobs, gathered as if it ran: weights in a program file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runtime.executable import Array, Memory
from schemas.program import Program


class Contents:
    """What is written to a program that has no device."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._arrays: dict[str, Array] = {}

    def write(self, name: str, value: Array | float | int) -> None:
        shape = self.program.tensors[name].shape
        self._arrays[name] = np.broadcast_to(np.asarray(value, "<f4"), shape)

    def filled(self) -> Program:
        """Returns the program with these values; what is zero is so from the start."""
        arrays = {n: a.tobytes() if a.any() else b"" for n, a in self._arrays.items()}
        found = {**self.program.weights, **arrays}
        # In the net's order: that of a file may differ from one reading to the next.
        weights = {name: found[name] for name in self.program.tensors if found.get(name)}
        return replace(self.program, weights=weights)


def put(program: Program, memory: Memory) -> None:
    """Writes the weights of a program that stands alone."""
    for name, content in program.weights.items():
        array = np.frombuffer(content, "<f4").reshape(program.tensors[name].shape)
        memory.write(name, array)
