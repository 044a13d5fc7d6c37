"""What a measurement depends on: processor, GPU, versions, commit, load, date."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cases import ROOT

PACKAGES = ("numpy", "llvmlite", "triton", "cuda-bindings", "torch")
_VECTOR = ("avx", "fma", "amx", "f16c", "sse4_2", "asimd", "sve", "neon", "bf16")


def describe() -> dict[str, Any]:
    """Returns the machine's name, processor, versions, the commit and the date."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "machine": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "processors": processors(),
        "load_before": load,  # processes that wanted a processor in the last minute
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def processors() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version(package: str) -> str | None:
    """Returns the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Returns the processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Returns the vector and matrix extensions."""
    words = (_cpuinfo("flags") or _cpuinfo("Features") or "").split()
    return sorted(word for word in words if word.startswith(_VECTOR) or word in _VECTOR)


def _cpuinfo(key: str) -> str | None:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.split(":")[0].strip() == key:
            return line.split(":", 1)[1].strip()
    return None


def commit() -> str | None:
    """Returns the commit of the checkout, with + where files differ from it, or None."""
    try:
        head, changed = (
            subprocess.run(
                ["git", *args], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.strip()
            for args in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def find_gpu(say: Callable[[str], None]) -> tuple[str, dict[str, Any] | None]:
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
