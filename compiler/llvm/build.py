"""Makes the functions and the step of a schedule: LLVM IR, object code, texts for people."""

from __future__ import annotations

from collections.abc import Mapping

from compiler.backends import Compiled
from compiler.cache import Cache
from compiler.kernels.kernel import Kernel
from compiler.kernels.schedule import Launch as Scheduled
from compiler.kernels.schedule import Loop, Place, Schedule, repeat_of
from compiler.llvm.bound import bound
from compiler.llvm.candidates import candidates, planned
from compiler.llvm.contract import emit_contract
from compiler.llvm.host import Host
from compiler.llvm.loops import emit_loops
from compiler.llvm.native import compile_all, key_of
from compiler.llvm.piece import Piece
from compiler.llvm.simplify import collapse
from compiler.llvm.step import Call, emit_step
from compiler.llvm.transform import emit_transform
from compiler.llvm.transpose import emit_turn, turn_of
from compiler.lowering.launches import call_launch
from compiler.tilings import Tiling, Tilings, Tunable, digest
from schemas.program import KernelInfo, Launch


class Build:
    """Compiles schedules for one host; a kernel that comes again is emitted once."""

    def __init__(self, host: Host, cache: Cache, tilings: Tilings) -> None:
        self.host, self.cache, self.tilings = host, cache, tilings
        self._pieces: dict[Kernel, tuple[str, Piece]] = {}

    def piece(self, kernel: Kernel) -> Piece:
        """Emits the function of a kernel that is as `collapse` leaves it."""
        if kernel.kind == "transform":
            return emit_transform(kernel, self.host)
        if kernel.kind == "contract":
            tiled = planned(kernel, self.host, self._tiling(kernel))
            if tiled is not None:
                return emit_contract(kernel, tiled, self.host)
        turn = turn_of(kernel, self.host)
        return emit_turn(kernel, turn, self.host) if turn else emit_loops(kernel, self.host)

    def tunable(self, kernel: Kernel) -> Tunable | None:
        """Returns the tilings of a kernel that are worth a try, None if there is no choice."""
        if kernel.kind != "contract":
            return None
        plain = bound(collapse(kernel)).kernel
        found = candidates(plain, self.host)
        return Tunable(self._key(plain), found) if len(found) > 1 else None

    def _tiling(self, kernel: Kernel) -> Tiling | None:
        found = self.tilings.found
        return found.get(self._key(bound(kernel).kernel)) if found else None

    def _key(self, kernel: Kernel) -> str:
        return digest(kernel, self.host.lanes, self.host.registers)

    def run(
        self, schedule: Schedule, places: Mapping[str, Place], slots: tuple[str, ...]
    ) -> Compiled:
        """Returns the object code of each function and of `step`, and their texts."""
        calls = {k.name: self._call(k) for k in schedule.kernels() if k.call is None}
        modules = {call.symbol: call.piece.module() for call in calls.values()}
        modules["step"] = emit_step(schedule, calls, places, slots, self.host)
        launches = tuple(self._launch(launch, places) for launch in schedule.launches)
        meta = {
            "cpu": self.host.name,
            "features": self.host.required,
            "triple": self.host.triple,
            "lanes": self.host.lanes,
        }
        return Compiled(launches, self._objects(modules), _texts(calls, modules), meta)

    def _launch(self, launch: Scheduled, places: Mapping[str, Place]) -> Launch:
        if isinstance(launch, Loop):
            infos = tuple(_info(k) for k in launch)
            return Launch(launch.name, infos, repeat=repeat_of(launch))
        if launch[0].call is not None:
            return call_launch(launch[0], places)
        return Launch("+".join(k.name for k in launch), tuple(_info(k) for k in launch))

    def _call(self, kernel: Kernel) -> Call:
        found = bound(collapse(kernel))
        if found.kernel not in self._pieces:
            piece = self.piece(found.kernel)
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
