"""The cpu backend: LLVM IR, compiled to one native step function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compiler.backends import Compiled, Traits
from compiler.cache import Cache, default_folder
from compiler.kernel import Kernel
from compiler.llvm.bound import bound
from compiler.llvm.contract import emit_contract
from compiler.llvm.contract_plan import plan
from compiler.llvm.helpers import compile_all
from compiler.llvm.host import Host, find_host
from compiler.llvm.loops import emit_loops
from compiler.llvm.native import assembly, key_of, version
from compiler.llvm.piece import Piece
from compiler.llvm.simplify import collapse
from compiler.llvm.step import Call, emit_step
from compiler.schedule import Place, Schedule
from schemas.program import KernelInfo, Launch

_FOLDER = default_folder()


class Backend:
    """Compiles schedules for this machine, or for a target such as `x86-64-v3`."""

    name = "cpu"

    def __init__(self, target: str | None = None, folder: Path | None = _FOLDER) -> None:
        """`folder`: where object code is kept between runs, None: nowhere."""
        self.host: Host = find_host(target)
        self.target = target or self.host.name
        self.cache = Cache(folder / "objects" if folder else None)
        self._pieces: dict[Kernel, tuple[str, Piece]] = {}
        self.traits = Traits(contiguous_factor=True, tile=(12, 32), parallel=16)

    def version(self) -> str:
        return f"{version()} {self.host}"

    def render(self, kernel: Kernel) -> str:
        """Returns the kernel's function as LLVM IR."""
        return self.piece(kernel).text

    def piece(self, kernel: Kernel) -> Piece:
        """Emits a kernel's function."""
        return self._emit(collapse(kernel))

    def _emit(self, kernel: Kernel) -> Piece:
        tiled = plan(kernel, self.host) if kernel.kind == "contract" else None
        if tiled is None:
            return emit_loops(kernel, self.host)
        return emit_contract(kernel, tiled, self.host)

    def compile(
        self, name: str, schedule: Schedule, places: Mapping[str, Place], slots: tuple[str, ...]
    ) -> Compiled:
        """Compiles all launches: one object file a function, and one with the function `step`.

        `void step(ptr slots, i64 thread, i64 threads, ptr sync)`: `slots` points to the base
        addresses in the order of `slots`, each aligned to 64 bytes and readable for 512 bytes
        behind its end; `sync` to 256 zeroed bytes with the address of a function at 128 that
        yields the processor (compiler/llvm/step.py).
        """
        calls = {kernel.name: self._call(kernel) for kernel in schedule.kernels()}
        modules = {call.symbol: call.piece.module() for call in calls.values()}
        modules["step"] = emit_step(schedule.launches, calls, places, slots, self.host)
        launches = tuple(
            Launch("+".join(k.name for k in launch), tuple(_info(k) for k in launch))
            for launch in schedule.launches
        )
        meta = {
            "cpu": self.host.name,
            "features": self.host.features,
            "triple": self.host.triple,
            "lanes": self.host.lanes,
        }
        return Compiled(launches, self._objects(modules), _texts(calls, modules), meta)

    def _call(self, kernel: Kernel) -> Call:
        found = bound(collapse(kernel))
        if found.kernel not in self._pieces:
            piece = self._emit(found.kernel)
            self._pieces[found.kernel] = piece.symbol, piece
        return Call(*self._pieces[found.kernel], found.memory)

    def _objects(self, modules: Mapping[str, str]) -> dict[str, bytes]:
        """Returns the object code of each module; those that were compiled before are kept."""
        keys = {name: key_of(ir, self.host) for name, ir in modules.items()}
        kept = {name: self.cache.load(key) for name, key in keys.items()}
        missing = [name for name, code in kept.items() if code is None]
        made = compile_all([modules[name] for name in missing], self.host)
        fresh = dict(zip(missing, made, strict=True))
        self.cache.save({keys[name]: code for name, code in fresh.items()})
        return {name: code if code is not None else fresh[name] for name, code in kept.items()}

    def assembly(self, ir: str) -> str:
        """Returns the machine code of a module (a text of `Compiled`) as text."""
        return assembly(ir, self.host)


def _texts(calls: Mapping[str, Call], modules: Mapping[str, str]) -> dict[str, str]:
    """Returns each kernel's module by file name; a function that is there already is named."""
    texts: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name, call in calls.items():
        first = owner.setdefault(call.symbol, name)
        texts[f"{name}.ll"] = (
            modules[call.symbol] if first == name else f"; {call.symbol}: see {first}.ll\n"
        )
    return {**texts, "step.ll": modules["step"]}


def _info(kernel: Kernel) -> KernelInfo:
    reads, writes = tuple(sorted(kernel.reads())), tuple(sorted(kernel.writes()))
    return KernelInfo(kernel.name, kernel.kind, kernel.layers, (), 0, 0, reads, writes)
