"""The cpu backend: LLVM IR, compiled to one native step function."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.backends import Compiled
from compiler.cache import Cache, default_folder
from compiler.llvm.host import Host, find_host
from compiler.llvm.machine import version
from compiler.lowering.traits import Traits
from compiler.tilings import Tilings, known
from schemas.errors import PrecisionError
from schemas.precision import Precision

if TYPE_CHECKING:
    from compiler.kernels.kernel import Kernel
    from compiler.kernels.schedule import Launch, Place, Schedule
    from compiler.llvm.build import Build
    from compiler.tilings import Tunable

_FOLDER = default_folder()


class Backend:
    """Compiles schedules for this machine, or for a target such as `x86-64-v3`."""

    name = "cpu"
    precision: Precision = "fp32"

    def __init__(
        self,
        target: str | None = None,
        folder: Path | None = _FOLDER,
        precision: Precision | None = None,
    ) -> None:
        """`folder`: where object code is kept between runs, None: nowhere."""
        if precision not in (None, self.precision):
            how = "use --backend triton on a machine with a GPU (to compile: --target sm_90)"
            message = f"the cpu backend computes in fp32, not in {precision}"
            raise PrecisionError(message, hint=f"leave precision out, or {how}")
        self.host: Host = find_host(target)
        self.target = target or self.host.name
        self.tilings = known(self.host.name)
        self.cache = Cache(folder / "objects" if folder else None)
        self.traits = Traits(
            contiguous_factor=True,
            winograd=True,
            tile=(12, 32),
            parallel=16,
            shortest=640,
            inner=256,  # few sequences: a program for more time steps has no more kernels
            nearby=1024,
            apart=2**14,
        )

    def version(self) -> str:
        return f"{version()} {self.host} {self.tilings.digest}"

    def tuned(self, tilings: Tilings) -> Backend:
        """Returns this backend with another table of tilings."""
        made = copy(self)
        made.__dict__.pop("_build", None)
        made.tilings = tilings
        return made

    @cached_property
    def _build(self) -> Build:
        # Not needed for a net that was compiled before: it takes longer to load than to read that.
        from compiler.llvm.build import Build

        return Build(self.host, self.cache, self.tilings)

    def tunable(self, kernel: Kernel) -> Tunable | None:
        return self._build.tunable(kernel)

    def render(self, kernel: Kernel) -> str:
        """Returns the kernel's function as LLVM IR."""
        from compiler.llvm.simplify import collapse

        return self._build.piece(collapse(kernel)).text

    def note(self, launch: Launch) -> str:
        if isinstance(launch, tuple):
            return ""
        return "a loop of the step function: all threads wait for each other after each part"

    def compile(
        self, name: str, schedule: Schedule, places: Mapping[str, Place], slots: tuple[str, ...]
    ) -> Compiled:
        """Compiles all launches: one object file a function, and one with the function `step`.

        `void step(ptr slots, i64 thread, i64 threads, ptr sync)`: `slots` points to the base
        addresses in the order of `slots`, each aligned to 64 bytes and readable for 512 bytes
        behind its end; `sync` to 256 zeroed bytes with the address of a function at 128 that
        yields the processor, and at 136 of one that makes the call of a launch (llvm/step.py).
        """
        return self._build.run(schedule, places, slots)
