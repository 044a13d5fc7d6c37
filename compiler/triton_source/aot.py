"""Compiles rendered modules ahead of time with Triton, without a GPU."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.triton_source.function import Module
from compiler.triton_source.ptx import keep_loops
from compiler.triton_source.text import POINTERS
from compiler.triton_source.tiles import Target
from schemas.errors import BackendError

_ALIGNED = [["tt.divisibility", 16]]


@dataclass(frozen=True, slots=True)
class Binary:
    """Machine code, the readable stages by suffix, and what a launch must know."""

    code: bytes
    text: dict[str, str]
    meta: dict[str, Any]


def require_triton() -> Any:
    """Returns the triton package, or says how to get it."""
    try:
        import triton
    except ImportError as error:
        raise BackendError(
            "the triton backend needs the package triton", hint="pip install 'netdef[cuda]'"
        ) from error
    return triton


def compile_module(
    m: Module, target: Target, aligned: Sequence[bool], registers: int | None = None
) -> Binary:
    """Compiles a module's entry; `aligned` says which pointers are multiples of 16 bytes.

    A thread has so many `registers`; else ptxas chooses how many.
    """
    triton = require_triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(
        _function(m),
        signature={name: POINTERS[dtype] for _, name, dtype in m.pointers},
        attrs={(i,): _ALIGNED for i, yes in enumerate(aligned) if yes},
    )
    # Whether a product and the sum after it are one operation is our choice, not the environment's.
    options = {
        "num_warps": warps(m, target),
        "num_stages": m.num_stages,
        "enable_fp_fusion": True,
        "sanitize_overflow": False,  # its checks are dropped, but take time
    }
    if registers is not None:
        options["maxnreg"] = registers
    gpu = GPUTarget("hip" if target.amd else "cuda", target.arch, target.warp)
    with _switches(triton.knobs):
        made = triton.compile(source, target=gpu, options=options)
    kind = "hsaco" if target.amd else "cubin"
    suffixes = ("ttir", "ttgir", "amdgcn" if target.amd else "ptx")
    d = made.metadata
    meta = {
        "name": d.name,
        "threads": d.num_warps * target.warp,
        "num_warps": d.num_warps,
        "shared": d.shared,
        "waits": m.waits,
        "global_scratch": getattr(d, "global_scratch_size", 0) or 0,
        "profile_scratch": getattr(d, "profile_scratch_size", 0) or 0,
    }
    return Binary(made.asm[kind], {s: str(made.asm[s]) for s in suffixes}, meta)


@contextmanager
def _switches(knobs: Any) -> Iterator[None]:
    """Sets Triton's switches; lines of a file that is gone are of no use in machine code."""
    with knobs.compilation.scope(), knobs.runtime.scope():
        knobs.compilation.disable_line_info = True
        knobs.runtime.add_stages_inspection_hook = keep_loops
        yield


def compile_if_it_fits(
    m: Module, target: Target, aligned: Sequence[bool], registers: int | None = None
) -> Binary | str:
    """Compiles a module, or returns why Triton or ptxas refuse it."""
    triton = require_triton()

    try:
        return compile_module(m, target, aligned, registers)
    except (triton.TritonError, RuntimeError) as error:  # RuntimeError: what LLVM's passes raise
        return f"{type(error).__name__}: {error}"


def warps(m: Module, target: Target) -> int:
    """Returns the warps of a block: an AMD warp has twice the threads."""
    return max(1, m.num_warps // 2) if target.amd else m.num_warps


def _function(m: Module) -> Any:
    """Imports the module's text and returns its entry, a Triton function.

    Triton reads the text of a function from its file, but only when it is made.
    """
    with tempfile.TemporaryDirectory(prefix="netdef-triton-") as folder:
        path = Path(folder) / f"{m.entry}.py"
        path.write_text(m.source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
    return getattr(made, m.entry)
