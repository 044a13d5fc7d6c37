"""Rewrites graphs: replaces nodes bottom-up by rules, each node once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from compiler.ir.graph import Graph
from compiler.ir.node import Node, toposort
from compiler.ir.recurrence import Recurrence, loops, shifted, short
from compiler.prims.registry import PRIMITIVES, make

Rule = Callable[[Node], Node | None]


def rewrite(
    roots: Sequence[Node], rules: Sequence[Rule], start: Mapping[Node, Node] | None = None
) -> dict[Node, Node]:
    """Returns what each node below the roots becomes.

    Sources are rewritten before their readers; a rule gets a node whose sources are final and
    gives its replacement or None. Rules apply until none fits.
    """
    new: dict[Node, Node] = dict(start or {})
    for node in toposort(roots):
        if node in new:
            continue
        sources = tuple(new[s] for s in node.src)
        current = node if sources == node.src else make(node.prim, *sources, **dict(node.attrs))
        new[node] = _settle(current, rules)
        assert new[node].type == node.type, f"{node} became {new[node]}"
    return new


def _settle(node: Node, rules: Sequence[Rule]) -> Node:
    while True:
        for rule in rules:
            better = rule(node)
            if better is not None and better is not node:
                node = better
                break
        else:
            return node


def mapped(graph: Graph, new: Mapping[Node, Node]) -> Graph:
    """Returns the graph with every node replaced by what it became."""

    def of(node: Node) -> Node:
        return new.get(node, node)

    origin = {of(n): layer for n, layer in graph.origin.items()}
    for node, layer in graph.origin.items():
        if node in new:
            _inherit(new[node], layer, origin)
    return replace(
        graph,
        inputs={k: of(n) for k, n in graph.inputs.items()},
        param_nodes={k: of(n) for k, n in graph.param_nodes.items()},
        blobs={k: of(n) for k, n in graph.blobs.items()},
        outputs={k: of(n) for k, n in graph.outputs.items()},
        kept={k: of(n) for k, n in graph.kept.items()},
        loss=of(graph.loss) if graph.loss is not None else None,
        updates={of(k): of(n) for k, n in graph.updates.items()},
        recurrences=[Recurrence(of(r.leaf), of(r.source)) for r in graph.recurrences],
        effects=tuple(of(n) for n in graph.effects),
        origin=origin,
    )


def straightened(graph: Graph) -> tuple[Graph, dict[Node, Node]]:
    """Returns the graph without delayed nodes that are on no cycle, and what its nodes became."""
    became: dict[Node, Node] = {}
    while True:
        order = graph.nodes()
        reached = set(order)
        graph = replace(graph, recurrences=[r for r in graph.recurrences if r.leaf in reached])
        _, cyclic = loops(order, graph.recurrences)
        plain = [r for r in graph.recurrences if r.leaf not in cyclic or short(r)]
        if not plain:
            return graph, became
        new = rewrite(graph.roots(), (), {plain[0].leaf: shifted(plain[0])})
        left = [r for r in graph.recurrences if r is not plain[0]]
        graph = mapped(replace(graph, recurrences=left), new)
        became = {**new, **{old: new.get(now, now) for old, now in became.items()}}


def _inherit(node: Node, layer: str, origin: dict[Node, str]) -> None:
    """What a rule made new belongs to the layer of what it replaced."""
    stack = list(node.src)  # the node itself is known by now
    while stack:
        node = stack.pop()
        if node.src and node not in origin:
            origin[node] = layer
            stack.extend(node.src)


def verify(graph: Graph) -> None:
    """Asserts that every node has the type that its primitive's rule gives."""
    for node in graph.nodes():
        expected = PRIMITIVES[node.prim].type(node.src, dict(node.attrs))
        assert node.type == expected, f"{node}: its rule says {expected}"
    for leaf, value in graph.updates.items():
        assert leaf.type == value.type, f"update of {leaf} by {value}"
