"""THE list of passes: from a graph to a Program, by name, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

from compiler.assemble import assemble
from compiler.backends import get_backend
from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.ir.rewrite import mapped, rewrite, straightened, verify
from compiler.kernels.kernel import Kernel
from compiler.kernels.schedule import Buffer
from compiler.lowering.adapt import adapt, parts_of
from compiler.lowering.epilogues import fold_results, pooled_mask
from compiler.lowering.fuse import fuse
from compiler.lowering.joins import join_tiles
from compiler.lowering.launches import schedule
from compiler.lowering.lower import Lowering
from compiler.lowering.memory import plan_memory
from compiler.lowering.narrow import narrow
from compiler.lowering.rematerialize import rematerialized
from compiler.lowering.roll import roll
from compiler.lowering.rowsums import take_sums
from compiler.lowering.storage import Planner
from compiler.passes.arena import on_arena, plan_arena
from compiler.passes.calls import asked
from compiler.passes.concats import read_in_concats
from compiler.passes.cut import cut
from compiler.passes.fold import fold_weights
from compiler.passes.moments import part_moments
from compiler.passes.siblings import join_siblings
from compiler.passes.simplify import RULES
from compiler.passes.winograd import filtered
from compiler.unit import Unit
from schemas.program import Program


def _rename(unit: Unit, new: Mapping[Node, Node]) -> None:
    unit.names = {new.get(n, n): name for n, name in unit.names.items()}


def put_on_arena(unit: Unit) -> None:
    """Parameters become views of the one arena that all programs of a solver share."""
    graph = unit.graph
    views = on_arena(graph, unit.arena, {k: graph.params[k] for k in graph.param_nodes})
    new = rewrite([*graph.roots(), *graph.param_nodes.values()], (), views)
    unit.graph = mapped(graph, new)
    _rename(unit, new)


def cut_update(unit: Unit) -> None:
    """Large blobs take their step where their gradient is made."""
    if unit.backend.traits.apart:
        made = cut(unit.graph, unit.arena, unit.tables, unit.backend.traits.apart)
        unit.graph, unit.tables = made.graph, made.tables
        _rename(unit, made.new)


def ask(unit: Unit) -> None:
    """Calls of a layer's backward learn which gradients will be read."""
    new = asked(unit.graph)
    unit.graph = mapped(unit.graph, new)
    _rename(unit, new)


def simplify_graph(unit: Unit) -> None:
    """Algebra: see the rules."""
    masks = (pooled_mask,) if unit.backend.traits.wide_epilogues else ()
    new = rewrite(unit.graph.roots(), (*RULES, *masks))
    unit.graph = mapped(unit.graph, new)
    _rename(unit, new)


def join(unit: Unit) -> None:
    """Convolutions of one blob are one contraction."""
    if unit.backend.traits.siblings:
        made = join_siblings(unit.graph)
        unit.graph, unit.siblings = made.graph, made.notes
        _rename(unit, made.new)
        unit.names |= made.names


def read_parts(unit: Unit) -> None:
    """What is a part of a Concat is stored there alone."""
    if unit.backend.traits.concats:
        new = read_in_concats(unit.graph)
        unit.graph = mapped(unit.graph, new)
        _rename(unit, new)


def straighten(unit: Unit) -> None:
    """What reads another time step without being part of a cycle is a plain move of its source."""
    unit.graph, new = straightened(unit.graph)
    _rename(unit, new)
    if new:
        simplify_graph(unit)


def fold(unit: Unit) -> None:
    """Batch statistics and slopes become one product and one sum a channel."""
    if unit.graph.phase == "TEST":  # in training, what a chain passes through is read again
        new = fold_weights(unit.graph)
        unit.graph = mapped(unit.graph, new)
        _rename(unit, new)


def part(unit: Unit) -> None:
    """Long sums over places are taken in parts: so that mean and variance take one read."""
    traits = unit.backend.traits
    if traits.nearby or traits.rows:
        new = part_moments(unit.graph, traits.nearby, traits.rows)
        unit.graph = mapped(unit.graph, new)
        _rename(unit, new)


def filter_minimally(unit: Unit) -> None:
    """Convolutions for which it pays take Winograd's form."""
    if unit.backend.traits.winograd:
        new = filtered(unit.graph)
        unit.graph = mapped(unit.graph, new)
        _rename(unit, new)


def check(unit: Unit) -> None:
    """Every node has the type that its rule gives."""
    verify(unit.graph)


def place(unit: Unit) -> None:
    """Which nodes are stored, and in what layout."""
    unit.plan = Planner(unit.graph, unit.names, unit.backend.traits).run()
    unit.buffers = unit.plan.buffers
    # Weights and states can be read and set even where nothing of this step looks at them.
    for (role, key), shape in unit.lasting().items():
        unit.buffers.setdefault(key, Buffer(key, "f32", prod(shape), role))


def lower(unit: Unit) -> None:
    """One kernel for each stored node."""
    unit.kernels = list(Lowering(unit.plan, unit.graph.origin).kernels())


