"""Solver update rules as graph: what a step does to the weights, over one flat arena."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.passes.arena import ROW, Arena
from compiler.passes.autodiff import gradients
from compiler.prims import leaves
from compiler.prims.maps import add, div, less, maximum, mul, select, sign, sqrt, sub
from compiler.prims.moves import broadcast, pack
from compiler.prims.reduce import sum_all
from schemas.params import StateInfo
from schemas.program import Runs
from schemas.solver import SolverSpec

Values = dict[str, Node]
# The least normal f32: Triton would take a smaller constant, and all that meets it, for f64.
TINY = 2.0**-126


@dataclass
class Rule:
    """One update rule: the history blobs it keeps, and the step it takes.

    `step(spec, g, w, lr, history)` returns the decrement of w and the new history; lr already
    holds lr_mult, g the regularisation (CAFFE.md section 4).
    """

    history: tuple[str, ...]
    step: Callable[[SolverSpec, Node, Node, Node, Values], tuple[Node, Values]]


def _sgd(s: SolverSpec, g: Node, w: Node, lr: Node, h: Values) -> tuple[Node, Values]:
    # The rate is inside the momentum buffer: a change of rate does not rescale what is in it.
    m = add(mul(h["momentum"], s.momentum), mul(lr, g))
    return m, {"momentum": m}


def _plain_sgd(s: SolverSpec, g: Node, w: Node, lr: Node, h: Values) -> tuple[Node, Values]:
    return mul(lr, g), {}


def _nesterov(s: SolverSpec, g: Node, w: Node, lr: Node, h: Values) -> tuple[Node, Values]:
    m = add(mul(h["momentum"], s.momentum), mul(lr, g))
    return sub(mul(m, 1 + s.momentum), mul(h["momentum"], s.momentum)), {"momentum": m}


def _adagrad(s: SolverSpec, g: Node, w: Node, lr: Node, h: Values) -> tuple[Node, Values]:
    total = add(h["square"], mul(g, g))
    return mul(lr, div(g, add(sqrt(total), s.delta))), {"square": total}


def _rmsprop(s: SolverSpec, g: Node, w: Node, lr: Node, h: Values) -> tuple[Node, Values]:
    mean = add(mul(h["square"], s.rms_decay), mul(mul(g, g), 1 - s.rms_decay))
    return mul(lr, div(g, add(sqrt(mean), s.delta))), {"square": mean}


def _adadelta(s: SolverSpec, g: Node, w: Node, lr: Node, h: Values) -> tuple[Node, Values]:
    mu = s.momentum
    square = add(mul(h["square"], mu), mul(mul(g, g), 1 - mu))
    step = mul(g, sqrt(div(add(h["step"], s.delta), add(square, s.delta))))
    steps = add(mul(h["step"], mu), mul(mul(step, step), 1 - mu))
    return mul(lr, step), {"square": square, "step": steps}


def _adam(s: SolverSpec, g: Node, w: Node, lr: Node, h: Values) -> tuple[Node, Values]:
    first = add(mul(h["moment1"], s.momentum), mul(g, 1 - s.momentum))
    second = add(mul(h["moment2"], s.momentum2), mul(mul(g, g), 1 - s.momentum2))
    # rate_scale = sqrt(1 - b2^t) / (1 - b1^t), computed by the runtime in float64.
    rate = mul(lr, broadcast(leaves.scalar("rate_scale"), lr.shape))
    step = mul(rate, div(first, add(sqrt(second), s.delta)))
    return step, {"moment1": first, "moment2": second}


RULES: dict[str, Rule] = {
    "SGD": Rule(("momentum",), _sgd),
    "Nesterov": Rule(("momentum",), _nesterov),
    "AdaGrad": Rule(("square",), _adagrad),
    "RMSProp": Rule(("square",), _rmsprop),
    "AdaDelta": Rule(("square", "step"), _adadelta),
    "Adam": Rule(("moment1", "moment2"), _adam),
    "AdamW": Rule(("moment1", "moment2"), _adam),
}


@dataclass
class Step:
    """A graph with updates, the tables its update reads, and names for its new nodes."""

    graph: Graph
    tables: dict[str, Runs] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)


def packed_gradients(graph: Graph, arena: Arena, names: dict[Node, str]) -> Node:
    """Returns the gradients of all learned blobs as one flat block laid out like the arena."""
    assert graph.loss is not None
    wanted = [k for k in arena.slots if k in graph.params and graph.params[k].lr_mult != 0]
    views = [arena.slots[k] for k in wanted]
    every: dict[Node, Node] = {}
    forward = set(graph.origin)
    leaves_ = [graph.param_nodes[k] for k in wanted]
    found = gradients(
        graph.loss, leaves_, origin=graph.origin, found=every, recurrences=graph.recurrences
    )
    for node, layer in graph.origin.items():
        if node not in forward:
            names[node] = f"d({layer}).{node.prim}"
    names.update({every[n]: f"d({blob})" for blob, n in graph.blobs.items() if n in every})
    parts = tuple(v.stored(g) for v, g in zip(views, found, strict=True))
    for key, g, part in zip(wanted, found, parts, strict=True):
        names[g] = names[part] = f"d({key})"
        while g.prim in ("reshape", "transpose"):
            g = g.src[0]
            names[g] = f"d({key})"
    if not parts:  # everything is frozen: the net runs and learns nothing, as in Caffe
        return broadcast(leaves.const(0.0), arena.shape)
    packed = pack(parts, tuple(v.offset for v in views), arena.shape)
    names[packed] = "gradients"
    return packed


def _copied(graph: Graph) -> Graph:
    """Returns a graph whose updates and recurrences may grow."""
    return replace(graph, updates=dict(graph.updates), recurrences=list(graph.recurrences))


def train_step(graph: Graph, arena: Arena, spec: SolverSpec) -> Step:
    """Returns the graph of forward, backward and update in one (iter_size 1)."""
    step = Step(_copied(graph))
    g = packed_gradients(step.graph, arena, step.names)
    _apply(step, g, arena, spec)
    return step


def accumulate_step(graph: Graph, arena: Arena) -> Step:
    """Returns the graph that adds one batch's gradients to the state `accumulated`."""
    step = Step(_copied(graph))
    g = packed_gradients(step.graph, arena, step.names)
    total = leaves.state("accumulated", arena.shape)
    # `first` is 1 for the first batch of an iteration: what was there before must not count.
    again = less(broadcast(leaves.scalar("first"), arena.shape), 0.5)
    step.graph.updates[total] = add(g, select(again, total, 0.0))
    return step


