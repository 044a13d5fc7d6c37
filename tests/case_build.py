"""Builds the layer of a case alone, feeds it random numbers, measures its slope."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from compiler.frontend.build import build
from compiler.ir import ops
from compiler.ir.evaluate import evaluate
from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.passes.arena import NAME, Arena, plan_arena
from compiler.passes.autodiff import gradients
from compiler.passes.update import Step
from compiler.prims import leaves
from compiler.prims.registry import Env
from netdef.engine import open_engine
from schemas.net import LayerSpec, Name, NetSpec, value_of
from schemas.params import Feed
from schemas.precision import Precision
from tests.cases import Bottom, Case
from tests.harness import compiled_unit, gather, scatter
from tests.kernel_oracle import TYPES, run_schedule

Array = np.ndarray[Any, Any]
Values = dict[tuple[str, str], Array]  # (prim, name) of a leaf -> its value


class Backend(Protocol):
    """Runs graphs; `rtol` is what its precision allows against float64."""

    name: str
    rtol: float

    def run(self, graph: Graph, values: Values) -> dict[str, Array]:
        """Returns the graph's outputs by name."""
        ...


@dataclass(frozen=True)
class Reference:
    """Evaluates the nodes with NumPy in float64."""

    name: str = "reference"
    rtol: float = 1e-10

    def run(self, graph: Graph, values: Values) -> dict[str, Array]:
        found = evaluate(list(graph.outputs.values()), Env(values), graph.recurrences)
        return dict(zip(graph.outputs, found, strict=True))


@dataclass(frozen=True)
class FusedKernels:
    """Compiles the graph to fused kernels and runs those in float32, through the kernel oracle."""

    name: str = "kernels"
    rtol: float = 2e-4

    def run(self, graph: Graph, values: Values) -> dict[str, Array]:
        arena = plan_arena(graph)
        unit = compiled_unit(Step(graph), arena)
        buffers = {
            b.name: np.zeros(b.size + 64, TYPES[b.dtype]) for b in unit.schedule.buffers.values()
        }
        for node in unit.graph.nodes():
            named = node.prim in ("input", "param", "state")
            key = (node.prim, node.attr("name")) if named else None
            if key in values:
                scatter(unit, node, buffers[key[1]], values[key])
            elif key == ("param", NAME):
                scatter(unit, node, buffers[NAME], _flat(node, arena, graph, values))
        run_schedule(unit.schedule, buffers)
        return {name: gather(unit, node, buffers) for name, node in unit.graph.outputs.items()}


@dataclass(frozen=True)
class OnDevice:
    """Compiles with a real backend and runs on its device, in float32 if no precision is given."""

    name: str
    target: str | None = None
    rtol: float = 2e-4
    precision: Precision | None = None

    def run(self, graph: Graph, values: Values) -> dict[str, Array]:
        engine = open_engine(self.name, self.target, threads=2, precision=self.precision)
        exe = engine.load(Step(graph), plan_arena(graph))
        for (_, name), value in values.items():
            if name in exe.program.tensors:
                exe.write(name, value)
        exe.run()
        found = {name: exe.read(name) for name in graph.outputs}
        engine.close()
        return found


def _flat(node: Node, arena: Arena, graph: Graph, values: Values) -> Array:
    """Returns the parameters as they lie in the arena."""
    flat = np.zeros(node.type.size)
    for key, slot in arena.slots.items():
        (stored,) = evaluate([slot.stored(graph.param_nodes[key])], Env(values))
        flat[slot.offset : slot.offset + stored.size] = stored.ravel()
    return flat.reshape(node.shape)


@dataclass
class Built:
    """A case, built: outputs `top0`, `top1`, ..., `sum`, and `d NAME` for each learned leaf.

    The gradients are those of sum = sum(top0 * seed), seed being an input of random numbers.
    """

    graph: Graph
    tops: list[Node]
    leaves: list[Node] = field(default_factory=list)
    values: Values = field(default_factory=dict)


def layer_spec(name: str, bottoms: Any, tops: Any, fields: dict[str, Any]) -> LayerSpec:
    """Returns the spec of a layer that is written as plain data, `type` among the fields."""
    params = {k: value_of(v) for k, v in fields.items() if k != "type"}
    named = (tuple(Name(n) for n in names) for names in (bottoms, tops))
    return LayerSpec(Name(name), Name(fields["type"]), *named, params)


