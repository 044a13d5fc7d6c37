"""netdef in the bench: its own training loop on resident data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cases import Case, flops, net_spec, solver_spec
from bench.peer import STEPS, Array, Job
from bench.roofline import ideal
from compiler.backends import get_backend
from compiler.frontend.build import build
from compiler.passes.arena import Arena, plan_arena
from compiler.passes.update import Step, train_step
from netdef.engine import Engine, open_engine, plain
from netdef.measuring import Measured, measure
from runtime.cuda import CudaDevice
from runtime.params import initialise
from runtime.solver import Training
from runtime.weights import load_weights, save_weights

if TYPE_CHECKING:
    from compiler.ir.graph import Graph
    from runtime.executable import Executable
    from schemas.params import Feed

SHOWN = 25  # kernels whose times are kept


@dataclass(frozen=True)
class Resident:
    """A data source that returns the same arrays each time: no data loading is timed."""

    arrays: Mapping[str, Array]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.arrays.items()}

    @property
    def constant(self) -> frozenset[str]:
        return frozenset(self.arrays)

    def batch(self, index: int) -> dict[str, Array]:
        return dict(self.arrays)


def engine_for(job: Job, pdl: bool = False) -> Engine:
    """Returns the engine of the job's backend, in the job's precision on a GPU.

    Backend `fake` is triton on the driver made of Python: machine code for sm_90 is loaded and
    launched under its checks, and nothing is computed. `pdl`: see CudaDevice.
    """
    if job.backend == "fake":
        from tests.gpu.fake_driver import FakeDriver

        device = CudaDevice(0, FakeDriver(), pdl)
        return Engine(get_backend("triton", "sm_90", job.precision), device)
    precision = job.precision if job.backend == "triton" else None
    engine = open_engine(job.backend, threads=job.threads, precision=precision)
    return Engine(engine.backend, CudaDevice(pdl=True)) if pdl else engine


def graph_of(job: Job) -> Graph:
    """Returns the net of a job in the phase of its mode."""
    if job.mode == "train":
        return build(net_spec(job.case), "TRAIN")
    return build(net_spec(job.case), "TEST", deploy=True)


def step_of(job: Job, graph: Graph, arena: Arena) -> Step:
    """Returns what is run again and again: a training step, or a forward pass."""
    if job.mode == "train":
        return train_step(graph, arena, solver_spec(job.case))
    return plain(graph)


class Made:
    """Work that is over when the peer is there: it only has to be done, in a process of its own."""

    def run(self, count: int) -> None:
        """Does nothing."""

    def result(self) -> list[float]:
        """Returns nothing: there is nothing to compare."""
        return []

    def facts(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def close(self) -> None:
        """Nothing to end."""


class NetdefProgram(Made):
    """A step of a net, compiled for the target `job.device` and kept in the cache."""

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        graph = graph_of(job)
        arena = plan_arena(graph)
        compile_for(job, step_of(job, graph, arena), arena)


class NetdefWeights(Made):
    """The file of a net's first weights."""

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        write_weights(job.case, Path(job.weights))


def compile_for(job: Job, step: Step, arena: Arena) -> None:
    """Compiles a step for the target `job.device`, if it is not in the cache, and keeps it."""
    Engine(get_backend("triton", job.device, job.precision), None).compile(step, arena)


class NetdefPeer:
    """A net of nets/, trained or run forward by netdef."""

    def __init__(self, job: Job, data: Mapping[str, Array], flavour: str = "") -> None:
        self._engine = engine_for(job, pdl=flavour == "pdl")
        self._data = data
        self._training: Training | None = None
        self._graph = graph_of(job)
        arena = plan_arena(self._graph)
        self._exe = self._engine.load(step_of(job, self._graph, arena), arena)
        initialise(self._exe, 1)
        if job.weights:
            load_weights(self._exe, Path(job.weights))
        if job.mode == "train":
            self._training = Training(solver_spec(job.case), self._exe, openers=[self._open])

    def _open(self, feed: Feed, seed: int) -> Resident:
        return Resident({top: self._data[top] for top in feed.tops})

    def run(self, count: int) -> None:
        """Runs `count` steps and waits for the last."""
        if self._training is not None:
            self._training.step(count)
        else:
            for _ in range(count):
                self._exe.write("data", self._data["data"])
                self._exe.run()
        self._exe.synchronize()

    def result(self) -> list[float]:
        """Returns the losses of the last three steps, or the outputs of the last."""
        if self._training is not None:
            return list(self._training.losses.window)
        outputs = [self._exe.read(name) for name in self._exe.program.outputs]
        return [float(x) for x in np.concatenate([o.ravel() for o in outputs])]

    def facts(self) -> dict[str, Any]:
        """Returns what is known of the step from its graph and program."""
        program = self._exe.program
        training = self._training is not None
        on_gpu = {}
        if isinstance(self._engine.device, CudaDevice):
            free, total = self._engine.device.driver.call("cuMemGetInfo")
            on_gpu = {"device_bytes": program.peak_bytes, "used_bytes": total - free}
            if training:
                on_gpu["ideal_gbytes"] = ideal(self._graph, program.meta["precision"]) / 1e9
            on_gpu["slowest"] = slowest(measure(self._exe, STEPS))
        return {
            **on_gpu,
            "gflop": flops(self._graph, training) / 1e9,
            "parameters": sum(math.prod(p.shape) for p in program.params),
            "kernels": sum(len(launch.kernels) for launch, _ in program.runs()),
            "launches": sum(1 for _ in program.runs()),
            "planned_bytes": program.peak_bytes,
        }

    def close(self) -> None:
        if self._training is not None:
            self._training.close()
        self._engine.close()


def slowest(measured: Measured) -> list[dict[str, Any]]:
    """Returns the kernels that take longest, with milliseconds, work and traffic of a step."""
    kernels = [k for launch in measured.program.launches for k in launch.kernels]
    timed = [(t, k) for t, k in zip(measured.kernels(), kernels, strict=True) if t]
    return [
        {"kernel": k.name, "ms": 1e3 * t, "gflop": k.flops / 1e9, "gbyte": k.bytes / 1e9}
        for t, k in sorted(timed, key=lambda one: -one[0])[:SHOWN]
    ]


def write_weights(case: Case, path: Path) -> None:
    """Writes the weights that every peer starts from; nothing is compiled or run for it.

    Running statistics are those of standard normal data: Caffe's start at 0, and would divide by
    the root of eps in inference.
    """
    engine = open_engine("reference")
    graph = build(net_spec(case), "TRAIN")
    exe: Executable = engine.load(plain(graph), plan_arena(graph))
    initialise(exe, 1)
    for state in exe.program.states:
        if state.key.endswith(("/variance", "/scale_factor")):
            exe.write(state.key, np.ones(state.shape, np.float32))
    save_weights(exe, path)
    engine.close()
