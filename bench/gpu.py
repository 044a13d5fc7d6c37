"""The GPU script: tests; each net's first steps against the reference, and its timings; operations.

It has to run from the root of a checkout on a bare machine, without installing netdef, pytest,
llvmlite or a network; whatever is missing there is left out with a line that says so. What fails
says where, costs its share of the time, and leaves the rest alone. `--dry-run` does all of it
without a GPU: the machine code is real, and is launched on the driver made of Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from bench.cases import GPU_CASES, OPERATIONS, ROOT, Case, Mode, flops, net_spec, rates, synthetic
from bench.machine import describe
from bench.measure import Comparison, Options, Say, compare, difference
from bench.peer import Job
from bench.report import as_json
from bench.side import LeftOut, Side
from compiler.build import build
from schemas.precision import Precision

TESTS = [sys.executable, "-m", "pytest", "-q", "tests/gpu"]
TEST_SHARE = 0.25  # of the budget: how long the GPU tests may take
# Relative differences of three losses that rounding explains; more is worth a look.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
# The reference evaluates in float64 with NumPy: only nets of so much work in a small batch are
# compared with it, the others with PyTorch alone.
CHECK_BATCH, CHECK_GFLOP = 16, 20.0
# In this order: what takes long to start comes last, and is left out when the time is over.
PEERS = ("netdef", "cuda_graph", "channels_last", "eager", "compile", "max_autotune")

Document = dict[str, Any]
# Adds to the document and the comparisons, begins nothing new after its time, says what it does.
Part = Callable[[Document, list[Comparison], float, Say], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `dry_run`: everything but the GPU, in tiny batches, and one round."""

    nets: tuple[str, ...]
    rounds: int = 7
    precisions: tuple[Precision, ...] = ("tf32",)
    modes: tuple[Mode, ...] = ("train",)
    operations: tuple[str, ...] = ()
    budget: float = 570.0
    dry_run: bool = False

    @property
    def backend(self) -> str:
        """Returns netdef's backend."""
        return "fake" if self.dry_run else "triton"

    @property
    def device(self) -> str:
        """Returns PyTorch's device."""
        return "cpu" if self.dry_run else "cuda"


def run(
    plan: Plan, say: Say, save: Callable[[str, Document], None]
) -> tuple[str, list[Comparison]]:
    """Returns a name for the result file, and the comparisons for the table.

    `save` is given the name and what is known so far, after each part.
    """
    begun = time.monotonic()
    deadline = begun + plan.budget
    name, device = ("dry-run", None) if plan.dry_run else find_gpu(say)
    document: Document = {**describe(), "gpu": device, "options": _plain(plan)}
    found: list[Comparison] = []
    parts: list[tuple[str, Part]] = [("the GPU tests", partial(run_tests, plan))]
    if plan.dry_run or device is not None:
        rows = product(plan.nets, plan.modes, plan.precisions)
        ceilings = ceilings_of(plan, say)
        for net, mode, precision in rows:
            if mode == "train":
                parts.append((f"{net} {precision}", partial(check, net, precision, plan.dry_run)))
            timed = partial(timing, plan, net, mode, precision, ceilings[precision])
            parts.append((f"{net} {mode} {precision}", timed))
        for which, precision in product(plan.operations, plan.precisions):
            parts.append((f"{which} {precision}", partial(operation, plan, which, precision)))
    else:
        say("no usable GPU: no timings")
    for done, (what, part) in enumerate(parts):
        now = time.monotonic()
        share = now + (deadline - now) / (len(parts) - done)
        try:
            part(document, found, share, say)
        except Exception as error:  # the others are still worth running
            trace = traceback.format_exc()
            document.setdefault("failed", {})[what] = trace
            say(f"{what} fails: {error}\n{trace[-4000:]}")
        document["comparisons"] = [as_json(each) for each in found]
        document["wall_s"] = time.monotonic() - begun
        save(name, document)
    return name, found


def find_gpu(say: Say) -> tuple[str, dict[str, Any] | None]:
    """Returns a name for the result file, and the GPU as netdef's runtime and the driver see it."""
    try:
        from runtime.cuda import usable_gpu

        target = usable_gpu()
    except Exception as error:  # a broken installation is a finding, not a reason to stop
        say(f"no GPU runtime: {error}")
        target = None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=30)
        line = asked.stdout.splitlines()[0] if asked.stdout else ""
    except (OSError, subprocess.TimeoutExpired):
        line = ""
    if target is None:
        say("netdef finds no usable GPU here")
        return "no-gpu", None
    name = line.split(",")[0].strip() or target
    say(f"{name} ({target})")
    return file_name(name), {"name": name, "target": target, "driver": line}


