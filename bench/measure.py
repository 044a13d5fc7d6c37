"""Measures peers side by side: same weights, same batch, interleaved rounds."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.cases import Case, Mode, rates
from bench.peer import Job
from bench.plain_net import Layer, plain_net
from bench.side import LeftOut, Side
from schemas.precision import Precision

Say = Callable[[str], None]
OURS = "netdef"
EARLY = "netdef_pdl"  # the same, with programmatic dependent launch
LATE = "the time is over"
# Seconds in which the threads of the peer before fall asleep: OpenMP's spin, and would take a core.
_PAUSE = 0.3


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure; `deadline` is a time.monotonic() after which nothing new is begun."""

    threads: int = 2
    rounds: int = 7
    seconds: float = 0.2  # of one peer in one round
    backend: str = "cpu"
    device: str = "cpu"
    precision: Precision = "fp32"
    apart: bool = False  # one peer after the other, as all of them do not fit into a GPU's memory
    timeout: float = 300.0
    deadline: float = float("inf")
    folder: Path | None = None  # where weights are kept for other comparisons


@dataclass(slots=True)
class Result:
    """One peer on one net: milliseconds a step in each round, and what else is known."""

    peer: str
    ms: list[float] = field(default_factory=list)
    first_step_s: float = 0.0
    peak_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)  # three losses, or outputs; for the check
    difference: float | None = None  # from the first peer's values, relative to the largest

    @property
    def median(self) -> float:
        return statistics.median(self.ms)


@dataclass(slots=True)
class Comparison:
    """All peers on one net in one mode. `ratio` is netdef's time over that of `best`, by round."""

    net: str
    mode: Mode
    batch: int
    results: list[Result] = field(default_factory=list)
    ceiling_gflops: float | None = None
    best: str | None = None  # the fastest peer that is not netdef
    ratio: list[float] = field(default_factory=list)
    ratio_of_minima: float | None = None  # of each one's fastest round: least disturbed
    left_out: dict[str, str] = field(default_factory=dict)
    trace: str = ""  # what netdef printed last, where it is left out
    precision: Precision = "fp32"
    ceiling_gbytes: float | None = None  # of memory, in a second; known on a GPU
    commit: str | None = None  # that this was last added to by

    @property
    def gflop(self) -> float | None:
        """Returns the work of a step: netdef counts it."""
        return self._fact("gflop")

    @property
    def floor_ms(self) -> float | None:
        """Returns the time that the work of a step, or its least traffic, takes at the ceilings."""
        gflop, gbytes = self._fact("gflop"), self._fact("ideal_gbytes")
        parts = ((gflop, self.ceiling_gflops), (gbytes, self.ceiling_gbytes))
        return max((1e3 * much / speed for much, speed in parts if much and speed), default=None)

    def _fact(self, name: str) -> float | None:
        return next((r.facts[name] for r in self.results if name in r.facts), None)


def compare(
    case: Case, mode: Mode, peers: Sequence[str], options: Options, say: Say = print
) -> Comparison:
    """Measures the peers on one net. Peers that cannot take part are left out, with a line."""
    found = Comparison(case.net, mode, case.batch, precision=options.precision)
    with tempfile.TemporaryDirectory() as folder:
        try:
            weights = _weights(case, options.folder or Path(folder))
            layers = plain_net(case, mode)
        except Exception as error:  # the net does not build here: nobody can be measured on it
            found.left_out = dict.fromkeys(peers, f"{case.net}: {error}")
            say(f"{case.net} is left out: {error}")
            return found
        jobs = [_job(peer, case, mode, options, weights, layers) for peer in peers]
        for together in [[job] for job in jobs] if options.apart else [jobs]:
            sides = _start(together, found, options, say)
            try:
                _values(sides, found, say)
                _rounds(sides, found, options, say)
            finally:
                for side in sides:
                    side.stop()
    _check(found, say)
    _conclude(found)
    return found


def merged(old: Comparison, new: Comparison) -> Comparison:
    """Returns two comparisons of one net as one: of who is in both, what is new."""
    again = {r.peer for r in new.results} | new.left_out.keys()
    kept = [r for r in old.results if r.peer not in again]
    left_out = {peer: why for peer, why in old.left_out.items() if peer not in again}
    results = sorted([*new.results, *kept], key=lambda r: r.peer != OURS)
    both = replace(new, results=results, left_out=left_out | new.left_out)
    both.trace = new.trace if OURS in again else old.trace
    _check(both, lambda text: None)
    _conclude(both)
    return both


def weights_path(case: Case, folder: Path) -> Path:
    """Returns the file of the weights that all start from; they are the same for every batch."""
    item = "x".join(map(str, case.item))
    return folder / f"{case.net}-{item}.safetensors"


def _weights(case: Case, folder: Path) -> str:
    from bench.netdef_side import write_weights

    path = weights_path(case, folder)
    if not path.exists():
        write_weights(case, path)
    return str(path)


