"""Programs for a GPU that is made of Python, whose kernels run in Triton's interpreter.

Everything is that of a real GPU but the machine code: pointers, streams, graphs. The interpreter
changes Triton for good, so this belongs into a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bench.cases import Case, solver_spec
from bench.locate import locate
from compiler.backends.triton import Backend
from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from netdef.engine import Engine, forward_step, open_engine
from runtime.cuda import CudaDevice, CudaExecutable
from runtime.params import initialise
from runtime.solver import Training
from runtime.triton_worker import Interpreter
from schemas.params import Feed
from schemas.precision import Precision
from schemas.program import Program
from tests.gpu.fake_driver import FakeDriver
from tests.gpu.handles import Kernel


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


class InterpretingDevice:
    """A CudaDevice that takes programs of target `interpreter` for compiled ones."""

    name = "cuda:0"

    def __init__(self) -> None:
        self.api = FakeDriver()
        self.cuda = CudaDevice(0, self.api)
        self.interpreter = Interpreter()

    def load(self, program: Program, share=None, hosts=None) -> CudaExecutable:
        launches, code = [], {}
        for launch in program.launches:
            meta = launch.meta
            name = f"{meta['entry']}.{len(self.api.kernels)}"
            functions = self.interpreter.functions(program.text[meta["source"]])
            entry = getattr(functions, meta["entry"])
            run = self.interpreter.launcher(entry, meta["types"], meta["grid"][0])
            self.api.kernels[name] = Kernel(run, len(meta["types"]))
            sizes = {"threads": 128, "shared": 0, "global_scratch": 0, "profile_scratch": 0}
            launches.append(replace(launch, code=name, meta={**meta, **sizes, "name": name}))
            code[name] = b"source"
        made = replace(program, target="sm_90", launches=tuple(launches), code=code)
        return self.cuda.load(made, share, hosts)


def trained(case: Case, where: str, steps: int) -> list[float]:
    """Trains a net with tests between; returns its losses, what a test finds, and a checksum."""
    if where == "cuda":
        device = InterpretingDevice()
        engine = Engine(Backend("interpreter", "fp32"), device)
    else:
        engine = open_engine(where, threads=1)
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
    if where == "cuda":
        assert not device.api.unreleased()
    return found


class SpoilingDevice(InterpretingDevice):
    """One whose launch of a kernel leaves out the last program."""

    def __init__(self, kernel: str) -> None:
        super().__init__()
        self.kernel = kernel

    def load(self, program: Program, share=None, hosts=None) -> CudaExecutable:
        launches = list(program.launches)
        (i,) = (i for i, one in enumerate(launches) if one.kernels[0].name == self.kernel)
        fewer = launches[i].meta | {"grid": [launches[i].meta["grid"][0] - 1, 1, 1]}
        launches[i] = replace(launches[i], meta=fewer)
        return super().load(replace(program, launches=tuple(launches)), share, hosts)


def located(
    case: Case, spoilt: str = "", whole: bool = False, precision: Precision = "fp32"
) -> tuple[list[str], list[str]]:
    """Returns the kernels that bench/locate.py finds to be off in a step, and what it says.

    One kernel may be `spoilt`; `whole`: loops are one launch.
    """
    device = SpoilingDevice(spoilt) if spoilt else InterpretingDevice()
    engine = Engine(Backend("interpreter", precision, persistent=whole), device)
    said: list[str] = []
    with np.errstate(all="ignore"):
        wrong = locate(case, engine, said.append, patience=1e4)
    return list(dict.fromkeys(one.kernel for one in wrong)), said
