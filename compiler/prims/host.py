"""Calls of a layer that is Python code: opaque, one flat block in, one flat block out."""

from __future__ import annotations

from math import prod

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims.moves import concat, reshape, slice_
from compiler.prims.registry import Array, Env, Primitive, define, make

Shape = tuple[int, ...]


def _evaluate(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    host = env.hosts[node.attr("layer")]
    values = args[0] if sum(node.attr("parts")) else np.empty(0)
    values = np.ascontiguousarray(values, np.float32)
    found = (
        host.forward(values)
        if node.attr("way") == "forward"
        else host.backward(values, node.attr("wanted"))
    )
    whole = np.zeros(node.shape, np.float32)
    whole[: found.size] = found
    return env.cast(whole, node.dtype)


def _vjp(node: Node, g: Node) -> tuple[Node | None, ...]:
    """The layer's backward, called after the forward that made the node."""
    parts = node.attr("parts")
    if not sum(parts):
        return (None,) * len(node.src)
    outs = node.attr("outs")
    seen = slice_(g, (0,), (sum(outs),)) if sum(outs) < g.type.size else g
    # A call of backward gives a gradient for every part; which are read is known later (calls.py).
    back = make(
        "host", seen, node, layer=node.attr("layer"), way="backward",
        parts=outs, outs=parts, wanted=(True,) * len(parts),
    )  # fmt: skip
    return (back, *(None for _ in node.src[1:]))


def _type(src: tuple[Node, ...], attrs: object) -> TensorType:
    assert isinstance(attrs, dict)
    given = sum(attrs["parts"])
    assert not given or src[0].shape == (given,), (src, attrs)
    return TensorType((max(1, sum(attrs["outs"])),))


# Attributes: `layer`, `way` (forward or backward), `parts` and `outs` (the sizes of what goes in
# and comes out), `wanted` (backward: which of `outs` will be read). The first source is the block
# that goes in, if parts has any elements; the others are calls that must come before this one.
define(Primitive("host", _type, _evaluate, lambda node, g: (
    _vjp(node, g) if node.attr("way") == "forward" else (None,) * len(node.src)
)))  # fmt: skip


def host(
    layer: str, sources: tuple[Node, ...], tops: tuple[Shape, ...], after: Node | None
) -> Node:
    """The forward call of a Python layer: its tops, one behind the other (see `tops_of`).

    `after` is the call before it in the net: calls run in the net's order, whatever else does not.
    """
    flat = tuple(reshape(s, (s.type.size,)) for s in sources)
    before = (after,) if after is not None else ()
    given = (concat(flat, 0),) if flat else ()
    sizes = tuple(s.type.size for s in flat)
    outs = tuple(prod(shape) for shape in tops)
    return make(
        "host", *given, *before, layer=layer, way="forward", parts=sizes, outs=outs, wanted=()
    )


def tops_of(call: Node, shapes: tuple[Shape, ...]) -> tuple[Node, ...]:
    """Returns each top of a forward call, in its own shape."""
    found, at = [], 0
    for shape in shapes:
        size = prod(shape)
        part = slice_(call, (at,), (at + size,)) if size < call.type.size else call
        found.append(reshape(part, shape))
        at += size
    return tuple(found)
