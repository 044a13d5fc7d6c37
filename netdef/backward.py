"""The step behind net.backward: gradients of inputs and weights from gradients of blobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.passes.arena import Arena
from compiler.passes.autodiff import gradients
from compiler.passes.update import Step
from compiler.prims.leaves import const, input_
from compiler.prims.maps import add
from compiler.prims.moves import broadcast, pack
from schemas.errors import UsageError, did_you_mean
from schemas.program import CHANGED


def check_names(blobs: Iterable[str], graph: Graph) -> None:
    """Raises UsageError for a blob that the net does not have."""
    for name in blobs:
        if name not in graph.blobs:
            raise UsageError(f"no blob '{name}'", hint=did_you_mean(str(name), graph.blobs))


def backward_step(graph: Graph, arena: Arena, given: tuple[str, ...]) -> Step:
    """Returns the step that computes input and parameter gradients from output gradients."""
    seeds: dict[Node, Node] = {}
    leaves = {}
    check_names(given, graph)
    for name in given:
        node = graph.blobs[name]
        leaf = leaves[f"d:{name}"] = input_(f"d:{name}", node.shape)
        # Two blobs may be one node, as the tops of a Split: their gradients add up.
        seeds[node] = add(seeds[node], leaf) if node in seeds else leaf
    if not given and graph.loss is None:
        raise UsageError("the net has no loss", hint="give the gradient of an output by name")
    keys = [k for k in arena.slots if k in graph.params]
    wrt = [*graph.inputs.values(), *(graph.param_nodes[k] for k in keys)]
    graph = replace(graph, recurrences=list(graph.recurrences))
    found = gradients(
        None if given else graph.loss,
        wrt,
        seeds or None,
        origin=graph.origin,
        recurrences=graph.recurrences,
    )
    count = len(graph.inputs)
    named = (f"{CHANGED if n in given else ''}d:{n}" for n in graph.inputs)
    outputs = dict(zip(named, found, strict=False))
    inputs = {**graph.inputs, **leaves}
    names = {}
    if keys:
        slots = [arena.slots[k] for k in keys]
        # What does not learn has no gradient, as in Caffe.
        parts = tuple(
            slot.stored(g if graph.params[slot.key].lr_mult else broadcast(const(0.0), g.shape))
            for slot, g in zip(slots, found[count:], strict=True)
        )
        packed = pack(parts, tuple(s.offset for s in slots), arena.shape)
        outputs["gradients"] = packed
        names[packed] = "gradients"
    apart = replace(graph, inputs=inputs, outputs=outputs, updates={}, kept={}, sinks=())
    again = {name: host.again() for name, host in graph.hosts.items()}
    return Step(replace(apart, effects=(), hosts=again), names=names)
