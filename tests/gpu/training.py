"""Trains nets of the bench on any device, and looks at each of their kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bench.cases import Case, solver_spec
from bench.locate import EMULATED, locate
from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from netdef.engine import Engine, forward_step
from runtime.cuda import CudaExecutable
from runtime.params import initialise
from runtime.solver import Training
from schemas.params import Feed
from schemas.program import Program
from tests.gpu.emulated import EmulatedDevice


@dataclass(frozen=True)
class Batches:
    """A data source: other numbers in each batch."""

    case: Case

    @property
    def shapes(self):
        return {"data": self.case.shape, "label": self.case.label_shape}

    constant = frozenset()

    def batch(self, index):
        rng = np.random.default_rng(index)
        label = rng.integers(0, self.case.classes, self.case.label_shape).astype(np.float32)
        return {"data": rng.standard_normal(self.case.shape, np.float32), "label": label}


def trained(case: Case, engine: Engine, steps: int) -> list[float]:
    """Trains a net with tests between; returns its losses, what a test finds, and a checksum."""
    spec = replace(solver_spec(case), test_iters=(2,), test_interval=2, average_loss=steps)
    assert spec.net_param is not None
    graph, test = build(spec.net_param, "TRAIN"), build(spec.net_param, "TEST")
    arena = plan_arena(graph)
    train = engine.load(train_step(graph, arena, spec), arena)
    tests = [engine.load(forward_step(test), arena, train)]
    initialise(train, 1)

    def opener(feed: Feed, seed: int) -> Batches:
        return Batches(case)

    with np.errstate(all="ignore"):
        training = Training(spec, train, tests=tests, openers=[opener] * 2)
        training.step(steps)
        tested = training.test()
    sums = [float(np.abs(train.read(p.key)).sum()) for p in train.program.params]
    found = [*training.losses.window, *(float(np.sum(v)) for v in tested.values()), *sums]
    training.close()
    engine.close()
    return found


class SpoilingDevice(EmulatedDevice):
    """One whose launch of a kernel leaves out the last program."""

    def __init__(self, target: str, kernel: str) -> None:
        super().__init__(target)
        self.kernel = kernel

    def load(self, program: Program, share=None, hosts=None) -> CudaExecutable:
        launches = list(program.launches)
        (i,) = (i for i, one in enumerate(launches) if one.kernels[0].name == self.kernel)
        fewer = launches[i].meta | {"grid": [launches[i].meta["grid"][0] - 1, 1, 1]}
        launches[i] = replace(launches[i], meta=fewer)
        return super().load(replace(program, launches=tuple(launches)), share, hosts)


def located(case: Case, engine: Engine) -> tuple[list[str], list[str]]:
    """Returns the kernels that bench/locate.py finds to be off in a step, and what it says."""
    said: list[str] = []
    with np.errstate(all="ignore"):
        wrong = locate(case, engine, said.append, EMULATED)
    return list(dict.fromkeys(one.kernel for one in wrong)), said
