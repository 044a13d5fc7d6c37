"""Which kernel of a training step fails, or computes something else than it should.

The step runs one launch after the other, and waits for each. What a launch reads is copied to the
host before it, what it wrote behind it. Its kernels' definitions, evaluated with NumPy at some of
their points and from the very numbers that it read, say what should stand there. No error is
handed on: each kernel that is off is named, also in the batches in which nets are trained.

A kernel that fails breaks the process's context, so it is the last; one that hangs ends it all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Timer

import numpy as np

from bench.cases import Case, solver_spec, synthetic
from bench.measure import Say
from bench.peer import Array
from compiler.frontend.build import build
from compiler.kernels.index import Axis
from compiler.kernels.kernel import Kernel
from compiler.kernels.schedule import Loop
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from compiler.pipeline import plan_unit
from compiler.unit import Unit
from netdef.engine import Engine
from runtime.cuda import CudaExecutable
from runtime.params import initialise
from schemas.program import ITEMSIZE, Dtype, Launch
from schemas.solver import SolverSpec
from tests.kernel_oracle import TYPES, stored

MEMORY = TYPES | {"bf16": np.uint16}
WORK = 1 << 21  # terms that the oracle evaluates at once, if a point has not more
LEAST, MOST = 16, 4096  # points of a kernel that it looks at
PATIENCE, EMULATED = 20.0, 600.0  # seconds of a launch, on a GPU and on one that is emulated
# How far a sum may be off, over the root of its squared terms, and any number over its size.
DOUBT = {"fp32": 1e-4, "tf32": 4e-3, "bf16": 1e-2}


@dataclass(frozen=True, slots=True)
class Wrong:
    """A kernel that is off: how many numbers of those looked at, and the worst of them."""

    launch: str
    kernel: str
    layers: tuple[str, ...]
    buffer: str
    looked_at: int
    off: int
    place: int  # in the buffer, in elements
    found: float
    expected: float

    def __str__(self) -> str:
        of = f" of {', '.join(self.layers)}" if self.layers else ""
        example = f"{self.found:.6g} is {self.buffer}[{self.place}], expected {self.expected:.6g}"
        many = f"{self.off} of {self.looked_at} numbers"
        return f"WRONG: {self.kernel}{of} in launch {self.launch}: {many}: {example}"


def locate(case: Case, engine: Engine, say: Say, patience: float = PATIENCE) -> list[Wrong]:
    """Runs the first training step of a case; returns the kernels that are off."""
    return locate_in(solver_spec(case), synthetic(case), engine, say, patience)


def locate_in(
    spec: SolverSpec,
    given: Mapping[str, Array],
    engine: Engine,
    say: Say,
    patience: float = PATIENCE,
) -> list[Wrong]:
    """Likewise, of a solver's net and these inputs.

    Says which launch runs before it does: the last one said is the one that fails or hangs, which
    one does that takes longer than `patience`.
    """
    assert spec.net_param is not None
    graph = build(spec.net_param, "TRAIN")
    arena = plan_arena(graph)
    step = train_step(graph, arena, spec)
    exe = engine.load(step, arena)
    assert isinstance(exe, CudaExecutable)
    unit = engine.unit(step, arena)
    plan_unit(unit)
    initialise(exe, 1)
    for name, value in given.items():
        exe.write(name, value)
    exe.write("lr", spec.base_lr)
    exe.synchronize()  # what was written lies where the first kernels read it
    watch = _Watch(unit, exe, say, patience)
    found = []
    for number, (launch, t) in enumerate(exe.program.runs(), 1):
        when = f" [{t}]" if launch.repeat else ""
        layers = ", ".join(dict.fromkeys(name for k in launch.kernels for name in k.layers))
        say(f"{number} {launch.name}{when}: {layers}")
        for wrong in watch.run(launch, t):
            found.append(wrong)
            say(str(wrong))
    exe.close()
    say(f"{len(found)} kernels are off" if found else "every kernel computes what it should")
    return found


class _Watch:
    """The memory of a step on a device, seen as the buffers of its kernels."""

    def __init__(self, unit: Unit, exe: CudaExecutable, say: Say, patience: float) -> None:
        self._exe, self._buffers = exe, unit.schedule.buffers
        self._say, self._patience = say, patience
        self._doubt = DOUBT[unit.backend.precision]
        self._places = unit.memory.places
        self._kernels = {k.name: (k, one) for one in unit.schedule.launches for k in one}
        self._random = np.random.default_rng(1)

    def run(self, launch: Launch, t: int) -> Iterator[Wrong]:
        """Runs a launch; yields what is off. A loop is looked at in its first and last time step.

        Of one that is a single launch, the last step is left: what it read is still there, unless
        the kernel itself wrote to it.
        """
        kernels = [self._kernels[info.name][0] for info in launch.kernels]
        one = self._kernels[launch.kernels[0].name][1]
        loop = one if isinstance(one, Loop) else None
        last = loop.count - 1 if loop else 0
        if launch.repeat and 0 < t < last:
            self._alone(launch, t)
            return
        before = self._read({b for k in kernels for b in k.reads()})
        self._alone(launch, t)
        if loop and not launch.repeat:
            kernels = [k for k in kernels if k.reads().isdisjoint(k.writes())]
            before = self._read({b for k in kernels for b in k.reads()})
            t = 0 if loop.backwards else last
        made = [one for k in kernels for one in (k, *k.joins)]
        after = self._read({s.buffer for one in made for s in one.stores})
        for kernel in kernels:
            moves = loop.moves.get(kernel.name, {}) if loop else {}
            then, now = (
                {name: array[moves.get(name, 0) * t :] for name, array in memory.items()}
                for memory in (before, after)
            )
            for part in (kernel, *kernel.joins):  # a join reads what was left by those before it
                yield from self._off(launch, part, now | then, now)

    def _alone(self, launch: Launch, t: int) -> None:
        """Runs a launch; where it hangs, so does the thread that waits for it: nothing is left."""

        def hangs() -> None:
            self._say(f"HANGS: launch {launch.name} has not ended after {self._patience:.0f} s")
            os._exit(1)

        clock = Timer(self._patience, hangs)
        clock.start()
        try:
            self._exe.alone(launch, t)
        finally:
            clock.cancel()

    def _read(self, names: set[str]) -> dict[str, Array]:
        """Copies buffers to the host, as flat arrays."""
        found = {}
        for name in names:
            buffer, place = self._buffers[name], self._places[name]
            nbytes = buffer.size * ITEMSIZE[buffer.dtype]
            raw = self._exe.fetch(place.slot, place.offset, nbytes)
            found[name] = raw.view(MEMORY[buffer.dtype])
        return found

    def _off(
        self, launch: Launch, kernel: Kernel, before: dict[str, Array], after: dict[str, Array]
    ) -> Iterator[Wrong]:
        points = self._points(kernel)
        with np.errstate(all="ignore"):
            three = [stored(kernel, before, points, d) for d in (0, self._doubt, -self._doubt)]
        for (store, places, wanted), (_, _, high), (_, _, low) in zip(*three, strict=True):
            if kernel.kind == "contract" and store.dtype in ("i32", "u8"):
                continue  # where the greatest result stands: rounding decides between two near it
            found = _numbers(after[store.buffer][places], store.dtype)
            wanted, high, low = (np.asarray(x, np.float64) for x in (wanted, high, low))
            size = np.abs(wanted)
            rounding = self._doubt * size + 1e-6 * np.max(size, initial=0.0)
            error, allowed = np.abs(found - wanted), np.abs(high - low) + rounding
            bad = ~(error <= allowed) & ~((found == wanted) | np.isnan(found) & np.isnan(wanted))
            if bad.any():
                worst = int(np.argmax(np.where(bad, np.nan_to_num(error, nan=np.inf), -1.0)))
                yield Wrong(
                    launch.name, kernel.name, kernel.layers, store.buffer, bad.size,
                    int(bad.sum()), int(places[worst]), float(found[worst]), float(wanted[worst]),
                )  # fmt: skip

    def _points(self, kernel: Kernel) -> Mapping[Axis, Array]:
        """Returns positions in a kernel's space, many of them at its edges; rows are kept whole."""
        axes = [a for a in kernel.space if a not in kernel.rows]
        wide = max(
            (math.prod(a.size for a in {*s.axes, *kernel.rows}) for s in kernel.body), default=1
        )
        many = min(max(LEAST, WORK // wide), MOST, math.prod(a.size for a in axes))
        chosen = np.stack([self._positions(axis, many) for axis in axes] or [np.zeros(many, int)])
        distinct = np.unique(chosen, axis=1)
        return dict(zip(axes, distinct, strict=False))

    def _positions(self, axis: Axis, many: int) -> Array:
        inside = self._random.integers(0, axis.size, many)
        edge = self._random.choice([0, axis.size - 1], many)
        return np.where(self._random.random(many) < 0.25, edge, inside)


def _numbers(array: Array, dtype: Dtype) -> Array:
    if dtype == "bf16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)
