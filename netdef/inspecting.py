"""Renders every stage of a compilation as text, for `netdef inspect`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from compiler import text
from compiler.backends import get_backend
from compiler.ir.node import toposort
from compiler.passes.arena import Arena
from compiler.passes.update import Step
from compiler.pipeline import PASSES, compile_unit
from compiler.unit import Unit
from netdef.compiling import backend_of
from netdef.spec_text import net_yaml
from schemas.net import NetSpec
from schemas.precision import Precision
from schemas.program import Program
from schemas.program_file import manifest_of
from schemas.span import Span

if TYPE_CHECKING:
    from compiler.kernels.kernel import Kernel
    from compiler.llvm.bound import Bound

# The last pass of compiler/pipeline.py that each stage needs, None: the graph as it was built.
LAST_PASS = {
    "graph": None,
    "backward": None,
    "fused": "rematerialize",
    "kernels": "memory",
    "memory": "memory",
    "code": "code",
}
Files = dict[str, str | bytes]


class _Enough(Exception):
    """The passes that are asked for have run."""


@dataclass
class Inspection:
    """One step on its way through the pipeline of one target."""

    spec: NetSpec
    step: Step
    arena: Arena
    target: str
    precision: Precision | None = None
    where: Span | None = None  # what asks for the precision
    counts: list[str] = field(default_factory=list)  # what each pass left
    program: Program | None = None  # None: code was not asked for

    def run(self, last: str | None = "code") -> None:
        """Runs the pipeline up to the pass `last`, None: not at all."""
        if last is None:
            return
        name, own = backend_of(self.target)
        step = self.step
        backend = get_backend(name, own, self.precision, self.where)
        self.unit = Unit(step.graph, self.arena, backend, step.names, step.tables)

        def instrument(after: str, unit: Unit) -> None:
            self.counts.append(f"{after:<9} {_count(after, unit)}")
            if after == last != "code":
                raise _Enough

        try:
            self.program = compile_unit(self.unit, instrument)
        except _Enough:
            pass

    @property
    def backend(self) -> str:
        return self.unit.backend.name

    def stage(self, name: str) -> str:
        """Returns one stage as text; the pass that it needs must have run."""
        if name == "spec":
            return net_yaml(self.spec)
        if name in ("graph", "backward"):
            return _graphs(self.step)[name]
        unit = self.unit
        if name == "fused":
            head = [f"# {line}" for line in ["after each pass:", *self.counts]]
            told = unit.refused, unit.backend.note, unit.siblings
            fused = text.fused_text(unit.graph, unit.schedule, *told)
            return "\n".join(head) + "\n\n" + fused
        if name == "memory":
            return text.memory_text(unit.schedule, unit.memory)
        files = self.kernels() if name == "kernels" else self.code()
        parts = (
            f"==== {file}\n{content.rstrip()}\n" if isinstance(content, str) else
            f"==== {file}: {len(content):,} bytes of machine code\n"
            for file, content in files.items()
        )  # fmt: skip
        return "\n".join(parts)

    def kernels(self) -> Files:
        """Returns the rendered sources by file name: LLVM IR, Triton, pseudo-code."""
        if self.program is None:
            return self._rendered()
        texts = self.program.text
        return {n: t for n, t in texts.items() if n.endswith((".ll", ".py", ".txt"))}

    def _rendered(self) -> Files:
        """Returns the source of each kernel; of those that are one function, of the first."""
        backend = self.unit.backend
        kernels = [k for k in self.unit.schedule.kernels() if k.call is None]  # a call has no code
        if self.backend != "cpu":
            return {kernel.name: backend.render(kernel) for kernel in kernels}
        from compiler.llvm.bound import bound

        files: Files = {}
        owners: dict[Kernel, tuple[str, Bound]] = {}
        for kernel in kernels:
            mine = bound(kernel)
            first, its = owners.setdefault(mine.kernel, (kernel.name, mine))
            if first == kernel.name:
                files[kernel.name] = backend.render(kernel)
                continue
            both = ((mine.memory[n], memory) for n, memory in its.memory.items())
            moved = ", ".join(f"{here} for {there}" for here, there in both if here != there)
            files[kernel.name] = f"; see {first}, with {moved}\n"
        return files

    def code(self) -> Files:
        """Returns what the sources were compiled to: assembly or PTX as text, and binaries."""
        assert self.program is not None
        shown = self.kernels()
        files: Files = {n: t for n, t in self.program.text.items() if n not in shown}
        if self.backend == "cpu":
            from compiler.llvm.host import find_host
            from compiler.llvm.native import assembly

            host = find_host(backend_of(self.target)[1])
            for name, text in shown.items():
                if isinstance(text, str) and "\ndefine " in f"\n{text}":  # no mere reference
                    files[f"{name.removesuffix('.ll')}.s"] = assembly(text, host)
        suffix = {"cpu": "o", "triton": "hsaco" if self.target.startswith("gfx") else "cubin"}
        ending = suffix.get(self.backend, "bin")
        for name, content in self.program.code.items():
            files[f"{name}.{ending}"] = content
        return files

    def manifest(self) -> str:
        """Returns the program without its code: launches, slots, tensors, provenance."""
        assert self.program is not None
        return json.dumps(manifest_of(self.program), indent=1) + "\n"


def all_files(targets: Mapping[str, Inspection | str]) -> Files:
    """Returns every stage by file name; a target is what it has, or why it has nothing.

    What is the same for all targets, or takes one, is of the first that has something.
    """
    first = next(found for found in targets.values() if isinstance(found, Inspection))
    files: Files = {
        "01_spec.yaml": first.stage("spec"),
        "02_graph.txt": first.stage("graph"),
        "03_backward.txt": first.stage("backward"),
        "04_fused.txt": first.stage("fused"),
        "06_memory.txt": first.stage("memory"),
        "07_program.json": first.manifest(),
    }
    for target, found in targets.items():
        if isinstance(found, str):
            files[f"05_kernels/{target}/MISSING.txt"] = found + "\n"
            continue
        for name, content in {**found.kernels(), **found.code()}.items():
            files[f"05_kernels/{target}/{_file_name(name)}"] = content
    return files


def _file_name(name: str) -> str:
    """Layer names may hold slashes; file names may not."""
    return name.replace("/", ".").replace("\\", ".").replace(":", ".")


def _graphs(step: Step) -> dict[str, str]:
    """Returns the forward part and what gradients and update add to it, numbered as one."""
    graph = step.graph
    ends = [*graph.outputs.values(), *([graph.loss] if graph.loss is not None else [])]
    ends += graph.effects
    forward = toposort(ends)
    numbers = text.numbered(graph, forward)
    first = {node: numbers[node] for node in forward}
    shown = replace(graph, updates={k: v for k, v in graph.updates.items() if v in first})
    outputs = {name: n for name, n in graph.outputs.items() if n in first}
    both = {"graph": text.graph_text(replace(shown, outputs=outputs), first, names=step.names)}
    if not graph.updates:
        both["backward"] = "nothing: this is a forward pass (no solver, or a net without a loss)\n"
    else:
        rest = replace(graph, outputs={}, kept={}, loss=None, effects=())
        both["backward"] = text.graph_text(rest, numbers, forward, step.names)
    return both


def _count(after: str, unit: Unit) -> str:
    """Says how many there are, after a pass, of the things that it works on."""
    names = [name for name, _ in PASSES]
    passed = names[: names.index(after) + 1]
    if "code" in passed:
        return f"{sum(map(len, unit.compiled.code.values())):,} bytes of code"
    if "memory" in passed:
        return f"{sum(slot.nbytes for slot in unit.memory.slots):,} bytes"
    if "launches" in passed:
        return f"{len(unit.schedule.launches)} launches"
    if "lower" in passed:
        return f"{len(unit.kernels)} kernels"
    if "storage" in passed:
        return f"{len(unit.buffers)} buffers"
    return f"{len(unit.graph.nodes())} nodes"
