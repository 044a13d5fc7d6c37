"""The cpu backend: LLVM IR, compiled to one native step function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compiler.backends import Compiled, Traits
from compiler.kernel import Kernel
from compiler.llvm import cache
from compiler.llvm.contract import emit_contract
from compiler.llvm.contract_plan import plan
from compiler.llvm.host import Host, find_host
from compiler.llvm.loops import emit_loops
from compiler.llvm.native import assembly, compile_object
from compiler.llvm.piece import Piece
from compiler.llvm.simplify import collapse
from compiler.llvm.step import emit_step
from compiler.schedule import Loop, Place, Schedule
from schemas.program import KernelInfo, Launch

_FOLDER = cache.default_folder()


class Backend:
    """Compiles schedules for this machine, or for a target such as `x86-64-v3`."""

    name = "cpu"

    def __init__(self, target: str | None = None, folder: Path | None = _FOLDER) -> None:
        """`folder`: where object code is kept between runs, None: nowhere."""
        self.host: Host = find_host(target)
        self.target = target or self.host.name
        self.folder = folder
        self.traits = Traits(contiguous_factor=True, tile=(12, 32), parallel=16)

    def render(self, kernel: Kernel) -> str:
        """Returns the kernel's function as LLVM IR."""
        return self.piece(kernel).text

    def piece(self, kernel: Kernel) -> Piece:
        """Emits a kernel's function."""
        kernel = collapse(kernel)
        tiled = plan(kernel, self.host) if kernel.kind == "contract" else None
        if tiled is None:
            return emit_loops(kernel, self.host)
        return emit_contract(kernel, tiled, self.host)

    def compile(
        self, name: str, schedule: Schedule, places: Mapping[str, Place], slots: tuple[str, ...]
    ) -> Compiled:
        """Compiles all launches to one object file with the function `step`.

        `void step(ptr slots, i64 thread, i64 threads, ptr sync)`: `slots` points to the base
        addresses in the order of `slots`, each aligned to 64 bytes and readable for 512 bytes
        behind its end; `sync` to 256 zeroed bytes with the address of a function at 128 that
        yields the processor (compiler/llvm/step.py).
        """
        pieces = {id(k): self.piece(k) for k in schedule.kernels()}
        ir = emit_step(schedule, pieces, places, slots, self.host)
        launches = tuple(
            Launch(
                launch.name if isinstance(launch, Loop) else "+".join(k.name for k in launch),
                tuple(_info(k) for k in launch),
                steps=launch.count if isinstance(launch, Loop) else 1,
            )
            for launch in schedule.launches
        )
        text = {f"{k.name}.ll": pieces[id(k)].text for k in schedule.kernels()}
        meta = {
            "cpu": self.host.name,
            "features": self.host.features,
            "triple": self.host.triple,
            "lanes": self.host.lanes,
        }
        code = {"step": self._object(ir)}
        return Compiled(launches, code, {**text, "step.ll": ir}, meta)

    def _object(self, ir: str) -> bytes:
        key = cache.key_of(ir, self.host)
        code = cache.load(self.folder, key)
        if code is None:
            code = compile_object(ir, self.host)
            cache.save(self.folder, key, code)
        return code

    def assembly(self, ir: str) -> str:
        """Returns the machine code of a module (`Compiled.text["step.ll"]`) as text."""
        return assembly(ir, self.host)


def _info(kernel: Kernel) -> KernelInfo:
    reads, writes = tuple(sorted(kernel.reads())), tuple(sorted(kernel.writes()))
    return KernelInfo(kernel.name, kernel.kind, kernel.layers, (), 0, 0, reads, writes)
