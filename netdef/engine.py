"""Engine: a backend and its device together; graphs in, executables out."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from compiler.backends import Backend, backend_names, get_backend
from compiler.ir.graph import Graph
from compiler.passes.arena import Arena
from compiler.passes.update import Step
from compiler.reuse import compile_or_load
from compiler.unit import Unit
from runtime.executable import Device, Executable
from schemas.errors import BackendError, ResourceError, did_you_mean
from schemas.precision import Precision
from schemas.program import CHANGED, ITEMSIZE, Program
from schemas.span import Span

# Beyond what any GPU has: less than this, the device itself says that it is full.
_LARGEST_GPU = 2**40
LARGEST_MACHINE = 2**46  # of what is more than this, no machine is asked


@dataclass
class Engine:
    """Compiles steps for one backend and loads them on its device."""

    backend: Backend
    device: Device | None  # None: the reference runs in the compiler's own process, on graphs
    open: list[Executable] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def memory(self) -> int | None:
        """Returns the bytes of memory that programs may take, None where that is not known."""
        return machine_memory() if self.name in ("cpu", "reference") else _LARGEST_GPU

    def describe(self) -> str:
        """Returns what the programs run on: `skylake, 8 threads`."""
        if self.device is None:
            return "NumPy"
        threads = getattr(self.device, "threads", None)
        many = f", {threads} thread{'s' * (threads != 1)}" if threads else ""
        return (self.backend.target if threads else self.device.name) + many

    def unit(self, step: Step, arena: Arena) -> Unit:
        return Unit(step.graph, arena, self.backend, step.names, step.tables)

    def compile(self, step: Step, arena: Arena) -> Program:
        """Returns the Program of a step, not loaded."""
        return compile_or_load(self.unit(step, arena))

    def load(self, step: Step, arena: Arena, share: Executable | None = None) -> Executable:
        """Compiles a step and loads it; persistent memory is shared with `share` by name.

        Raises ResourceError, before anything is allocated, for a step larger than the machine.
        """
        check_fits([step.graph], arena, self.memory)
        unit = self.unit(step, arena)
        if self.device is None:
            return self._reference(unit, share)
        program = compile_or_load(unit)
        _check_size(step.graph, program.peak_bytes, self.memory)
        return self._opened(self.device.load(program, share, step.graph.hosts))

    def _reference(self, unit: Unit, share: Executable | None) -> Executable:
        from compiler.backends.reference import ReferenceExecutable
        from compiler.pipeline import compile_unit

        program = compile_unit(unit)  # which simplifies the graph that is evaluated
        _check_size(unit.graph, program.peak_bytes, self.memory)
        assert share is None or isinstance(share, ReferenceExecutable)
        return self._opened(ReferenceExecutable(unit, program, share))

    def _opened(self, exe: Executable) -> Executable:
        self.open.append(exe)
        return exe

    def close(self) -> None:
        for exe in self.open:
            exe.close()
        self.open.clear()


def machine_memory() -> int | None:
    """Returns the bytes of physical memory of this machine, None where that is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def least_bytes(graph: Graph, arena: Arena) -> int:
    """Returns bytes that a net takes whatever is fused: its ends, largest blob and weights."""
    stored = dict.fromkeys([*graph.inputs.values(), *graph.fetched.values()])
    sizes = [node.type.size * ITEMSIZE[node.dtype] for node in stored]
    blobs = (node.type.size * ITEMSIZE[node.dtype] for node in graph.blobs.values())
    return max(sum(sizes), max(blobs, default=0)) + arena.rows * arena.shape[1] * 4


def check_fits(graphs: Iterable[Graph], arena: Arena, memory: int | None) -> None:
    """Raises ResourceError for nets that are far too large, before they are even compiled."""
    for graph in graphs:
        _check_size(graph, least_bytes(graph, arena), memory)


def _check_size(graph: Graph, need: int, memory: int | None) -> None:
    if memory is None or need <= memory:
        return
    title = f"net '{graph.name}'" if graph.name else "the net"
    message = f"{title} needs {need:,} bytes of memory; this machine has {memory:,}"
    name, blob = max(graph.blobs.items(), key=lambda item: item[1].type.size)
    info = max(graph.params.values(), key=lambda info: info.size, default=None)
    if info is not None and info.size > blob.type.size:
        hint = f"most of it is '{info.key}', {'x'.join(map(str, info.shape))}"
        raise ResourceError(message, graph.places.get(info.layer, info.span), hint)
    layer = graph.origin.get(blob, "")
    hint = f"its largest blob is '{name}', {'x'.join(map(str, blob.shape))}"
    raise ResourceError(message, graph.places.get(layer, graph.spec.span), hint)


def forward_step(graph: Graph, blobs: Iterable[str] = ()) -> Step:
    """Returns a step that runs forward and gives the outputs, and these blobs as well."""
    extra = {name: graph.blobs[name] for name in blobs}
    outputs = {
        CHANGED + name if node is not graph.inputs.get(name, node) else name: node
        for name, node in {**graph.outputs, **extra}.items()
    }
    return plain(replace(graph, outputs=outputs))


def plain(graph: Graph) -> Step:
    """Returns a step that only runs forward."""
    return Step(graph)


def open_engine(
    backend: str = "auto",
    target: str | None = None,
    threads: int | None = None,
    precision: Precision | None = None,
    where: Span | None = None,
    deterministic_reference: bool = False,
) -> Engine:
    """Returns the engine of this name: `auto` is the GPU if one is usable, else the CPU.

    Raises BackendError for an unknown name, a missing package or device, or a precision that the
    backend does not compute in; `where` is the place that asks for that.
    With `deterministic_reference`, convolutions are summed as they are written, not in Winograd's
    form.
    """
    if backend == "auto":
        backend = "triton" if _gpu() else "cpu"
    if backend == "cuda":  # the device's name for what the compiler calls triton
        backend = "triton"
    if backend not in backend_names():
        raise BackendError(
            f"unknown backend '{backend}'", hint=did_you_mean(backend, ["auto", *backend_names()])
        )
    if backend == "reference":
        return Engine(get_backend(backend, target, precision, where), None)
    if backend == "cpu":
        from runtime.cpu import CpuDevice

        made = get_backend(backend, target, precision, where)
        if deterministic_reference:
            made.traits = replace(made.traits, winograd=False)
        return Engine(made, CpuDevice(threads))
    if target == "interpreter":  # Triton's own, on NumPy memory: slow, needs no GPU
        from runtime.triton_interpreter import InterpreterDevice

        return Engine(get_backend(backend, target, precision, where), InterpreterDevice())
    return Engine(get_backend(backend, target or _gpu(), precision, where), _cuda())


def _gpu() -> str | None:
    """Returns the target of a usable NVIDIA GPU (`sm_90`), or None."""
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("triton") is None:
        return None
    if not _has_driver():
        return None
    from runtime.cuda import usable_gpu

    return usable_gpu()


def _has_driver() -> bool:
    """Says whether NVIDIA's driver is installed, in less time than the bindings take to load."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _cuda() -> Device:
    if _gpu() is None:
        raise BackendError(
            "no usable NVIDIA GPU",
            hint="use --backend cpu; on a machine with a GPU: pip install 'netdef[cuda]'",
        )
    from runtime.cuda import CudaDevice

    return CudaDevice()
