"""What a measurement depends on: processor, versions, commit, load, date."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.cases import ROOT

PACKAGES = ("numpy", "llvmlite", "triton", "cuda-core", "cuda-bindings", "torch")
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
