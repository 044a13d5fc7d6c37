"""What the GPU script has others do for it, in processes of their own and for a limited time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from bench.cases import ROOT, Case
from bench.machine import processors
from schemas.precision import Precision

TESTS = [sys.executable, "-m", "pytest", "-q", "tests/gpu/test_cuda_device.py"]
HANGING = 45  # seconds of a test: then it is named and ends its process, and xdist starts another
_KEPT = 30_000  # letters: some failures of tests, with what they were given


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its status, None if it was stopped, and what it has printed."""

    status: int | None
    output: str
    errors: str = ""


def gpu_tests(timeout: float) -> dict[str, int | str | None]:
    """Runs the tests that need a GPU; returns the status, the last line, and all if one fails."""
    options = [f"faulthandler_timeout={HANGING}", "faulthandler_exit_on_timeout=true"]
    many = ["-n", str(min(8, processors()))] if find_spec("xdist") else []
    ended = _run([*TESTS, *(word for one in options for word in ("-o", one)), *many], timeout)
    if "No module named pytest" in ended.errors:
        return {"rc": None, "last": "left out, pytest is not installed", "output": ""}
    output = (ended.errors + ended.output)[-_KEPT:]
    if ended.status is None:
        return {"rc": None, "last": "not done in their share of the time", "output": output}
    lines = ended.output.strip().splitlines() or ended.errors.strip().splitlines() or [""]
    return {"rc": ended.status, "last": lines[-1], "output": output if ended.status else ""}


def located(net: str, precision: Precision, case: Case, timeout: float) -> str:
    """Looks for the kernel that fails or is off; returns what is said.

    A kernel that hangs is stopped with it: it is in the last line.
    """
    options = ["--batch", str(case.batch), "--precision", precision]
    options += ["--side", str(case.item[-1])] if len(case.item) > 1 else []
    ended = _run([sys.executable, "-m", "bench", "locate", net, *options], timeout)
    late = "not done in its share of the time\n" if ended.status is None else ""
    return (ended.output + ended.errors + late)[-_KEPT:]


def _run(command: list[str], timeout: float) -> Ended:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        return Ended(None, _text(late.stdout), _text(late.stderr))
    return Ended(done.returncode, done.stdout, done.stderr)


def _text(output: str | bytes | None) -> str:
    """Returns what a process that was stopped has printed: bytes, whatever was asked for."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
