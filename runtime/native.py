"""Machine code of the cpu backend: whether it suits this processor, and how it is loaded."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from schemas.errors import BackendError
from schemas.program import Program

STEP = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
# Linux has other names for some features than LLVM.
_LINUX = {"sse3": "pni", "bmi": "bmi1", "lzcnt": "abm"}


def check_host(program: Program) -> None:
    """Raises BackendError unless the code was made for a processor such as this one."""
    wanted = program.meta.get("features")
    if wanted is None or "step" not in program.code:
        raise BackendError(
            f"program '{program.name}' was compiled for {program.target}, not for this processor"
        )
    kind, own = _kind(program.meta["triple"]), this_machine()
    missing = [f[1:] for f in wanted.split(",") if f.startswith("+") and not _has(f[1:])]
    if kind != own or missing:
        lacks = f" (it lacks {', '.join(missing[:4])})" if missing else ""
        raise BackendError(
            f"program '{program.name}' was compiled for {program.meta['cpu']} ({' '.join(kind)}), "
            f"this machine is {' '.join(own)}{lacks}",
            hint="compile it again on this machine",
        )


def this_machine() -> tuple[str, str]:
    """Returns processor and system as `_kind` names them."""
    return _kind(f"{platform.machine().lower()}-{sys.platform}")


def _linked() -> bool:
    """Whether `runtime.elf` loads the code here, elsewhere LLVM does."""
    return this_machine() == ("x86_64", "linux")


def _kind(triple: str) -> tuple[str, str]:
    """Returns what of a triple decides whether code runs: ("x86_64", "linux")."""
    machine = triple.partition("-")[0]
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    systems = {"linux": "linux", "darwin": "macos", "apple": "macos", "win": "windows"}
    found = (name for word, name in systems.items() if word in triple)
    return machine, next(found, triple)


def _has(feature: str) -> bool:
    """Whether this processor has a feature, by LLVM's name."""
    if not _linked():
        return bool(_llvm().get_host_cpu_features().get(feature))
    return _plain(_LINUX.get(feature, feature)) in _flags()


@lru_cache(maxsize=1)
def _flags() -> frozenset[str]:
    """Returns what Linux says that the processor has and the system lets programs use."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, words = line.partition(":")
        if key.strip() == "flags":
            return frozenset(map(_plain, words.split()))
    return frozenset()


def _plain(feature: str) -> str:
    return feature.replace("_", "").replace(".", "").replace("-", "")


def load_step(program: Program) -> tuple[Any, Any]:
    """Returns what holds the code in memory, and the step function."""
    if _linked():
        from runtime.elf import Code

        code = Code(program.code.values())
        return code, STEP(code.address("step"))
    llvm = _llvm()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for content in program.code.values():
        engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(content))
    engine.finalize_object()
    return engine, STEP(engine.get_function_address("step"))


def _llvm() -> Any:
    """Returns llvmlite, which loads code where `runtime.elf` cannot: on all but Linux on x86-64."""
    try:
        import llvmlite.binding
    except ImportError:
        where = " ".join(this_machine())
        message = f"programs of the cpu backend need the package llvmlite on {where}"
        raise BackendError(message, hint="pip install llvmlite") from None
    return llvmlite.binding
