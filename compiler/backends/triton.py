"""Triton backend: readable source, compiled ahead of time for NVIDIA and AMD GPUs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from importlib import metadata

from compiler.backends import Compiled
from compiler.kernels.kernel import Kernel
from compiler.kernels.schedule import Launch, Loop, Place, Schedule
from compiler.lowering.traits import Traits
from compiler.tilings import Tilings, Tunable, known
from compiler.triton_source.build import Build, divide, programs_for
from compiler.triton_source.contract import tunable
from compiler.triton_source.function import Function, module
from compiler.triton_source.render import render_kernel
from compiler.triton_source.tiles import TARGETS, target_named
from schemas.errors import PrecisionError, UsageError, did_you_mean
from schemas.precision import Precision


class Backend:
    """Compiles for `target` sm_80, sm_90 (default), other sm_ or gfx942; needs Triton, but no GPU.

    Target `interpreter` makes source only, which Triton's interpreter runs on NumPy memory.
    precision: `fp32` multiplies exactly; `tf32`, the default for NVIDIA, rounds the factors of
    products to 10 bits of mantissa and runs on tensor cores; so does `bf16`, to 7 bits, where
    activations and their gradients are stored as bf16 as well (compiler/lowering/narrow.py).
    persistent: whether a loop over time may be one launch, whose programs wait for each other.
    The interpreter has one program at a time, so that loops are step by step there unless asked.
    """

    name = "triton"

    def __init__(
        self,
        target: str | None = None,
        precision: Precision | None = None,
        binary: bool = True,
        persistent: bool | None = None,
    ) -> None:
        self.target = target or "sm_90"
        found = target_named(self.target)
        if found is None:
            hint = did_you_mean(self.target, TARGETS)
            raise UsageError(f"the triton backend has no target '{self.target}'", hint=hint)
        self._target = found
        if precision is not None and precision not in found.precisions:
            able = " or ".join(found.precisions)
            message = f"the triton backend computes in {able} on {self.target}, not in {precision}"
            raise PrecisionError(message, hint=f"use --precision {found.precisions[0]}")
        self.precision: Precision = precision or found.precisions[0]
        # Two blocks a processor keep it busy while one of them waits for memory.
        parallel = 2 * found.processors if self.target != "interpreter" else 1
        narrow = self.precision == "bf16"
        # A number that is normalised on its way to a product takes a processor 0.07 to 0.11 cycles
        # more (counted in the nets' kernels on an emulated H100): as long as a byte from memory. To
        # store it takes a write and a read.
        readings = 2 * (2 if narrow else 4)
        self.traits = Traits(
            tile=(64, 64),
            parallel=parallel,
            last_adds=True,
            processors=found.processors,
            narrow=narrow,
            wide_epilogues=True,
            siblings=True,
            concats=True,
            prologue=8,
            readings=readings,
            planar=4,  # pictures, also with alpha: wider loads would not pay for turning them
            inlet=True,
            rows=(128, 64),
        )
        self.tilings = known(self.target)
        self.binary = binary and self.target != "interpreter"
        self.persistent = self.target != "interpreter" if persistent is None else persistent

    def version(self) -> str:
        try:
            triton = metadata.version("triton")
        except metadata.PackageNotFoundError:  # `compile` says so
            triton = ""
        # Triton's own switches: another ptxas, debugging.
        switches = sorted(item for item in os.environ.items() if item[0].startswith("TRITON_"))
        return f"{triton} {self.binary} {self.persistent} {switches} {self.tilings.digest}"

    def tuned(self, tilings: Tilings) -> Backend:
        """Returns this backend with another table of tilings."""
        made = copy(self)
        made.tilings = tilings
        return made

    def tunable(self, kernel: Kernel) -> Tunable | None:
        if kernel.loop and self.persistent:  # one launch, whose kernels have no times of their own
            return None
        return tunable(kernel, self._target, self.precision)

    def _rendered(self, kernel: Kernel) -> Function:
        return render_kernel(kernel, self._target, self.precision, tilings=self.tilings)

    def render(self, kernel: Kernel) -> str:
        waits = self.binary and self._target.overlaps
        return module([self._rendered(kernel)], kernel.name, waits=waits).source

    def note(self, launch: Launch) -> str:
        if not isinstance(launch, Loop):
            return "" if launch[0].call is not None else self._groups_note(launch)
        if not self.persistent:
            return "the launches of a step are repeated"
        rows = [[self._rendered(k) for k in row] for row in launch.rows]
        found = programs_for(rows, self._target)
        if isinstance(found, str):
            return f"the launches of a step are repeated: {found}"
        return f"one launch: {found} programs go through all steps and wait for each other"

    def _groups_note(self, kernels: Sequence[Kernel]) -> str:
        groups = divide([self._rendered(k) for k in kernels], self._target.processors)
        if len(groups) == 1:
            return ""
        names = " | ".join(", ".join(kernels[i].name for i in group) for group in groups)
        why = "beside each other their many blocks would run slower than alone"
        return f"{len(groups)} launches: {names}: {why}"

    def compile(
        self, name: str, schedule: Schedule, places: Mapping[str, Place], slots: tuple[str, ...]
    ) -> Compiled:
        how = self._target, self.precision, self.binary, self.persistent, self.tilings
        return Build(places, *how).run(schedule)
