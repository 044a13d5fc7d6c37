"""Scalars: the numbers that change from step to step, written before each run."""

from __future__ import annotations

import math

from runtime.executable import Executable
from schemas.solver import SolverSpec

NAMES = ("lr", "iteration", "seed_lo", "seed_hi", "first", "rate_scale")


class Scalars:
    """Writes those of NAMES that a program has.

    `iteration` is the random counter, which differs between the passes of one iteration:
    iteration * iter_size + part. `first` is 1 for the pass that begins an accumulation.
    `rate_scale` is Adam's sqrt(1 - b2^t) / (1 - b1^t) with t = iteration + 1.
    """

    def __init__(self, exe: Executable, spec: SolverSpec, seed: int) -> None:
        tensors = exe.program.tensors
        self.exe = exe
        self.spec = spec
        self.seed = seed
        self._has = {n for n in NAMES if n in tensors and tensors[n].role == "scalar"}
        self._words = {n for n in self._has if tensors[n].dtype == "i32"}

    def write(self, iteration: int, rate: float, part: int, parts: int | None = None) -> None:
        """Writes the scalars of pass `part` of `parts` (if not given: of `iter_size`)."""
        counter = iteration * (parts or self.spec.iter_size) + part
        self._write("lr", rate)
        self._write("iteration", counter)
        self._write("seed_lo", self.seed & 0xFFFFFFFF)
        self._write("seed_hi", self.seed >> 32)
        self._write("first", 1.0 if part == 0 else 0.0)
        if "rate_scale" in self._has:
            self._write("rate_scale", adam_scale(self.spec, iteration))

    def _write(self, name: str, value: float) -> None:
        if name not in self._has:
            return
        if name in self._words:  # the 32 bits of an unsigned word, as a signed number
            word = int(value) & 0xFFFFFFFF
            value = word - (1 << 32) if word >> 31 else word
        self.exe.write(name, value)


def adam_scale(spec: SolverSpec, iteration: int) -> float:
    """Returns sqrt(1 - b2^t) / (1 - b1^t), t = iteration + 1 (Kingma and Ba, 2015, section 2)."""
    t = iteration + 1
    return math.sqrt(1 - spec.momentum2**t) / (1 - spec.momentum**t)
