"""The GPU script: tests, first steps against the reference, then timings.

It has to run from the root of a checkout on a bare machine, without installing netdef, pytest,
llvmlite or a network; whatever is missing there is left out with a line that says so. Nothing of
it is proven without a GPU but the order of its parts (`--dry-run`, tests/bench).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from bench.cases import GPU_CASES, ROOT, Case, Mode, flops, net_spec, rates, synthetic
from bench.machine import describe
from bench.measure import Comparison, Options, Say, compare, difference
from bench.peer import Job
from bench.report import as_json
from bench.side import LeftOut, Side
from compiler.build import build
from schemas.precision import Precision

TEST_SHARE = 0.25  # of the budget: how long the GPU tests may take
# Relative differences of three losses that rounding explains; more is worth a look.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
# The reference evaluates in float64 with NumPy: only nets of so much work in a small batch are
# compared with it, the others with PyTorch alone.
CHECK_BATCH, CHECK_GFLOP = 16, 20.0
# In this order: what takes long to start comes last, and is left out when the time is over.
PEERS = ("netdef", "cuda_graph", "channels_last", "eager", "compile", "max_autotune")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `dry_run`: everything but the GPU, with one tiny net and one round."""

    nets: tuple[str, ...]
    rounds: int = 7
    precisions: tuple[Precision, ...] = ("tf32",)
    modes: tuple[Mode, ...] = ("train",)
    budget: float = 570.0
    dry_run: bool = False


def run(
    plan: Plan, say: Say, save: Callable[[str, Document], None]
) -> tuple[str, list[Comparison]]:
    """Returns a name for the result file, and the comparisons for the table.

    `save` is given the name and what is known so far, after each comparison.
    """
    begun = time.monotonic()
    name, device = ("dry-run", None) if plan.dry_run else find_gpu(say)
    document: Document = {**describe(), "gpu": device, "options": _plain(plan)}
    document["tests"] = run_tests(plan, say)
    checks: list[Document] = []
    document["check"] = checks
    for net in plan.nets:
        for precision in plan.precisions:
            checks.append(check(net, precision, plan.dry_run, say))
    found: list[Comparison] = []
    if plan.dry_run or device is not None:
        for one in timings(plan, begun + plan.budget, say):
            found.append(one)
            document["comparisons"] = [as_json(each) for each in found]
            save(name, document)
    else:
        say("no usable GPU: no timings")
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


def run_tests(plan: Plan, say: Say) -> dict[str, Any]:
    """Runs tests/gpu (in a dry run: collects them) and returns how it ended."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/gpu"]
    command += ["--collect-only"] if plan.dry_run else []
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=plan.budget * TEST_SHARE
        )
    except subprocess.TimeoutExpired:
        say("GPU tests: not done in their share of the time")
        return {"rc": None, "last": "timeout", "output": ""}
    if "No module named pytest" in done.stderr:
        say("GPU tests: left out, pytest is not installed")
        return {"rc": None, "last": "pytest is not installed", "output": ""}
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    say(f"GPU tests: {lines[-1]}")
    output = "" if done.returncode == 0 else (done.stdout + done.stderr)[-8000:]
    return {"rc": done.returncode, "last": lines[-1], "output": output}


def check(net: str, precision: Precision, dry_run: bool, say: Say) -> Document:
    """Compares the first three losses of a net with the reference's, from the same weights."""
    case = replace(GPU_CASES[net], batch=2 if dry_run else CHECK_BATCH)
    answer: Document = {"net": net, "batch": case.batch, "precision": precision}
    backend = "reference" if dry_run else "triton"
    work = flops(build(net_spec(case), "TRAIN"), training=True) / 1e9
    if work > CHECK_GFLOP:
        instead = "PyTorch's losses are the check"
        say(f"{net}: {work:.0f} GFLOP are too many for the reference: {instead}")
        return {**answer, "left_out": f"{work:.0f} GFLOP"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            weights = str(Path(folder) / "weights.safetensors")
            answer["reference"] = reference_losses(case, Path(weights))
            job = Job("netdef", case, "train", 1, backend, rates=rates(case), weights=weights)
            losses = _three_losses(replace(job, precision=precision))
        except Exception as error:  # the other nets are still worth checking
            say(f"{net} {precision}: the first steps fail: {error}")
            return {**answer, "error": str(error)}
    worst = difference(losses, answer["reference"])
    near = worst <= TOLERANCE[precision]
    verdict = "as expected" if near else f"MORE than {TOLERANCE[precision]:.0e}"
    say(f"{net}: first three losses differ by {worst:.1e} in {precision}, {verdict}")
    return {**answer, "losses": losses, "difference": worst, "within_tolerance": near}


def _three_losses(job: Job) -> list[float]:
    side = Side(job)
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


def timings(plan: Plan, deadline: float, say: Say) -> Iterator[Comparison]:
    """Measures each net beside PyTorch on the GPU; in a dry run, one on the reference backend.

    Each comparison may take an equal share of the time that is left; what one does not need, the
    next ones have.
    """
    if plan.dry_run:
        case, quick = replace(GPU_CASES[plan.nets[0]], batch=2), Options(threads=1, rounds=1)
        options = replace(quick, seconds=0.0, backend="reference", apart=True)
        yield compare(case, "train", ("netdef", "eager"), options, say)
        return
    gbytes = ceiling("copy", "gbyte", plan.precisions[0], say)
    gflops = {one: ceiling("matmul", "gflop", one, say) for one in plan.precisions}
    rows = list(product(plan.nets, plan.modes, plan.precisions))
    for done, (net, mode, precision) in enumerate(rows):
        now = time.monotonic()
        share = now + (deadline - now) / (len(rows) - done)
        options = Options(
            threads=1, rounds=plan.rounds, backend="triton", device="cuda", precision=precision,
            apart=True, deadline=share,
        )  # fmt: skip
        found = compare(GPU_CASES[net], mode, PEERS, options, say)
        found.ceiling_gbytes, found.ceiling_gflops = gbytes, gflops[precision]
        yield found


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
