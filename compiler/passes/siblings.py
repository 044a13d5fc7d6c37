"""Joins convolutions of one blob: what each of them would read, one contraction reads once.

The ways of an inception block begin with convolutions of 1 x 1 of the same blob. Their weights side
by side are the weight of one contraction, of which the result of each is a slice; bias and ReLU are
those of the whole. Backward, the data gradients, which would be added up, are one contraction, and
so are the gradients of the weights. The weights are copied for that, once a step: it is done where
the reads that are saved are more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from compiler.ir.graph import Graph
from compiler.ir.inlining import FIXED
from compiler.ir.node import Node, made_of, users_of
from compiler.ir.rewrite import mapped, rewrite
from compiler.passes.simplify import RULES, full
from compiler.prims.contract import Labels
from compiler.prims.maps import add
from compiler.prims.moves import broadcast, concat, slice_axis
from compiler.prims.registry import make

Users = Mapping[Node, Sequence[Node]]


@dataclass
class Joined:
    """The graph, what its nodes became, and of all siblings whether they are joined, or why not."""

    graph: Graph
    new: dict[Node, Node] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def now(self, nodes: Iterable[Node]) -> list[Node]:
        return [self.new.get(node, node) for node in nodes]

    def put(self, start: Mapping[Node, Node]) -> None:
        """Puts other nodes in the place of some."""
        new = rewrite(self.graph.roots(), RULES, start)
        self.graph = mapped(self.graph, new)
        self.new = {**new, **{old: new.get(now, now) for old, now in self.new.items()}}
        self.names = {new.get(node, node): name for node, name in self.names.items()}


@dataclass(frozen=True)
class _Way:
    """A convolution with its bias and ReLU; others read its `end` alone."""

    product: Node
    bias: Node | None
    end: Node

    @property
    def weight(self) -> Node:
        return self.product.src[1]

    @property
    def width(self) -> int:
        return self.end.shape[1]


def join_siblings(graph: Graph) -> Joined:
    """Returns the graph with the convolutions of one blob joined wherever that pays."""
    made = Joined(graph)
    if graph.recurrences:  # in a loop, a contraction reads one step's rows
        return made
    for products in _siblings(graph):
        layers = [graph.origin[p] for p in products]
        ways = _ways(made.graph, made.now(products))
        why = _refusal(ways)
        if not why:
            _join(made, ways, "+".join([layers[0], *(x.rpartition("/")[2] for x in layers[1:])]))
        made.notes.append(f"{', '.join(layers)}: {why or 'one contraction'}")
    return made


def _siblings(graph: Graph) -> list[list[Node]]:
    """Returns convolutions that read the same blob in the same windows, in the file's order."""
    order = graph.nodes()
    place = {layer.name: i for i, layer in enumerate(graph.layers)}
    fixed = made_of(FIXED, order)
    found: dict[tuple[object, ...], list[Node]] = {}
    for node in order:
        if node.prim == "contract" and node.src[0] not in fixed and node.src[1] in fixed:
            labels: Labels = node.attr("labels")
            if labels.a[:2] == "nc" and labels.b[:2] == "oc" and labels.out[:2] == "no":
                sizes = tuple(item for item in labels.sizes if item[0] != "o")
                key = (node.src[0], labels.a, labels.b, labels.out, sizes, labels.slides)
                found.setdefault(key, []).append(node)
    groups = [group for group in found.values() if len(group) > 1]
    return [sorted(group, key=lambda p: place.get(graph.origin[p], 0)) for group in groups]


def _ways(graph: Graph, products: Sequence[Node]) -> list[_Way]:
    order = graph.nodes()
    users, fixed = users_of(order), made_of(FIXED, order)
    kept = {*graph.roots()}
    return [_way(product, users, fixed, kept) for product in products]


def _way(product: Node, users: Users, fixed: set[Node], kept: set[Node]) -> _Way:
    """Follows a bias and a ReLU, each the only reader of what comes before."""

    def reader(node: Node, prim: str) -> Node | None:
        only = users[node][0] if len(users[node]) == 1 and node not in kept else None
        return only if only is not None and only.prim == prim else None

    end, bias = product, None
    if (total := reader(end, "add")) is not None:
        spread = total.src[1]
        if spread in fixed and spread.prim == "broadcast":
            (vector,) = spread.src
            if vector.shape[1] == vector.type.size == end.shape[1]:
                end, bias = total, vector
    return _Way(product, bias, reader(end, "relu") or end)