def file_name(gpu: str) -> str:
    """Returns a GPU's name as one of a file: `NVIDIA H100 80GB HBM3` is nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def run_tests(
    plan: Plan, document: Document, found: list[Comparison], deadline: float, say: Say
) -> None:
    """Runs tests/gpu, in a dry run those that need no GPU, and keeps how it ended."""
    known = document["tests"] = {"rc": None, "last": "", "output": ""}
    try:
        done = subprocess.run(
            TESTS, cwd=ROOT, capture_output=True, text=True, timeout=plan.budget * TEST_SHARE
        )
    except subprocess.TimeoutExpired:
        say("GPU tests: not done in their share of the time")
        known["last"] = "timeout"
        return
    if "No module named pytest" in done.stderr:
        say("GPU tests: left out, pytest is not installed")
        known["last"] = "pytest is not installed"
        return
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    say(f"GPU tests: {lines[-1]}")
    output = "" if done.returncode == 0 else (done.stdout + done.stderr)[-8000:]
    known.update(rc=done.returncode, last=lines[-1], output=output)
    if output:
        say(output)


def check(
    net: str,
    precision: Precision,
    dry_run: bool,
    document: Document,
    found: list[Comparison],
    deadline: float,
    say: Say,
) -> None:
    """Compares the first three losses of a net with the reference's, from the same weights."""
    case = replace(GPU_CASES[net], batch=2 if dry_run else CHECK_BATCH)
    answer: Document = {"net": net, "batch": case.batch, "precision": precision}
    document.setdefault("check", []).append(answer)
    backend = "reference" if dry_run else "triton"
    work = flops(build(net_spec(case), "TRAIN"), training=True) / 1e9
    if work > CHECK_GFLOP:
        instead = "PyTorch's losses are the check"
        say(f"{net}: {work:.0f} GFLOP are too many for the reference: {instead}")
        answer["left_out"] = f"{work:.0f} GFLOP"
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "weights.safetensors")
        try:
            answer["reference"] = reference_losses(case, Path(weights))
            job = Job("netdef", case, "train", 1, backend, rates=rates(case), weights=weights)
            left = max(1.0, deadline - time.monotonic())
            losses = _three_losses(replace(job, precision=precision), left)
        except LeftOut as reason:
            say(f"{net} {precision}: the first steps fail: {reason}\n{reason.trace}")
            answer.update(error=str(reason), trace=reason.trace)
            return
    worst = difference(losses, answer["reference"])
    near = worst <= TOLERANCE[precision]
    verdict = "as expected" if near else f"MORE than {TOLERANCE[precision]:.0e}"
    say(f"{net}: first three losses differ by {worst:.1e} in {precision}, {verdict}")
    answer.update(losses=losses, difference=worst, within_tolerance=near)


def _three_losses(job: Job, timeout: float) -> list[float]:
    side = Side(job, timeout=timeout)
    try:
        losses: list[float] = side.ask("more", steps=2)["result"]
    finally:
        side.stop()
    return losses


def reference_losses(case: Case, weights: Path) -> list[float]:
    """Writes the weights that both start from; returns the reference's first three losses."""
    from bench.netdef_side import NetdefPeer, write_weights

    write_weights(case, weights)
    job = Job("netdef", case, "train", 1, "reference", weights=str(weights))
    peer = NetdefPeer(job, synthetic(case))
    peer.run(3)
    losses = peer.result()
    peer.close()
    return losses


def timing(
    plan: Plan,
    net: str,
    mode: Mode,
    precision: Precision,
    ceilings: tuple[float | None, float | None],
    document: Document,
    found: list[Comparison],
    deadline: float,
    say: Say,
) -> None:
    """Measures a net beside PyTorch, whose eager form alone is there in a dry run, on the CPU."""
    options = Options(
        threads=1, rounds=plan.rounds, backend=plan.backend, device=plan.device,
        precision=precision, apart=True, deadline=deadline,
    )  # fmt: skip
    case, peers = GPU_CASES[net], list(PEERS)
    if plan.dry_run:
        options = replace(options, rounds=1, seconds=0.0)
        case, peers = replace(case, batch=2), ["netdef", "eager"]
    one = compare(case, mode, peers, options, say)
    one.ceiling_gbytes, one.ceiling_gflops = ceilings
    found.append(one)


def operation(
    plan: Plan,
    which: str,
    precision: Precision,
    document: Document,
    found: list[Comparison],
    deadline: float,
    say: Say,
) -> None:
    """Times a single operation beside cuBLAS or cuDNN."""
    from bench.micro import time_operation

    case = OPERATIONS[which]
    if plan.dry_run:
        case = replace(case, batch=2, item=tuple(min(n, 64) for n in case.item))
    left = max(1.0, deadline - time.monotonic())
    job = Job("", case, "train", 1, plan.backend, plan.device, precision)
    one = time_operation(job, left, say)
    document.setdefault("operations", []).append(one.plain())


def ceilings_of(plan: Plan, say: Say) -> dict[Precision, tuple[float | None, float | None]]:
    """Returns the speeds of a copy (GB/s) and of a product (GFLOP/s) in PyTorch, by precision."""
    if plan.dry_run:
        return dict.fromkeys(plan.precisions, (None, None))
    gbytes = ceiling("copy", "gbyte", plan.precisions[0], say)
    return {one: (gbytes, ceiling("matmul", "gflop", one, say)) for one in plan.precisions}


def ceiling(peer: str, fact: str, precision: Precision, say: Say) -> float | None:
    """Returns what PyTorch reaches in a second in one large operation, None without it."""
    job = Job(peer, GPU_CASES["lenet"], "train", 1, device="cuda", precision=precision)
    try:
        side = Side(job)
        try:
            ms = min(side.ask("time", seconds=0.2)["ms"] for _ in range(3))
            speed: float = side.ask("facts")[fact] / ms * 1e3
        finally:
            side.stop()
    except LeftOut as reason:
        say(f"no ceiling from {peer}: {reason}")
        return None
    say(f"{peer} {precision}: {speed:,.0f} {'GB/s' if fact == 'gbyte' else 'GFLOP/s'}")
    return speed


def _plain(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