def store_narrow(unit: Unit) -> None:
    """Activations and gradients lie as bf16 where the backend wants it."""
    if unit.backend.traits.narrow:
        kernels, graph = _plain_kernels(unit), unit.graph
        nodes = graph.nodes()
        reached = [r for r in graph.recurrences if r.leaf in set(nodes)]
        unit.kernels[:], unit.buffers = narrow(kernels, unit.buffers, unit.plan, nodes, reached)


def _plain_kernels(unit: Unit) -> list[Kernel]:
    return [k for k in unit.kernels if isinstance(k, Kernel)]


def merge(unit: Unit) -> None:
    """Epilogues, siblings, rows."""
    kernels = _plain_kernels(unit)
    fused = fuse(kernels, unit.buffers, unit.plan.steps, unit.backend.traits.wide_epilogues)
    unit.kernels, unit.refused = fused.kernels, fused.refused


def add_up_rows(unit: Unit) -> None:
    """Sums over rows of what a contraction stores, in its epilogue; all its tiles' sums, joined."""
    if unit.backend.traits.rows:
        unit.kernels = take_sums(unit.kernels, unit.buffers, unit.backend.traits.rows)
        if unit.backend.traits.last_adds:
            unit.kernels = join_tiles(unit.kernels)
        left = {kernel.name for kernel in unit.kernels}
        unit.refused = [pair for pair in unit.refused if left.issuperset(pair[:2])]


def widen_epilogues(unit: Unit) -> None:
    """Poolings of what a contraction makes, in its epilogue."""
    traits = unit.backend.traits
    if traits.wide_epilogues:
        folded = fold_results(
            unit.kernels, unit.buffers, unit.refused, lambda k: parts_of(k, traits) is not None
        )
        unit.kernels, unit.refused = folded.kernels, folded.refused


def step_by_step(unit: Unit) -> None:
    """Loops over time repeat the kernels of one step."""
    places = unit.graph.places
    unit.kernels, unit.buffers = roll(unit.kernels, unit.buffers, places.get)


def fit(unit: Unit) -> None:
    """What this backend needs: split sums, turned factors."""
    adapted = adapt(unit.kernels, unit.buffers, unit.backend.traits)
    unit.kernels, unit.buffers = adapted.kernels, adapted.buffers


def group(unit: Unit) -> None:
    """Launches, in order."""
    unit.schedule = schedule(unit.kernels, unit.buffers, unit.backend.traits.groups)


def make_again(unit: Unit) -> None:
    """What the backward pass makes again rather than having it kept."""
    traits = unit.backend.traits
    unit.schedule = rematerialized(unit.schedule, traits.prologue, traits.inlet)


def plan(unit: Unit) -> None:
    """Who shares which memory."""
    unit.memory = plan_memory(unit.schedule, unit.backend.traits.inlet)


def generate(unit: Unit) -> None:
    """Source and machine code."""
    slots = tuple(slot.name for slot in unit.memory.slots)
    unit.compiled = unit.backend.compile(unit.graph.name, unit.schedule, unit.memory.places, slots)


Pass = Callable[[Unit], None]
PASSES: tuple[tuple[str, Pass], ...] = (
    ("arena", put_on_arena),
    ("cut", cut_update),
    ("ask", ask),
    ("simplify", simplify_graph),
    ("siblings", join),
    ("concats", read_parts),
    ("straighten", straighten),
    ("fold", fold),
    ("moments", part),
    ("winograd", filter_minimally),
    ("verify", check),
    ("storage", place),
    ("lower", lower),
    ("narrow", store_narrow),
    ("fuse", merge),
    ("sums", add_up_rows),
    ("epilogues", widen_epilogues),
    ("roll", step_by_step),
    ("adapt", fit),
    ("launches", group),
    ("rematerialize", make_again),
    ("memory", plan),
    ("code", generate),
)
Instrument = Callable[[str, Unit], None]


def check_time(graph: Graph) -> None:
    """Raises GraphError where a layer on a cycle mixes time steps: runs the passes that tell."""
    unit = Unit(graph, plan_arena(graph), get_backend("reference"))
    for name, run in PASSES:
        run(unit)
        if name == "roll":
            return


def compile_unit(unit: Unit, instrument: Instrument | None = None) -> Program:
    """Runs all passes; `instrument` is called with each pass's name and the unit after it."""
    unit.graph = replace(unit.graph, updates=dict(unit.graph.updates))
    for name, run in PASSES:
        run(unit)
        if instrument is not None:
            instrument(name, unit)
    return assemble(unit)


def plan_unit(unit: Unit) -> None:
    """Runs all passes but the last: what is computed, when, and where it lies, without code."""
    unit.graph = replace(unit.graph, updates=dict(unit.graph.updates))
    for _, run in PASSES[:-1]:
        run(unit)


def recompiled(unit: Unit) -> Program:
    """Returns the Program of a unit that was compiled, its code made anew."""
    generate(unit)
    return assemble(unit)