def apply_step(graph: Graph, arena: Arena, spec: SolverSpec) -> Step:
    """Returns the graph that applies the state `accumulated` to the weights."""
    empty = Graph(graph.name, graph.phase, graph.spec, params=graph.params)
    step = Step(empty)
    _apply(step, leaves.state("accumulated", arena.shape), arena, spec)
    return step


def _apply(step: Step, g: Node, arena: Arena, spec: SolverSpec) -> None:
    """Clip, normalise, regularise, then the rule: Caffe's order."""
    graph, w = step.graph, arena.leaf
    if spec.clip_gradients >= 0:
        # Global L2 norm of all gradients, before iter_size and decay.
        norm = sqrt(sum_all(mul(g, g)))
        factor = select(
            less(spec.clip_gradients, norm),
            div(spec.clip_gradients, maximum(norm, TINY)),
            1.0,
        )
        g = mul(g, broadcast(factor, g.shape))
    if spec.iter_size > 1:
        g = mul(g, 1.0 / spec.iter_size)
    decoupled = spec.type == "AdamW"
    if not decoupled:
        g = _regularised(step, g, w, arena, spec)
    lr = broadcast(leaves.scalar("lr"), arena.shape)
    lr = mul(lr, _table(step, arena, "lr_mult"))
    rule = RULES[spec.type]
    if spec.type == "SGD" and spec.momentum == 0:
        rule = Rule((), _plain_sgd)
    history = {n: leaves.state(n, arena.shape) for n in rule.history}
    decrement, new = rule.step(spec, g, w, lr, history)
    if decoupled:
        decay = mul(_table(step, arena, "decay_mult"), spec.weight_decay)
        decrement = add(decrement, mul(mul(lr, decay), w))
    for name, node in history.items():
        graph.states[name] = StateInfo(name, arena.shape)
        graph.updates[node] = new[name]
        step.names[new[name]] = f"update.{name}"
    graph.updates[w] = sub(w, decrement)
    step.names[graph.updates[w]] = "update"


def _regularised(step: Step, g: Node, w: Node, arena: Arena, spec: SolverSpec) -> Node:
    if not spec.weight_decay and not spec.weight_decay_l1:
        return g
    mult = _table(step, arena, "decay_mult")
    if "L2" in spec.regularization_type:
        g = add(g, mul(mul(mult, spec.weight_decay), w))
    if "L1" in spec.regularization_type:
        l1 = spec.weight_decay if spec.weight_decay_l1 is None else spec.weight_decay_l1
        g = add(g, mul(mul(mult, l1), sign(w)))
    return g


def _table(step: Step, arena: Arena, name: str) -> Node:
    """The multiplier of each blob, one number a row of the arena; a constant where all agree."""
    params = step.graph.params
    used = {k: float(getattr(params[k], name)) for k in arena.slots if k in params}
    if len(set(used.values())) == 1:
        return broadcast(leaves.const(next(iter(used.values()))), arena.shape)
    runs: list[tuple[float, int]] = []
    for key, slot in arena.slots.items():
        value, rows = used.get(key, 0.0), -(-slot.size // ROW)
        if runs and runs[-1][0] == value:
            rows += runs.pop()[1]
        runs.append((value, rows))
    step.tables[name] = tuple(runs) or ((0.0, arena.rows),)
    return broadcast(leaves.state(name, (arena.rows, 1)), arena.shape)