def _job(
    peer: str, case: Case, mode: Mode, options: Options, weights: str, layers: tuple[Layer, ...]
) -> Job:
    return Job(
        peer,
        case,
        mode,
        options.threads,
        backend=options.backend,
        device=options.device,
        precision=options.precision,
        rates=rates(case) if mode == "train" else None,
        weights=weights,
        layers=layers,
    )


def _start(jobs: Sequence[Job], found: Comparison, options: Options, say: Say) -> list[Side]:
    """Starts one process after another, so that each has the machine for its first step."""
    sides = []
    for job in jobs:
        left = options.deadline - time.monotonic()
        try:
            if left <= 0:
                raise LeftOut(LATE)
            side = Side(job, timeout=min(options.timeout, left))
        except LeftOut as reason:
            late = left < options.timeout and time.monotonic() >= options.deadline
            _leave_out(found, job.peer, LeftOut(LATE, reason.trace) if late else reason, say)
            continue
        sides.append(side)
        found.results.append(Result(job.peer, first_step_s=side.first_step_s))
    return sides


def _leave_out(found: Comparison, peer: str, reason: LeftOut, say: Say) -> None:
    found.left_out[peer] = str(reason)
    found.results = [r for r in found.results if r.peer != peer]
    say(f"{found.net} {found.mode}: {peer} is left out: {reason}")
    if peer == OURS and reason.trace:
        found.trace = reason.trace
        say(reason.trace)


def _values(sides: list[Side], found: Comparison, say: Say) -> None:
    """Asks for the first three losses, or the outputs."""
    for side in list(sides):
        try:
            _result(found, side).values = side.ask("more", steps=2)["result"]
        except LeftOut as reason:
            sides.remove(side)
            _leave_out(found, side.job.peer, reason, say)


def _check(found: Comparison, say: Say) -> None:
    """Compares the first three losses, or the outputs, with those of the first peer.

    Outputs are not kept in files: what was measured in another run is not compared again.
    """
    first = next((r for r in found.results if r.values or r.difference is not None), None)
    if first is None:
        return
    reference = first.values
    for result in found.results:
        if result.values:
            result.difference = difference(result.values, reference) if reference else None
    what = "three losses" if found.mode == "train" else "outputs"
    checked = [r for r in found.results if r.difference is not None]
    if len(checked) > 1:
        first, *others = checked
        values = " ".join(f"{x:.6f}" for x in first.values[:3])
        shown = ", ".join(f"{r.peer} {r.difference:.1e}" for r in others)
        say(f"{found.net} {found.mode}: {what} of {first.peer} {values}; relative to them: {shown}")


def difference(values: Sequence[float], reference: Sequence[float]) -> float:
    """Returns the largest difference over the largest reference value; inf for other lengths."""
    if len(values) != len(reference) or not reference:
        return float("inf")
    scale = max(abs(x) for x in reference) or 1.0
    worst = max(abs(a - b) for a, b in zip(values, reference, strict=True)) / scale
    return worst if worst == worst else float("inf")  # NaN


def _rounds(sides: list[Side], found: Comparison, options: Options, say: Say) -> None:
    """Times A B C, B C A, ...: whatever slows the machine for a while slows all of them."""
    for number in range(options.rounds):
        turn = number % max(1, len(sides))
        for side in sides[turn:] + sides[:turn]:
            if not options.apart:
                time.sleep(_PAUSE)
            try:
                _result(found, side).ms.append(side.ask("time", seconds=options.seconds)["ms"])
            except LeftOut as reason:
                sides.remove(side)
                _leave_out(found, side.job.peer, reason, say)
    for side in list(sides):
        try:
            facts = side.ask("facts")
        except LeftOut as reason:
            sides.remove(side)
            _leave_out(found, side.job.peer, reason, say)
            continue
        result = _result(found, side)
        result.peak_bytes, result.facts = facts.pop("peak_bytes"), facts


def _result(found: Comparison, side: Side) -> Result:
    return next(r for r in found.results if r.peer == side.job.peer)


def _conclude(found: Comparison) -> None:
    """Takes the ceiling out of the results; finds the best other peer and the ratios to it."""
    for ceiling in [r for r in found.results if r.peer == "sgemm"]:
        found.results.remove(ceiling)
        found.ceiling_gflops = ceiling.facts["gflop"] / ceiling.median * 1e3
    ours = next((r for r in found.results if r.peer == OURS), None)
    others = [r for r in found.results if r.peer not in (OURS, EARLY) and r.ms]
    if others:
        best = min(others, key=lambda r: r.median)
        found.best = best.peer
        if ours is not None:
            found.ratio = [a / b for a, b in zip(ours.ms, best.ms, strict=True)]
            found.ratio_of_minima = min(ours.ms) / min(best.ms)
