"""Compiles a graph without a backend and compares its kernels with the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.backends import Compiled
from compiler.ir.evaluate import evaluate
from compiler.kernels.kernel import SCALAR_BUFFER, SCALARS
from compiler.kernels.kernel_text import render
from compiler.lowering.traits import Traits
from compiler.passes.arena import NAME, plan_arena
from compiler.passes.update import Step
from compiler.pipeline import compile_unit
from compiler.prims.registry import Env
from compiler.unit import Unit
from schemas.program import ARENA, written_out
from tests.kernel_oracle import TYPES, run_schedule

CPU_LIKE = Traits(contiguous_factor=True, groups=True, tile=(12, 32), parallel=16)


class NullBackend:
    """Renders pseudo-code and compiles nothing: for tests of the compiler's own passes."""

    name = target = "null"
    precision = "fp32"

    def __init__(self, traits: Traits = CPU_LIKE) -> None:
        self.traits = traits

    def render(self, kernel):
        return render(kernel)

    def compile(self, name, schedule, places, slots):
        return Compiled(())


@dataclass
class Run:
    unit: Unit
    outputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


def compiled_unit(step: Step, arena, traits: Traits = CPU_LIKE) -> Unit:
    unit = Unit(step.graph, arena, NullBackend(traits), step.names, step.tables)
    compile_unit(unit)
    return unit


def leaf_values(graph, arena, tables, rng, integers=()):
    """Random values for every leaf of a graph; `integers` are inputs with class labels below 4."""
    values = {}
    for node in graph.nodes():
        if node.prim not in ("input", "param", "state", "scalar"):
            continue
        name = node.attr("name")
        if name in tables:
            value = written_out(tables[name]).reshape(node.shape)
        elif name in integers:
            value = rng.integers(0, 4, node.shape)
        elif node.prim == "scalar":
            value = {"lr": 0.1, "first": 1.0, "iteration": 3}.get(name, 0.5)
        else:
            value = rng.standard_normal(node.shape) * 0.5
        values[node.prim, name] = np.asarray(value)
    return values


def run_both(step: Step, arena=None, traits: Traits = CPU_LIKE, integers=("label",), seed=0) -> Run:
    """Runs a step unfused in float64, and its fused kernels in float32 through the oracle."""
    arena = arena or plan_arena(step.graph)
    unit = compiled_unit(step, arena, traits)
    graph = unit.graph
    values = leaf_values(graph, arena, unit.tables, np.random.default_rng(seed), integers)
    env = Env(values, seed=7, iteration=3)
    roots = [*graph.outputs.values(), *graph.updates.values()]
    names = [*graph.outputs, *(str(leaf.attr("name")) for leaf in graph.updates)]
    expected = dict(zip(names, evaluate(roots, env, graph.recurrences), strict=True))

    buffers = memory_of(unit)
    words = buffers[SCALAR_BUFFER]
    for name, value in {"iteration": 3, "seed_lo": 7, "seed_hi": 0}.items():
        words.view(np.int32)[SCALARS[name][0]] = value
    for (prim, name), value in values.items():
        if prim == "scalar" and SCALARS[name][1] == "f32":
            words[SCALARS[name][0]] = value
        elif prim != "scalar" and name in buffers:
            node = next(n for n in graph.nodes() if n.prim == prim and n.attr("name") == name)
            scatter(unit, node, buffers[name], value)
    run_schedule(unit.schedule, buffers)
    found = {}
    for name, node in graph.outputs.items():
        found[name] = gather(unit, node, buffers)
    for leaf in graph.updates:
        found[str(leaf.attr("name"))] = gather(unit, leaf, buffers)
    return Run(unit, found, expected)


def _offsets(unit, node):
    from compiler.kernels.index import Axis, index
    from tests.kernel_oracle import _Grid

    axes = [Axis(f"z{i}", n) for i, n in enumerate(node.shape)]
    grid = _Grid(axes)
    offset = grid.index(unit.plan.storage[node].offset([index(a) for a in axes]))
    return np.broadcast_to(offset, node.shape)


def memory_of(unit: Unit) -> dict[str, np.ndarray]:
    """Returns each buffer where the plan puts it; what must not matter in the arena is NaN."""
    slots = {slot.name: np.zeros(slot.nbytes, np.uint8) for slot in unit.memory.slots}
    if ARENA in slots:
        slots[ARENA].view(np.float32)[:] = np.nan
    buffers = {}
    for name, buffer in unit.schedule.buffers.items():
        place, dtype = unit.memory.places[name], TYPES[buffer.dtype]
        end = place.offset + buffer.size * np.dtype(dtype).itemsize
        buffers[name] = slots[place.slot][place.offset : end].view(dtype)
        if buffer.role == "packed":
            buffers[name][:] = 0  # what no kernel writes of it
    return buffers


def scatter(unit, node, flat, value):
    flat[_offsets(unit, node)] = value


def gather(unit, node, buffers):
    return buffers[unit.plan.storage[node].buffer][_offsets(unit, node)]


def assert_close(run: Run, rtol=1e-4) -> None:
    for name, want in run.expected.items():
        got = run.outputs[name]
        scale = max(0.1, float(np.abs(want).max()))
        error = float(np.abs(got - want).max()) / scale
        assert error <= rtol, f"{name}: relative error {error:.2g}"


__all__ = ["NAME", "Run", "assert_close", "compiled_unit", "run_both"]
