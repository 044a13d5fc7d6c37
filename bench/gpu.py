"""The GPU script: tests; each net's first steps against the reference, and its timings; operations.

It has to run from the root of a checkout on a bare machine, without installing netdef, pytest,
llvmlite or a network; whatever is missing there is left out with a line that says so. What fails
says where and leaves the rest alone; what hangs is stopped after its share of the time. All that is
found is added to what the result file has. `--dry-run` does all of it without a GPU: the machine
code is real, and is launched on the driver made of Python.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from bench import commands
from bench.cases import CHECK_CASES, GPU_CASES, OPERATIONS, Case, Mode
from bench.machine import commit, describe, processors
from bench.measure import (
    EARLY,
    LATE,
    OURS,
    Comparison,
    Options,
    Say,
    compare,
    difference,
    merged,
    weights_path,
)
from bench.peer import Job
from bench.report import as_json, from_json
from bench.side import LeftOut, Side
from bench.targets import SMALL
from schemas.precision import Precision

# Relative differences of three losses that rounding explains; more is worth a look.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
# What takes long to start comes when everybody else was measured on every net.
QUICK, SLOW, SLOWEST = (
    (OURS, EARLY, "cuda_graph", "channels_last", "eager"),
    ("compile",),
    ("max_autotune",),
)
# Training of these says what programmatic dependent launch gains: short launches, and long ones.
EARLY_NETS = ("lenet", "mlp", "resnet50")
# Seconds that a process may take before its first step is done, or to answer.
LIMIT, LIMITS = 90.0, {"compile": 150.0, "max_autotune": 300.0}
TESTING, PREPARING, LOCATING = 120.0, 180.0, 120.0
COMPILING = 1200.0  # where nobody waits for it
FAILED = "its check fails"  # as its rows would, or hang for as long again

Document = dict[str, Any]
Part = tuple[str, Callable[[], None]]  # what it is, and what it does


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `dry_run`: everything but the GPU, in tiny batches, and one round."""

    nets: tuple[str, ...]
    rounds: int = 7
    precisions: tuple[Precision, ...] = ("tf32",)
    modes: tuple[Mode, ...] = ("train",)
    operations: tuple[str, ...] = ()
    budget: float = 540.0
    missing: bool = False  # only what the result file has not
    dry_run: bool = False

    def case(self, net: str) -> Case:
        """Returns a net in the batch of its row."""
        case = GPU_CASES[net]
        return replace(case, batch=2) if self.dry_run else case

    def check_case(self, net: str) -> Case:
        """Returns a net as the reference can evaluate it."""
        case = CHECK_CASES[net]
        return replace(case, batch=2) if self.dry_run else case

    def operation(self, which: str) -> Case:
        """Returns an operation as it is timed."""
        case = OPERATIONS[which]
        small = tuple(min(n, 64) for n in case.item)
        return replace(case, batch=2, item=small) if self.dry_run else case


