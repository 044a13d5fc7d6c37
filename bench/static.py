"""What can be known of a training step on a GPU without one: kernels, memory, traffic, binaries."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cases import STATIC_CASES, Case, flops, net_spec, solver_spec
from bench.report import Row
from bench.roofline import PEAKS, Steps, ideal, loops_of, seconds_of
from compiler import reuse
from compiler.backends import Backend as AnyBackend
from compiler.backends import get_backend
from compiler.backends.triton import Backend
from compiler.cache import Cache
from compiler.frontend.build import build
from compiler.ir.graph import Graph
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from compiler.pipeline import compile_unit
from compiler.unit import Unit
from netdef.probing import Prober
from schemas.precision import Precision
from schemas.program import Program

# The most launches that a step is meant to take.
GOALS = {"lenet": 12, "resnet50": 250}
COLUMNS = (
    "net", "batch", "precision", "kernels", "launches", "planned", "forward", "peak MB",
    "traffic MB", "ideal MB", "tensor cores", "spill", "too large", "registers", "cold s",
    "warm s", "step ms", "floor ms",
)  # fmt: skip
PLANNED = (
    "net", "batch", "precision", "launches", "kernels", "peak MB", "of PyTorch", "traffic MB",
    "ideal MB", "step ms", "floor ms", "items/s",
)  # fmt: skip


@dataclass(slots=True)
class Findings:
    """One net for one target. Times are in seconds, sizes in bytes, work in operations."""

    net: str
    batch: int
    precision: str
    kernels: int = 0
    launches: int = 0  # with every time step of loops
    planned: int = 0  # launches, before any of them falls apart
    forward: int = 0  # launches of the test net's forward pass
    peak: int = 0
    torch_peak: int | None = None  # PyTorch's; None where it is not known
    traffic: int = 0
    ideal: int = 0
    work: float = 0.0
    contractions: int = 0
    on_tensor_cores: int = 0  # with the instructions of this GPU's own: wgmma on sm_90
    registers: int = 0  # of the kernel that takes most
    cold: float = 0.0
    warm: float = 0.0
    step: float = 0.0  # predicted
    floor: float = 0.0  # of any program: the ideal traffic, or the work
    spilling: dict[str, int] = field(default_factory=dict)  # binary -> bytes of stack
    # Launch -> its bytes of shared memory, where the GPU has fewer: it would not start.
    too_large: dict[str, int] = field(default_factory=dict)
    # Contractions without those instructions -> their share of the step's work, largest first.
    plain: dict[str, float] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)  # launch -> predicted seconds
    error: str = ""


def examine(net: str, target: str, precision: Precision | None, cached: bool = False) -> Findings:
    """Compiles the training step of a net, and the forward pass of its test net.

    The step is compiled with empty caches, then with full ones; if `cached`, with the user's
    caches, and not timed: a call that was cut off goes on where it stopped.
    """
    case = STATIC_CASES[net]
    found, loops = _planned(net, target, precision)
    found.planned, found.precision = found.launches, precision or found.precision
    with nullcontext() if cached else _empty_caches():
        try:
            cold, graph, program = _compiled(case, target, precision)
            warm, _, _ = _compiled(case, target, precision)
            forward = reuse.compile_or_load(
                _forward(case, get_backend("triton", target, precision))
            )
        except Exception as error:  # one net that does not compile is a finding
            found.error = f"{type(error).__name__}: {error}"
            return found
    count(found, graph, program, loops)
    if not cached:
        found.cold, found.warm = cold, warm
    found.forward = sum(1 for _ in forward.runs())
    _binaries(found, forward)
    return found


@contextmanager
def _empty_caches() -> Iterator[None]:
    before, cache = os.environ.get("TRITON_CACHE_DIR"), reuse.PROGRAMS
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = f"{folder}/triton"
        reuse.PROGRAMS = Cache(Path(folder) / "programs")
        try:
            yield
        finally:
            reuse.PROGRAMS = cache
            if before is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before


def predict(
    net: str, target: str, precision: Precision | None, say: Callable[[str], None]
) -> Findings:
    """Plans the training step of a net and compiles nothing: groups that would spill stay whole.

    PyTorch's memory is looked up beside it, or left out with a line.
    """
    found, _ = _planned(net, target, precision)
    try:
        from bench.torch_memory import peak_bytes

        found.torch_peak = peak_bytes(STATIC_CASES[net], found.precision == "bf16")
    except ImportError as error:
        say(f"PyTorch's memory is left out: it is not installed ({error})")
    except Exception as error:  # nothing stands for a layer there
        say(f"{net}: PyTorch's memory is left out: {error}")
    return found


def _planned(
    net: str, target: str, precision: Precision | None
) -> tuple[Findings, dict[str, Steps]]:
    case, backend = STATIC_CASES[net], Backend(target, precision, binary=False)
    graph, unit = _unit(case, backend)
    found, program = Findings(net, case.batch, backend.precision), compile_unit(unit)
    loops = loops_of(unit.schedule)
    count(found, graph, program, loops)
    return found, loops


def compiled(net: str, target: str, precision: Precision | None) -> Program:
    """Returns the program of a net's training step, from the user's caches if it is there."""
    return _compiled(STATIC_CASES[net], target, precision)[-1]


def _compiled(case: Case, target: str, precision: Precision | None) -> tuple[float, Graph, Program]:
    """Returns how long it takes from the net's file to the program, and both."""
    begun = time.perf_counter()
    graph, unit = _unit(case, get_backend("triton", target, precision))
    program = reuse.compile_or_load(unit)
    return time.perf_counter() - begun, graph, program


