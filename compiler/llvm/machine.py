"""What LLVM says of this machine; kept between runs, since asking loads all of LLVM."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import llvmlite

from compiler.cache import Cache, default_folder

_CPUINFO = Path("/proc/cpuinfo")
# The lines of Linux's description that tell processors apart, the first processor's.
_TELLING = ("vendor_id", "cpu family", "model", "stepping", "flags")


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor and the LLVM that compiles for it, in LLVM's words."""

    triple: str
    cpu: str
    features: str  # +avx2,-avx512f,...
    llvm: str  # its version


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """Returns this machine as LLVM or a run before this one found it."""
    folder = default_folder()
    return recall(Cache(folder / "machines" if folder is not None else None), _CPUINFO)


def recall(cache: Cache, cpuinfo: Path) -> Machine:
    """Returns this machine from the cache; asks LLVM where it is not in it."""
    key = _key(cpuinfo)
    content = cache.load(key) if key is not None else None
    if content is not None:
        return Machine(**json.loads(content))
    machine = _ask()
    if key is not None:
        cache.save({key: json.dumps(asdict(machine)).encode()})
    return machine


def _key(cpuinfo: Path) -> str | None:
    """Returns a name for processor and LLVM, None where the system does not describe the former."""
    try:
        first = cpuinfo.read_text().split("\n\n", 1)[0]
    except OSError:  # not Linux
        return None
    lines = [line for line in first.splitlines() if line.split("\t", 1)[0] in _TELLING]
    if not any(line.startswith("flags") for line in lines):
        return None
    parts = (*Machine.__slots__, llvmlite.__version__, str(llvmlite.__file__), *lines)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _ask() -> Machine:
    import llvmlite.binding as llvm

    found = sorted(llvm.get_host_cpu_features().items())
    features = ",".join(f"{'+' if on else '-'}{name}" for name, on in found)
    version = ".".join(map(str, llvm.llvm_version_info))
    return Machine(llvm.get_default_triple(), llvm.get_host_cpu_name(), features, version)


@lru_cache(maxsize=1)
def version() -> str:
    """Returns what compiles: LLVM, llvmlite and how they are asked to."""
    native = hashlib.sha256(Path(__file__).with_name("native.py").read_bytes()).hexdigest()
    return f"{llvmlite.__version__} {this_machine().llvm} {native}"