def _refusal(ways: Sequence[_Way]) -> str:
    """Returns why convolutions are not joined, "" if they are."""
    if any(way.end.prim != "relu" for way in ways):
        return "not each of them is followed by a ReLU alone"
    if len({(way.bias is None, way.end.attrs) for way in ways}) > 1:
        return "their biases or slopes of ReLU are not alike"
    saved = ways[0].product.src[0].type.size * (len(ways) - 1)
    copied = 2 * sum(way.weight.type.size for way in ways)  # read and written
    return "" if copied < saved else "to copy their weights takes more than to read the blob again"


def _join(made: Joined, ways: Sequence[_Way], name: str) -> None:
    """Makes one contraction of several, then of their weight gradients and data gradients."""
    blob, weight = ways[0].product.src[0], concat(tuple(way.weight for way in ways), 0)
    whole = _widened(ways, ways[0].product, blob, weight)
    if ways[0].bias is not None:
        bias = concat(tuple(way.bias for way in ways if way.bias is not None), 1)
        made.names[bias] = f"{name}/bias"
        whole = add(whole, broadcast(bias, whole.shape))
    whole = make("relu", whole, **dict(ways[0].end.attrs))
    made.names |= {weight: f"{name}/weight", whole: name}
    to_weights, to_blob = _gradients(made.graph, ways)
    made.put(dict(zip((way.end for way in ways), _parts(ways, whole, 1), strict=True)))
    if not to_weights:
        return
    to_weights, to_blob = made.now(to_weights), made.now(to_blob)
    blob, gradient = to_weights[0].src[0], concat(tuple(node.src[1] for node in to_weights), 1)
    of_weight = _widened(ways, to_weights[0], blob, gradient)
    made.names |= {gradient: f"d({name})", of_weight: f"d({name}/weight)"}
    new = dict(zip(to_weights, _parts(ways, of_weight, 0), strict=True))
    if to_blob:  # the sum of all of them
        new |= {node: full(0.0, node) for node in to_blob}
        new[to_blob[0]] = _widened(ways, to_blob[0], gradient, weight)
    made.put(new)


def _widened(ways: Sequence[_Way], product: Node, a: Node, b: Node) -> Node:
    """Returns a contraction like `product`, of the outputs of all ways."""
    labels: Labels = product.attr("labels")
    width = sum(way.width for way in ways)
    sizes = tuple((label, width if label == "o" else size) for label, size in labels.sizes)
    return make("contract", a, b, labels=replace(labels, sizes=sizes))


def _parts(ways: Sequence[_Way], whole: Node, axis: int) -> Iterable[Node]:
    at = 0
    for way in ways:
        yield slice_axis(whole, axis, at, at + way.width)
        at += way.width


def _gradients(graph: Graph, ways: Sequence[_Way]) -> tuple[list[Node], list[Node]]:
    """Returns the gradients of all weights, if each has one, and of the blob, if they are added."""
    users = users_of(graph.nodes())
    to_weights, to_blob = list[Node](), list[Node]()
    for way in ways:
        labels: Labels = way.product.attr("labels")
        back = replace(labels, a=labels.out, out=labels.a)
        across = replace(labels, b=labels.out, out=labels.b)
        to_blob += _products(users[way.weight], back)
        of_blob = _products(users[way.product.src[0]], across)
        to_weights += [p for p in of_blob if p.src[1] is to_blob[-1].src[0]] if to_blob else []
    if not len(to_weights) == len(to_blob) == len(ways):
        return [], []
    return to_weights, to_blob if _added_up(to_blob, users) else []


def _products(nodes: Iterable[Node], labels: Labels) -> list[Node]:
    return [n for n in nodes if n.prim == "contract" and n.attr("labels") == labels]


def _added_up(nodes: Sequence[Node], users: Users) -> bool:
    """Says whether all nodes are parts of one sum, and of nothing else."""
    sums = list[set[Node]]()
    for node in nodes:
        sums.append(set())
        while len(users[node]) == 1 and users[node][0].prim == "add":
            (node,) = users[node]
            sums[-1].add(node)
    return bool(set.intersection(*sums))
