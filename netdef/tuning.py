"""Searches tilings: times those that a backend proposes for each contraction of a step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from compiler.passes.arena import Arena
from compiler.passes.update import Step
from compiler.pipeline import compile_unit, recompiled
from compiler.tilings import Tiling, Tilings, Tunable, read
from netdef.engine import Engine
from netdef.measuring import fill_inputs, measure
from runtime.executable import Executable
from runtime.files import write_whole
from schemas.errors import BackendError
from schemas.program import Program

Clock = Callable[[Executable], Mapping[str, float]]  # seconds of each kernel

WORTH = 0.97  # of the model's time: what is hardly faster may as well be chance
_ROUNDS = 3
_SECONDS, _STEPS = 0.1, 10  # of a round, at most


@dataclass
class Contraction:
    """Kernels of one key: the tilings to try, and what was found."""

    tunable: Tunable
    kernels: list[str] = field(default_factory=list)
    best: Tiling | None = None  # None: the model's
    before: float = 0.0  # seconds, in the model's tiling
    after: float = 0.0

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.best is not None else 1.0


class Search:
    """The contractions of a step, which all try another tiling in each round.

    They are timed where they are used, so that their operands lie in the caches where they do in
    training; and always beside the model's choice, as the speed of machines drifts. Each kernel has
    a launch of its own, or a launch would have one time for all of its kernels.
    """

    def __init__(
        self, engine: Engine, step: Step, arena: Arena, clock: Clock, seen: Collection[str] = ()
    ) -> None:
        """`seen`: keys of contractions that were searched before."""
        self._engine, self._step, self._clock = engine, step, clock
        self._backend = engine.backend.tuned(Tilings(engine.backend.tilings.device))
        self._backend.traits = replace(self._backend.traits, groups=False)
        self._unit = engine.unit(step, arena)
        self._unit.backend = self._backend
        self._program = compile_unit(self._unit)
        self.contractions: dict[str, Contraction] = {}
        for kernel in self._unit.schedule.kernels():
            tunable = self._backend.tunable(kernel)
            if tunable is not None and tunable.key not in seen:
                found = self.contractions.setdefault(tunable.key, Contraction(tunable))
                found.kernels.append(kernel.name)

    @property
    def rounds(self) -> int:
        """Returns how often times are taken: each tiling beside the model's, and what was found."""
        return max((len(c.tunable.tilings) for c in self.contractions.values()), default=0)

    def run(self) -> Generator[None]:
        """Tries everything, a tiling of each contraction a round; in the last what was found."""
        if not self.contractions:
            return
        model = self._load(self._program)
        try:
            for n in range(1, self.rounds):
                one = {
                    key: c.tunable.tilings[n]
                    for key, c in self.contractions.items()
                    if n < len(c.tunable.tilings)
                }
                for key, (before, after) in self._compare(model, one).items():
                    c = self.contractions[key]
                    if after < min(WORTH, c.ratio) * before:
                        c.best, c.before, c.after = one[key], before, after
                yield
            # The best of many is partly luck: it has to be as good once more.
            for key, (before, after) in self._compare(model, self.found()).items():
                c = self.contractions[key]
                c.before, c.after = before, after
                if after >= WORTH * before:
                    c.best = None
            yield
        finally:
            model.close()

    def found(self) -> dict[str, Tiling]:
        """Returns the tilings that were faster than the model's."""
        return {key: c.best for key, c in self.contractions.items() if c.best is not None}

    def _load(self, program: Program, share: Executable | None = None) -> Executable:
        """Loads a program on the memory of another one: which pages it has makes a difference."""
        assert self._engine.device is not None
        slots = tuple(replace(slot, persistent=True) for slot in program.slots)
        shared = replace(program, slots=slots)
        exe = self._engine.device.load(shared, share, self._step.graph.hosts)
        if share is None:
            fill_inputs(exe, self._step.graph.first)
        return exe

    def _compare(
        self, model: Executable, tilings: Mapping[str, Tiling]
    ) -> dict[str, tuple[float, float]]:
        """Returns the seconds of the contractions that these tilings are of, before and after."""
        if not tilings:
            return {}
        device = self._backend.tilings.device
        self._unit.backend = self._backend.tuned(Tilings(device, tilings))
        exe = self._load(recompiled(self._unit), model)
        try:
            times = [(self._clock(model), self._clock(exe)) for _ in range(_ROUNDS)]
        finally:
            exe.close()
        found = {}
        for key in tilings:
            names = [name for name in self.contractions[key].kernels if name in times[0][0]]
            least = [sum(min(t[side][name] for t in times) for name in names) for side in (0, 1)]
            if names:
                found[key] = least[0], least[1]
        return found


def clock_of(engine: Engine) -> Clock:
    """Returns what times an engine's kernels. Raises BackendError where there is no choice."""
    if engine.name == "cpu" or (engine.name == "triton" and engine.backend.target != "interpreter"):
        return kernel_seconds
    raise BackendError(
        f"the {engine.name} backend has no tilings to choose from",
        hint="use --backend cpu, or --backend triton on a machine with a GPU",
    )


def kernel_seconds(exe: Executable) -> dict[str, float]:
    """Returns the seconds of each kernel, the least of several steps."""
    few = measure(exe, 2)
    more = int(_SECONDS / few.median)
    return (measure(exe, min(_STEPS, more)) if more > 2 else few).least()


def merge(file: Path, device: str, searched: Mapping[str, Contraction]) -> None:
    """Writes what was found into a file, which keeps what others found. Raises OSError."""
    kept = {k: t for k, t in read(file, device).found.items() if k not in searched}
    found = {k: c.best for k, c in searched.items() if c.best is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, Tilings(device, kept | found).text().encode())