def probe(feed: Feed) -> tuple[tuple[int, ...], ...]:
    """Stands in for a data source: items of 1 x 4 x 4."""
    return (feed.options["batch_size"], 1, 4, 4), (feed.options["batch_size"],)


def build_case(case: Case) -> Built:
    """Returns the layer of a case with its gradients, and values for all leaves."""
    names = [f"x{i}" for i in range(len(case.bottoms))]
    tops = [f"top{i}" for i in range(case.tops)]
    layers = [
        layer_spec(name, [], [name], {"type": "Input", "shape": list(bottom.shape)})
        for name, bottom in zip(names, case.bottoms, strict=True)
    ]
    layers.append(layer_spec("layer", names, tops, case.layer))
    graph = build(NetSpec(case.name, tuple(layers)), case.phase, probe=probe)
    built = Built(graph, [graph.blobs[top] for top in tops])
    graph.outputs = dict(zip(tops, built.tops, strict=True))
    graph.loss, graph.loss_weights = None, {}
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    bottoms = dict(zip(names, case.bottoms, strict=True))
    for name, node in graph.inputs.items():
        built.values["input", name] = _draw(rng, bottoms.get(name, Bottom(node.shape)))
    for key, node in graph.param_nodes.items():
        built.values["param", key] = rng.normal(size=node.shape)
    for key, info in graph.states.items():  # positive, as variances are
        built.values["state", key] = rng.uniform(0.5, 2.0, size=info.shape)
    if case.gradient:
        _add_gradients(built, case, rng)
    return built


def _add_gradients(built: Built, case: Case, rng: np.random.Generator) -> None:
    graph, top = built.graph, built.tops[0]
    learned = [f"x{i}" for i, b in enumerate(case.bottoms) if not (b.labels or b.fixed)]
    built.leaves = [graph.inputs[name] for name in learned] + list(graph.param_nodes.values())
    seed = leaves.input_("seed", top.shape)
    graph.inputs["seed"] = seed
    built.values["input", "seed"] = rng.normal(size=top.shape)
    graph.loss = ops.sum_all(ops.mul(top, seed))
    graph.outputs["sum"] = graph.loss
    for leaf, gradient in zip(
        built.leaves,
        gradients(graph.loss, built.leaves, recurrences=graph.recurrences),
        strict=True,
    ):
        graph.outputs[f"d {leaf.attr('name')}"] = gradient


def expected(case: Case, built: Built) -> list[Array]:
    """Returns the tops as the case's NumPy reference computes them."""
    blobs = ((key, v) for (prim, key), v in built.values.items() if prim in ("param", "state"))
    params = {key.split("/")[1]: v for key, v in blobs}
    names = [f"x{i}" for i in range(len(case.bottoms))] or [f"top{i}" for i in range(case.tops)]
    given = (built.values["input", name] for name in names if ("input", name) in built.values)
    found = case.reference(params, *given)
    return list(found) if isinstance(found, tuple) else [found]


def slopes(built: Built, step: float = 1e-5) -> tuple[float, float]:
    """Returns the derivative of `sum` in a random direction: by gradients, by finite difference.

    The direction has length 1 in each leaf, so that `step` is small against every value.
    """
    rng = np.random.default_rng(1)
    base = Reference().run(built.graph, built.values)
    along = 0.0
    moves: Values = {}
    for leaf in built.leaves:
        direction = rng.normal(size=leaf.shape)
        direction /= np.linalg.norm(direction)
        along += float(np.sum(base[f"d {leaf.attr('name')}"] * direction))
        moves[leaf.prim, leaf.attr("name")] = direction
    sums = []
    for sign in (1, -1):
        values = {k: v + sign * step * moves.get(k, 0.0) for k, v in built.values.items()}
        (total,) = evaluate([built.graph.outputs["sum"]], Env(values), built.graph.recurrences)
        sums.append(float(total))
    return along, (sums[0] - sums[1]) / (2 * step)


def _draw(rng: np.random.Generator, bottom: Bottom) -> Array:
    if bottom.draw is not None:
        return bottom.draw(rng, bottom.shape)
    if bottom.always is not None:
        return np.full(bottom.shape, bottom.always)
    if bottom.labels:
        return rng.integers(0, bottom.labels, bottom.shape).astype(np.float64)
    return rng.normal(size=bottom.shape) * bottom.scale
