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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cases import ROOT, Case, case_of, rates, synthetic
from bench.machine import describe
from bench.measure import Comparison, Options, Say, compare, difference
from bench.peer import Job
from bench.report import as_json
from bench.side import Side
from schemas.precision import Precision

TEST_SHARE = 0.4  # of the budget: how long the GPU tests may take
# Relative differences of three losses that rounding explains; more is worth a look.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2}
# The reference evaluates in float64 with NumPy: small batches of short sequences keep it short.
CHECK_BATCH, CHECK_STEPS = 16, 50


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `dry_run`: everything but the GPU, with one tiny net and one round."""

    nets: tuple[str, ...]
    rounds: int = 7
    precision: Precision = "tf32"
    compiled: bool = False
    budget: float = 570.0
    dry_run: bool = False


def run(plan: Plan, say: Say) -> tuple[str, dict[str, Any], list[Comparison]]:
    """Returns a name for the result file, the document, and the comparisons for the table."""
    begun = time.monotonic()
    name, device = ("dry-run", None) if plan.dry_run else find_gpu(say)
    document: dict[str, Any] = {**describe(), "gpu": device, "options": _plain(plan)}
    document["tests"] = run_tests(plan, say)
    document["check"] = [check(net, plan, say) for net in plan.nets[: 1 if plan.dry_run else None]]
    found: list[Comparison] = []
    if plan.dry_run or device is not None:
        found = timings(plan, begun + plan.budget, say)
    else:
        say("no usable GPU: no timings")
    document["comparisons"] = [as_json(one) for one in found]
    document["wall_s"] = time.monotonic() - begun
    return name, document, found


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


def check(net: str, plan: Plan, say: Say) -> dict[str, Any]:
    """Compares the first three losses of a net with the reference's, from the same weights."""
    case = case_of(net, 2 if plan.dry_run else CHECK_BATCH)
    case = replace(case, steps=min(case.steps, CHECK_STEPS))
    answer: dict[str, Any] = {"net": net, "batch": case.batch}
    backend = "reference" if plan.dry_run else "triton"
    with tempfile.TemporaryDirectory() as folder:
        try:
            weights = str(Path(folder) / "weights.safetensors")
            answer["reference"] = reference_losses(case, Path(weights))
            job = Job("netdef", case, "train", 1, backend, rates=rates(case), weights=weights)
            losses = _three_losses(replace(job, precision=plan.precision))
        except Exception as error:  # the other nets are still worth checking
            say(f"{net}: the first steps fail: {error}")
            return {**answer, "error": str(error)}
    worst = difference(losses, answer["reference"])
    near = worst <= TOLERANCE[plan.precision]
    verdict = "as expected" if near else f"MORE than {TOLERANCE[plan.precision]:.0e}"
    say(f"{net}: first three losses differ by {worst:.1e} from the reference, {verdict}")
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


def timings(plan: Plan, deadline: float, say: Say) -> list[Comparison]:
    """Measures each net beside PyTorch on the GPU; in a dry run, one on the reference backend."""
    peers = ["netdef", "eager", "channels_last", "cuda_graph"]
    peers += ["compile"] if plan.compiled else []
    options = Options(
        threads=1, rounds=plan.rounds, backend="triton", device="cuda",
        precision=plan.precision, ceiling="matmul", timeout=120.0, deadline=deadline,
    )  # fmt: skip
    cases = [case_of(net) for net in plan.nets]
    if plan.dry_run:
        options = Options(threads=1, rounds=1, seconds=0.0, backend="reference")
        cases, peers = [replace(case_of(plan.nets[0], 2), modes=("train",))], peers[:2]
    found = []
    for case in cases:
        for mode in case.modes:
            found.append(compare(case, mode, (*peers, options.ceiling), options, say))
    return found


def _plain(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
