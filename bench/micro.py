"""Single operations on a GPU, beside PyTorch: a large product, and 3 x 3 convolutions.

On both sides they are timed by events on the device, from and to activations of the precision.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.cases import Case
from bench.measure import Say
from bench.netdef_side import Made, compile_for, engine_for
from bench.peer import STEPS, Array, Job
from bench.side import LeftOut, Side
from compiler.passes.arena import Arena
from compiler.passes.update import Step
from compiler.tilings import Tilings, in_words
from netdef.formats import read_net
from netdef.measuring import by_layer, fill_inputs, measure
from netdef.stepping import step_of
from netdef.tuning import Search, kernel_seconds
from schemas.precision import Precision

_PEERS = {"netdef": "bench.micro:NetdefOperation", "torch": "bench.torch_micro:TorchOperation"}
_SEARCHING = 60.0  # seconds


@dataclass(slots=True)
class Finding:
    """Milliseconds of an operation by side and way; `gflop` of one way forward.

    `searched` is netdef in the tiles that a search found, and `tiles` says which those are.
    """

    operation: str
    precision: Precision
    gflop: float
    netdef: dict[str, float] = field(default_factory=dict)
    searched: dict[str, float] = field(default_factory=dict)
    torch: dict[str, float] = field(default_factory=dict)
    tiles: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yields what a reader is told of each way; backward has two products."""
        for way, work in (("forward", 1), ("backward", 2)):
            sides = {"netdef": self.netdef, "searched": self.searched, "PyTorch": self.torch}
            times = {name: side[way] for name, side in sides.items() if way in side}
            told = [
                f"{name} {ms:.3f} ms ({work * self.gflop / ms:,.1f} TFLOP/s)"
                for name, ms in times.items()
            ]
            theirs = times.pop("PyTorch", None)
            if theirs:
                told += [f"{name} / PyTorch {ms / theirs:.2f}" for name, ms in times.items()]
            if told:
                yield f"{self.operation} {self.precision} {way}: {', '.join(told)}"


def gflop(case: Case) -> float:
    """Returns the work of an operation forward."""
    batch, channels, *places = case.shape
    work = 2 * batch * channels * channels * (9 if places else 1)
    for size in places:
        work *= size
    return work / 1e9


def time_operation(job: Job, timeout: float, say: Say, search: bool = False) -> Finding:
    """Times the job's case on both sides; who cannot take part is left out, with a line.

    search: netdef looks for faster tiles too. That takes as long as a net does, so it is for who
    asks for operations alone; a dry run has one round of it.
    """
    case, precision = job.case, job.precision
    found = Finding(case.net, precision, gflop(case))
    sides = [(name, peer, timeout) for name, peer in _PEERS.items()]
    if search:
        seconds = 0.0 if job.backend == "fake" else min(_SEARCHING, timeout)
        sides.append(("searched", f"bench.micro:SearchedOperation:{seconds}", timeout + seconds))
    for name, peer, limit in sides:
        try:
            side = Side(replace(job, peer=peer), timeout=limit)
            try:
                facts = side.ask("facts")
                setattr(found, name, facts["ms"])
                found.tiles += facts.get("tiles", [])
            finally:
                side.stop()
        except LeftOut as reason:
            found.left_out[name] = str(reason)
            say(f"{case.net} {precision}: {name} is left out: {reason}\n{reason.trace}")
    for line in (*found.lines(), *found.tiles):
        say(line)
    return found


class OperationProgram(Made):
    """The operation's program, compiled for the target `job.device` and kept in the cache."""

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        step, arena = _step(job.case)
        compile_for(job, step, arena)


class NetdefOperation:
    """The operation between two others like it, so that it reads and writes activations."""

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        self._engine = engine_for(job)
        self._load(*_step(job.case))

    def _load(self, step: Step, arena: Arena) -> None:
        self._exe = self._engine.load(step, arena)
        fill_inputs(self._exe, step.graph.first)

    def run(self, count: int) -> None:
        """Runs the whole net `count` times and waits for the last."""
        for _ in range(count):
            self._exe.run()
        self._exe.synchronize()

    def result(self) -> list[float]:
        """Returns nothing: there is nothing to compare."""
        return []

    def facts(self) -> dict[str, Any]:
        """Returns the milliseconds of the operation, forward and backward."""
        measured = measure(self._exe, STEPS)
        layers = by_layer(measured.program, measured.kernels())
        (one,) = (layer for layer in layers if layer.name == "timed")
        return {"ms": {way: 1e3 * t for way, t in one.seconds.items() if t}}

    def close(self) -> None:
        """Frees the device's memory."""
        self._engine.close()


class SearchedOperation(NetdefOperation):
    """The same in the tiles that netdef's search finds fastest in some seconds, a round at least.

    They are timed alone in the end: what was found does not have to be as good once more.
    """

    def __init__(self, job: Job, data: Mapping[str, Array], seconds: str) -> None:
        self._engine = engine_for(job)
        step, arena = _step(job.case)
        self._search = Search(self._engine, step, arena, kernel_seconds)
        end = time.monotonic() + float(seconds)
        with closing(self._search.run()) as rounds:
            for self._rounds, _ in enumerate(rounds, 1):
                if time.monotonic() > end:
                    break
        backend = self._engine.backend
        table = Tilings(backend.tilings.device, self._search.found())
        self._engine.backend = backend.tuned(table)
        self._load(step, arena)

    def facts(self) -> dict[str, Any]:
        """Returns the milliseconds, and which tile of each contraction won."""
        return {**super().facts(), "tiles": [*self._tiles()]}

    def _tiles(self) -> Iterator[str]:
        yield f"{self._rounds} of {self._search.rounds} rounds of the search"
        for one in self._search.contractions.values():
            won = in_words(one.best or one.tunable.tilings[0])
            times = f"{1e3 * one.before:.3f} ms, now {1e3 * one.after:.3f} ms: "
            yield f"{', '.join(one.kernels)}: {times if one.best else 'as the model has it: '}{won}"


def _step(case: Case) -> tuple[Step, Arena]:
    step, arena, *_ = step_of(read_net(text=_net(case), format="yaml"))
    return step, arena


def _net(case: Case) -> str:
    channels = case.item[0]
    fields = f"num_output: {channels}, bias_term: false, weight_filler: xavier"
    kind = "InnerProduct"
    if len(case.item) > 1:
        kind, fields = "Convolution", f"{fields}, kernel_size: 3, pad: 1"
    names = ("before", "timed", "behind")
    layers = "\n".join(f"- {{name: {name}, type: {kind}, {fields}}}" for name in names)
    return f"""layers:
- {{name: data, type: Input, shape: {list(case.shape)}}}
{layers}
- {{name: loss, type: Reduction, operation: SUMSQ, loss_weight: 1.0e-9}}
"""