@dataclass
class Script:
    """One call of the script. `gpu`: what find_gpu says; `document`: the result file, as it was."""

    plan: Plan
    gpu: dict[str, Any] | None
    document: Document
    say: Say
    save: Callable[[Document], None]
    rows: dict[tuple[str, str, str], Comparison] = field(default_factory=dict)
    folder: Path = field(init=False)  # of weights
    deadline: float = field(init=False)

    def run(self) -> None:
        """Does one part after the other until the time is over; saves after each."""
        begun = time.monotonic()
        self.deadline = begun + self.plan.budget
        self.read()
        self.document |= {**describe(), "gpu": self.gpu}
        this = {name: getattr(self.plan, name) for name in Plan.__dataclass_fields__}
        self.document.setdefault("calls", []).append(this)
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            for what, part in self.parts():
                if time.monotonic() >= self.deadline:
                    self.say(f"{what} and all after it: {LATE}")
                    break
                try:
                    part()
                    self.document.get("failed", {}).pop(what, None)
                except Exception as error:  # the others are still worth running
                    trace = traceback.format_exc()
                    self.kept("failed")[what] = trace
                    self.say(f"{what} fails: {error}\n{trace[-4000:]}")
                self.document["comparisons"] = [as_json(each) for each in self.rows.values()]
                this |= {"commit": commit(), "wall_s": time.monotonic() - begun}
                self.save(self.document)

    def read(self) -> None:
        """Takes the rows from the result file."""
        for plain in self.document.get("comparisons", ()):
            one = from_json(plain)
            self.rows[one.net, one.mode, one.precision] = one

    def parts(self) -> Iterator[Part]:
        """Yields what there is to do, what is worth most first."""
        plan = self.plan
        if self.wanted("tests", "gpu"):
            yield "the GPU tests", self.tests
        if not plan.dry_run and self.gpu is None:
            self.say("no usable GPU: no timings")
            return
        yield "programs", self.prepare
        for precision in plan.precisions:
            if not plan.dry_run and self.wanted("ceilings", precision):
                yield f"ceilings {precision}", partial(self.ceiling, precision)
        for precision in plan.precisions:
            for net in plan.nets:
                if self.checked(net, precision):
                    yield f"check {net} {precision}", partial(self.check, net, precision)
                yield from self.timings("train", QUICK, precision, net)
            for which in plan.operations:
                if self.wanted("operations", f"{which} {precision}"):
                    yield f"{which} {precision}", partial(self.operation, which, precision)
        small = tuple(net for net in plan.nets if net in SMALL)
        large = tuple(net for net in plan.nets if net not in SMALL)
        stages: tuple[tuple[Mode, tuple[str, ...], tuple[str, ...]], ...] = (
            ("train", (*SLOW, *SLOWEST), small),  # then their best mode is known
            ("train", SLOW, large),
            ("infer", QUICK, plan.nets),
            ("infer", SLOW, plan.nets),
            ("train", SLOWEST, large),
            ("infer", SLOWEST, plan.nets),
        )
        for mode, peers, nets in stages:
            for precision, net in product(plan.precisions, nets):
                yield from self.timings(mode, peers, precision, net)

    def kept(self, section: str) -> Document:
        """Returns a section of the result file."""
        found: Document = self.document.setdefault(section, {})
        return found

    def wanted(self, section: str, key: str) -> bool:
        """Says whether something is to be found out that may be in the file."""
        return not (self.plan.missing and key in self.kept(section))

    def checked(self, net: str, precision: Precision) -> bool:
        """Says whether a net's first losses are to be compared with the reference's."""
        return "train" in self.plan.modes and self.wanted("check", f"{net} {precision}")

    def peers(
        self, mode: Mode, peers: tuple[str, ...], precision: Precision, net: str
    ) -> tuple[str, ...]:
        """Returns which of these peers are to be timed on a net: all, or those not in the file."""
        if mode not in self.plan.modes:
            return ()
        if self.plan.dry_run:  # on the CPU, PyTorch's eager mode stands for all
            peers = tuple(p for p in peers if p in (OURS, EARLY, "eager"))
        if mode != "train" or net not in EARLY_NETS:
            peers = tuple(p for p in peers if p != EARLY)
        known = self.rows.get((net, mode, precision))
        if known is None or not self.plan.missing:
            return peers
        done = {r.peer for r in known.results if r.ms}
        done |= {peer for peer, why in known.left_out.items() if why != LATE}
        return tuple(p for p in peers if p not in done)

    def timings(
        self, mode: Mode, peers: tuple[str, ...], precision: Precision, net: str
    ) -> Iterator[Part]:
        """Yields the timing of these peers, if there is one to be done."""
        if peers := self.peers(mode, peers, precision, net):
            what = f"{net} {mode} {precision}: {', '.join(peers)}"
            yield what, partial(self.timing, net, mode, precision, peers)

    def left(self, limit: float) -> float:
        """Returns the seconds that something may take which is given `limit` seconds."""
        return max(1.0, min(limit, self.deadline - time.monotonic()))

    def tests(self) -> None:
        """Runs the tests that need a GPU, and keeps how they ended."""
        found = self.kept("tests")["gpu"] = commands.gpu_tests(self.left(TESTING))
        self.say(f"GPU tests: {found['last']}\n{found['output']}".rstrip())

    def compile(self) -> None:
        """Does beforehand what needs no GPU: compiles, and asks the reference."""
        self.deadline = time.monotonic() + self.plan.budget
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            self.prepare(COMPILING)
        self.save(self.document)

    def prepare(self, limit: float = PREPARING) -> None:
        """Compiles all programs, writes weights, asks the reference: on all processors at once.

        Each may take `limit` seconds.
        """
        plan = self.plan
        with ThreadPoolExecutor(processors()) as pool:
            written: dict[str, Future[list[float]]] = {}
            for case in [of(net) for of in (plan.case, plan.check_case) for net in plan.nets]:
                path = str(weights_path(case, self.folder))
                if path not in written:
                    job = Job("weights", case, "train", 1, weights=path)
                    written[path] = pool.submit(self.alone, job, limit)
            begun: list[Future[Any]] = []
            for job in dict.fromkeys(self.programs()):
                begun.append(pool.submit(self.alone, job, limit))
            for net in plan.nets:
                if self.wanted("reference", net):
                    case = plan.check_case(net)
                    path = str(weights_path(case, self.folder))
                    job = Job("netdef", case, "train", 2, "reference", weights=path)
                    begun.append(pool.submit(self.reference, job, written[path], limit))
        for one in (*written.values(), *begun):
            if not isinstance(error := one.exception(), LeftOut | None):
                raise error

    def programs(self) -> Iterator[Job]:
        """Yields the programs that will be run, the largest first; some twice in a dry run."""
        plan = self.plan
        target = self.gpu["target"] if self.gpu else "sm_90"
        for net, precision in product(reversed(plan.nets), plan.precisions):
            made = partial(Job, "program", threads=1, device=target, precision=precision)
            for mode in plan.modes:
                if self.peers(mode, (OURS,), precision, net):
                    yield made(case=plan.case(net), mode=mode)
            if self.checked(net, precision):
                yield made(case=plan.check_case(net), mode="train")
        for which, precision in product(plan.operations, plan.precisions):
            if self.wanted("operations", f"{which} {precision}"):
                case = plan.operation(which)
                yield Job("operation", case, "train", 1, device=target, precision=precision)

    def alone(self, job: Job, limit: float) -> list[float]:
        """Returns what a job's peer gives after three steps, in a process of its own."""
        what = f"{job.peer} of {job.case.net} ({job.mode}, {job.precision})"
        if job.backend == "reference":
            what = f"the reference's losses of {job.case.net}"
        begun = time.monotonic()
        try:
            side = Side(job, timeout=self.left(limit))
            try:
                found: list[float] = side.ask("more", steps=2)["result"]
            finally:
                side.stop()
        except LeftOut as reason:
            self.say(f"{what}: {reason}\n{reason.trace}".rstrip())
            raise
        self.say(f"{what}: {time.monotonic() - begun:.1f} s")
        return found

    def reference(self, job: Job, written: Future[list[float]], limit: float) -> None:
        """Keeps the first three losses of a net on the reference backend."""
        written.result()
        self.kept("reference")[job.case.net] = self.alone(job, limit)

    def check(self, net: str, precision: Precision) -> None:
        """Compares the first three losses of a net with the reference's, from the same weights."""
        key, case = f"{net} {precision}", self.plan.check_case(net)
        answer: Document = {"batch": case.batch, "item": case.item}
        expected = self.kept("reference").get(net)
        if expected is None:
            self.say(f"{net} {precision}: there are no losses of the reference to compare with")
            return
        weights = str(weights_path(case, self.folder))
        backend = "reference" if self.plan.dry_run else "triton"
        job = Job("netdef", case, "train", 1, backend, weights=weights)
        try:
            losses = self.alone(replace(job, precision=precision), LIMIT)
        except LeftOut as reason:
            if time.monotonic() < self.deadline:  # else another call tries again
                answer.update(error=str(reason), trace=reason.trace, within_tolerance=False)
                self.kept("check")[key] = answer
                self.locate(net, precision, case)
            return
        worst = difference(losses, expected)
        near = worst <= TOLERANCE[precision]
        verdict = "as expected" if near else f"MORE than {TOLERANCE[precision]:.0e}"
        self.say(f"{net}: first three losses differ by {worst:.1e} in {precision}, {verdict}")
        answer.update(losses=losses, difference=worst, within_tolerance=near)
        self.kept("check")[key] = answer
        if not near:
            self.locate(net, precision, case)

    def locate(self, net: str, precision: Precision, case: Case) -> None:
        """Looks for the kernel that fails or is off; keeps what is said."""
        if self.plan.dry_run:
            return
        said = commands.located(net, precision, case, self.left(LOCATING))
        self.kept("located")[f"{net} {precision} {case.batch}"] = said
        self.say("\n".join(said.splitlines()[-12:]))

    def timing(self, net: str, mode: Mode, precision: Precision, peers: tuple[str, ...]) -> None:
        """Measures peers on a net, one after the other, and adds them to its row."""
        plan, key = self.plan, (net, mode, precision)
        options = Options(
            threads=1, rounds=plan.rounds, precision=precision, apart=True,
            backend="fake" if plan.dry_run else "triton",
            device="cpu" if plan.dry_run else "cuda",
            timeout=max(LIMITS.get(peer, LIMIT) for peer in peers),
            deadline=self.deadline, folder=self.folder,
        )  # fmt: skip
        if plan.dry_run:  # the driver made of Python reads the machine code of every binary
            options = replace(options, rounds=1, seconds=0.0, timeout=PREPARING)
        check = self.kept("check").get(f"{net} {precision}", {}) if mode == "train" else {}
        hopeless = {p: FAILED for p in peers if p in (OURS, EARLY) and "error" in check}
        others = [p for p in peers if p not in hopeless]
        one = compare(plan.case(net), mode, others, options, self.say)
        one.left_out |= hopeless
        if key in self.rows:
            one = merged(self.rows[key], one)
        ceilings = self.kept("ceilings").get(precision, {})
        one.ceiling_gbytes, one.ceiling_gflops = ceilings.get("copy"), ceilings.get("matmul")
        one.commit = commit()
        self.rows[key] = one
        if mode == "train" and OURS in others and one.left_out.get(OURS, LATE) != LATE:
            self.locate(net, precision, plan.case(net))

    def operation(self, which: str, precision: Precision) -> None:
        """Times a single operation beside cuBLAS or cuDNN."""
        from bench.micro import time_operation

        backend, device = ("fake", "cpu") if self.plan.dry_run else ("triton", "cuda")
        job = Job("", self.plan.operation(which), "train", 1, backend, device, precision)
        one = time_operation(job, self.left(LIMIT), self.say, search=not self.plan.nets)
        if time.monotonic() < self.deadline or not one.left_out:
            self.kept("operations")[f"{which} {precision}"] = one.plain()

    def ceiling(self, precision: Precision) -> None:
        """Keeps the speeds of a copy (GB/s) and of a product (GFLOP/s) in PyTorch."""
        found = {}
        for peer, fact in (("copy", "gbyte"), ("matmul", "gflop")):
            job = Job(peer, GPU_CASES["lenet"], "train", 1, device="cuda", precision=precision)
            side = Side(job, timeout=self.left(LIMIT))
            try:
                ms = min(side.ask("time", seconds=0.2)["ms"] for _ in range(3))
                found[peer] = side.ask("facts")[fact] / ms * 1e3
            finally:
                side.stop()
            self.say(f"{peer} {precision}: {found[peer]:,.0f} G{fact[1:]}/s")
        self.kept("ceilings")[precision] = found
