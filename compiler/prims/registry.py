"""The table of primitives, and `make`, which builds a typed node."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType, intern
from schemas.host import Host

Array = np.ndarray[Any, Any]


@dataclass
class Env:
    """What evaluation needs besides the sources: leaf values, precision, random key."""

    feeds: dict[tuple[str, str], Array] = field(default_factory=dict)  # (prim, name) -> value
    float_dtype: type[np.floating[Any]] = np.float64
    seed: int = 0
    iteration: int = 0
    hosts: Mapping[str, Host] = field(default_factory=dict)  # layers that are Python code

    def cast(self, array: Any, dtype: str) -> Array:
        """Returns `array` in the NumPy type that stands for `dtype` at this precision."""
        return np.asarray(array, self.dtype(dtype))

    def dtype(self, dtype: str) -> type[np.generic]:
        kinds: dict[str, type[np.generic]] = {"i32": np.int32, "u8": np.uint8, "bool": np.bool_}
        return kinds.get(dtype, self.float_dtype)


TypeRule = Callable[[tuple[Node, ...], Mapping[str, Any]], TensorType]
Vjp = Callable[[Node, Node], tuple[Node | None, ...]]
Evaluate = Callable[[Node, tuple[Array, ...], Env], Array]


def no_gradient(node: Node, g: Node) -> tuple[Node | None, ...]:
    """The vjp of a primitive through which nothing flows back."""
    return (None,) * len(node.src)


@dataclass(frozen=True)
class Primitive:
    """One primitive.

    `type` gives the result's type from sources and attributes (and asserts what must hold);
    `vjp(node, g)` gives the gradient for each source (None: nothing flows) from the gradient of
    the result; `evaluate` computes it with NumPy, at any precision, unfused: the oracle.
    """

    name: str
    type: TypeRule
    evaluate: Evaluate
    vjp: Vjp = no_gradient


PRIMITIVES: dict[str, Primitive] = {}


def define(primitive: Primitive) -> Primitive:
    assert primitive.name not in PRIMITIVES, primitive.name
    PRIMITIVES[primitive.name] = primitive
    return primitive


def make(prim: str, *src: Node, **attrs: Hashable) -> Node:
    """Returns the interned node; its type comes from the primitive's rule."""
    return intern(prim, src, attrs, PRIMITIVES[prim].type(src, attrs))