def _unit(case: Case, backend: AnyBackend) -> tuple[Graph, Unit]:
    spec = solver_spec(case)
    graph = build(net_spec(case), "TRAIN", probe=Prober())
    arena = plan_arena(graph)
    step = train_step(graph, arena, spec)
    return graph, Unit(step.graph, arena, backend, step.names, step.tables)


def _forward(case: Case, backend: AnyBackend) -> Unit:
    graph = build(net_spec(case), "TEST", probe=Prober(), deploy=True)
    return Unit(graph, plan_arena(graph), backend)


def count(found: Findings, graph: Graph, program: Program, loops: Mapping[str, Steps]) -> None:
    """Fills in what the program says, and what the net would take at best."""
    found.precision = program.meta["precision"]
    found.kernels = sum(
        len(one.kernels) * (one.repeat.count if one.repeat else 1) for one in program.launches
    )
    found.launches = sum(1 for _ in program.runs())
    found.peak = program.peak_bytes
    found.ideal, found.work = ideal(graph, found.precision), flops(graph, training=True)
    if program.code:
        _binaries(found, program)
    peak = PEAKS.get(program.target, PEAKS["sm_90"])
    steps = {one.name: loops.get(one.name) for one in program.launches}
    found.traffic = sum(k.bytes for one in program.launches for k in one.kernels)
    found.traffic -= sum(one.cached(peak) for one in steps.values() if one)
    seconds = {
        one.name: seconds_of(one, peak, found.precision, steps[one.name])
        for one in program.launches
    }
    found.step = sum(seconds.values())
    found.slowest = _largest(seconds)
    least = found.ideal / peak.traffic, found.work / peak.flops[found.precision]
    found.floor = max(least)


def _binaries(found: Findings, program: Program) -> None:
    """Adds what the machine code says: registers, stack, tensor cores."""
    from compiler.triton_source.checks import amd_resources, resources
    from compiler.triton_source.tiles import target_named

    amd = program.target.startswith("gfx")
    instruction, tensor = re.compile(_instruction(program.target)), {}
    for name, code in program.code.items():
        text = program.text[f"{name}.{'amdgcn' if amd else 'ptx'}"]
        tensor[name] = instruction.search(text) is not None
        held = amd_resources(text) if amd else resources(code)
        if held is not None:
            found.registers = max(found.registers, held[0])
            if held[1]:
                found.spilling[name] = held[1]
    limit = target_named(program.target)
    assert limit is not None
    shared = {one.name: one.meta["shared"] for one in program.launches}
    found.too_large |= {name: held for name, held in shared.items() if held > limit.shared}
    plain: dict[str, float] = {}
    for launch in program.launches:
        for kernel in launch.kernels:
            if kernel.kind == "contract":
                found.contractions += 1
                found.on_tensor_cores += tensor[launch.code]
                if not tensor[launch.code]:
                    plain[kernel.name] = kernel.flops / found.work
    found.plain = _largest(found.plain | plain)


def _instruction(target: str) -> str:
    """Returns what the target's best products look like in PTX, or in AMD's assembly."""
    if target.startswith("sm_9"):
        return r"wgmma\.mma_async"
    if target.startswith("sm_8"):
        return r"\bmma\.sync"
    return r"v_mfma" if target.startswith("gfx") else r"tcgen05\.mma"


def _largest(values: Mapping[str, float], most: int = 8) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: -item[1])[:most])


def row(found: Findings) -> Row:
    """Returns a line of the table."""
    if found.error:
        return (found.net, str(found.batch), found.precision, found.error[:60], *[""] * 14)
    goal = f" (goal {GOALS[found.net]})" if found.net in GOALS else ""
    return (
        found.net,
        str(found.batch),
        found.precision,
        str(found.kernels),
        f"{found.launches}{goal}",
        str(found.planned),
        str(found.forward),
        f"{found.peak / 2**20:,.0f}",
        f"{found.traffic / 2**20:,.0f}",
        f"{found.ideal / 2**20:,.0f}",
        f"{found.on_tensor_cores} of {found.contractions}",
        str(len(found.spilling)),
        str(len(found.too_large)),
        str(found.registers),
        f"{found.cold:.1f}",
        f"{found.warm:.2f}",
        f"{found.step * 1e3:.3g}",
        f"{found.floor * 1e3:.3g}",
    )


def planned_row(found: Findings) -> Row:
    """Returns a line of the table of what is known without compiling."""
    return (
        found.net,
        str(found.batch),
        found.precision,
        str(found.launches),
        str(found.kernels),
        f"{found.peak / 2**20:,.0f}",
        f"{found.peak / found.torch_peak:.2f}" if found.torch_peak else "-",
        f"{found.traffic / 2**20:,.0f}",
        f"{found.ideal / 2**20:,.0f}",
        f"{found.step * 1e3:.3g}",
        f"{found.floor * 1e3:.3g}",
        f"{found.batch / found.step:,.0f}",
    )


def plain(found: Findings) -> dict[str, Any]:
    """Returns the findings as plain data."""
    return {name: getattr(found, name) for name in Findings.__dataclass_fields__}
