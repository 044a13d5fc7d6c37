"""Static checks of compiled kernels: what can be known of a GPU binary without a GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compiler.triton_source.aot import require_triton

_WAIT = "ACQBULK"  # griddepcontrol.wait
_ACCESS = "LDG|STG|LDGSTS|LD|ST|ATOMG?|REDG?|UTMA[A-Z]+|UBLK[A-Z]+"


@dataclass(frozen=True, slots=True)
class Usage:
    """What an NVIDIA binary takes and does.

    registers and stack bytes are a thread's; `spills` are instructions that move registers to
    local memory and back; `copies` are asynchronous copies to shared memory, `wide_copies` those of
    16 bytes; `engine` those that the copy engine makes (TMA); `loads` reads of global memory,
    `wide_loads` those of 16 bytes. These are counted in PTX; `multiplies`, the instructions of
    tensor cores, in machine code, where a loop may be written out.
    """

    registers: int
    stack: int
    spills: int
    parameters: int
    wgmma: int
    mma: int
    multiplies: int
    copies: int
    wide_copies: int
    engine: int
    loads: int
    wide_loads: int


def tool(name: str) -> Path | None:
    """Returns one of the CUDA tools that Triton brings along, or None."""
    path = Path(require_triton().__file__).parent / "backends" / "nvidia" / "bin" / name
    return path if path.exists() else None


def resources(cubin: bytes) -> tuple[int, int] | None:
    """Returns registers and stack bytes of a thread, or None without the tools; takes 10 ms.

    A kernel that spills has a stack. Triton 3.9 gives some others one that nothing is stored in:
    that costs nothing and does not count.
    """
    text = _run("cuobjdump", cubin, "--dump-resource-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text or "")
    if found is None:
        return None
    stack = max(int(found[2]), int(found[3]))
    return int(found[1]), stack if stack and _spills(_run("nvdisasm", cubin, "-c")) else 0


def _spills(sass: str | None) -> int:
    """Returns how many instructions use the stack; one where that is not known."""
    return len(re.findall(r"\b(?:LDL|STL)\b", sass)) if sass is not None else 1


def waits(cubin: bytes) -> bool:
    """Whether a kernel waits for the launch before it, once, before it touches global memory."""
    words = re.findall(rf"\b(?:{_WAIT}|{_ACCESS})\b", _run("nvdisasm", cubin, "-c") or "")
    return words[:1] == [_WAIT] and words.count(_WAIT) == 1


def amd_resources(assembly: str) -> tuple[int, int]:
    """Returns registers and stack bytes of a thread, as AMD's assembly says them at its end."""
    counts = {
        name: int(re.findall(rf"\.{name}:\s*(\d+)", assembly)[-1])
        for name in ("vgpr_count", "private_segment_fixed_size")
    }
    return counts["vgpr_count"], counts["private_segment_fixed_size"]


def usage(cubin: bytes, ptx: str) -> Usage:
    """Returns everything that the checks ask about."""
    held = resources(cubin)
    sass = _run("nvdisasm", cubin, "-c")
    assert held is not None and sass is not None, "Triton came without cuobjdump or nvdisasm"

    def count(pattern: str, text: str) -> int:
        return len(re.findall(pattern, text))

    return Usage(
        registers=held[0],
        stack=held[1],
        spills=_spills(sass),
        parameters=parameters(ptx),
        wgmma=count(r"wgmma\.mma_async", ptx),
        mma=count(r"\bmma\.sync", ptx),
        multiplies=count(r"\b(?:HMMA|HGMMA|UTCHMMA)\b", sass),
        copies=count(r"cp\.async\.c[ag]\.", ptx),
        wide_copies=count(r"cp\.async\.cg\.[^;]*0x10", ptx),
        engine=count(r"cp\.async\.bulk\.tensor", ptx),
        loads=count(r"ld\.global\b", ptx),
        wide_loads=count(r"ld\.global\.[^;{]*v4", ptx),
    )


def parameters(ptx: str) -> int:
    """Returns how many parameters the entry takes, Triton's two scratch pointers included."""
    entry = ptx[ptx.index(".entry") :]
    return len(re.findall(r"\.param\b", entry[: entry.index("{")]))


def _run(name: str, cubin: bytes, option: str) -> str | None:
    path = tool(name)
    if path is None:
        return None
    with tempfile.TemporaryDirectory(prefix="netdef-cubin-") as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        done = subprocess.run([path, option, file], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
