"""Node and TensorType: an interned, immutable SSA graph of tensors."""

from __future__ import annotations

import math
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from schemas.program import Dtype


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type; axes stand in Caffe's order (N, C, spatial...)."""

    shape: tuple[int, ...]
    dtype: Dtype = "f32"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


# An attribute is any hashable value; Attrs is a sorted tuple so that equal attributes are one key.
Attrs = tuple[tuple[str, Hashable], ...]


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Node:
    """One value: a primitive applied to other values.

    Nodes are interned: two nodes of the same primitive, sources and attributes are one object, so
    equality is identity and common subexpressions merge by themselves. Which layer made a node is
    not part of it (`Graph.origin` knows).
    """

    prim: str
    src: tuple[Node, ...]
    attrs: Attrs
    type: TensorType

    def attr(self, name: str) -> Any:
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.prim} has no attribute {name}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> Dtype:
        return self.type.dtype

    def __repr__(self) -> str:
        attrs = "".join(f" {k}={v}" for k, v in self.attrs)
        return f"<{self.prim}{attrs} {self.type}>"


_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()


def intern(prim: str, src: Iterable[Node], attrs: Mapping[str, Hashable], type: TensorType) -> Node:
    """Returns THE node of this primitive, sources, attributes and type."""
    sources = tuple(src)
    items: Attrs = tuple(sorted(attrs.items()))
    # True == 1 == 1.0 as keys: the types are part of the key, or `slope=0` would be `slope=0.0`.
    kinds = tuple(v.__class__ for _, v in items)
    key = (prim, tuple(map(id, sources)), items, kinds, type)
    node = _interned.get(key)
    if node is None:
        node = _interned[key] = Node(prim, sources, items, type)
    return node


def toposort(roots: Iterable[Node]) -> list[Node]:
    """Returns every node that the roots need, sources first; a loop, as nets may be very deep."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, Iterator[Node]]] = []
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack.append((root, iter(root.src)))
        while stack:
            node, rest = stack[-1]
            for source in rest:
                if source not in seen:
                    seen.add(source)
                    stack.append((source, iter(source.src)))
                    break
            else:
                stack.pop()
                order.append(node)
    return order


def users_of(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """Returns each node's readers; a node that reads another twice is listed twice."""
    users: dict[Node, list[Node]] = {}
    for node in order:
        users.setdefault(node, [])
        for source in node.src:
            users.setdefault(source, []).append(node)
    return users


def made_of(leaves: Set[str], order: Iterable[Node]) -> set[Node]:
    """Returns the nodes (given sources first) whose leaves are all of these primitives.

    A delayed node is made of more than its source: of a sequence.
    """
    found: set[Node] = set()
    for node in order:
        inner = node.src and node.prim != "delayed"
        if node.prim in leaves or (inner and found.issuperset(node.src)):
            found.add(node)
    return found
