"""Shape moves: the same elements at other indices; they never become kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims import reduce
from compiler.prims.registry import Array, Env, Primitive, define, make

Shape = tuple[int, ...]


def _reshape_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    assert math.prod(attrs["shape"]) == src[0].type.size, (src[0].shape, attrs["shape"])
    return TensorType(attrs["shape"], src[0].dtype)


define(
    Primitive(
        "reshape",
        _reshape_type,
        lambda node, args, env: args[0].reshape(node.shape),
        lambda n, g: (reshape(g, n.src[0].shape),),
    )
)


def reshape(x: Node, shape: Shape) -> Node:
    """The same elements, in row-major order, under another shape."""
    return x if x.shape == shape else make("reshape", x, shape=shape)


def _transpose_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    perm = attrs["perm"]
    assert sorted(perm) == list(range(src[0].type.rank)), (src[0].shape, perm)
    return TensorType(tuple(src[0].shape[p] for p in perm), src[0].dtype)


define(
    Primitive(
        "transpose",
        _transpose_type,
        lambda node, args, env: args[0].transpose(node.attr("perm")),
        lambda n, g: (transpose(g, tuple(int(i) for i in np.argsort(n.attr("perm")))),),
    )
)


def transpose(x: Node, perm: tuple[int, ...]) -> Node:
    """Axis i of the result is axis perm[i] of x."""
    return x if perm == tuple(range(x.type.rank)) else make("transpose", x, perm=perm)


def _broadcast_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    shape = attrs["shape"]
    assert src[0].type.rank == len(shape), (src[0].shape, shape)
    assert all(a in (1, b) for a, b in zip(src[0].shape, shape, strict=True)), src[0].shape
    return TensorType(shape, src[0].dtype)


def _broadcast_vjp(n: Node, g: Node) -> tuple[Node | None, ...]:
    old, new = n.src[0].shape, n.shape
    axes = tuple(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    return (reduce.sum_(g, axes),)


define(
    Primitive(
        "broadcast",
        _broadcast_type,
        lambda node, args, env: np.broadcast_to(args[0], node.shape),
        _broadcast_vjp,
    )
)


def broadcast(x: Node, shape: Shape) -> Node:
    """Repeats x along its unit axes; axes missing on the left count as unit axes (NumPy's rule)."""
    x = reshape(x, (1,) * (len(shape) - x.type.rank) + x.shape)
    return x if x.shape == shape else make("broadcast", x, shape=shape)


def _slice_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    assert all(
        0 <= a <= b <= n
        for a, b, n in zip(attrs["start"], attrs["stop"], src[0].shape, strict=True)
    ), (src[0].shape, attrs)
    shape = tuple(b - a for a, b in zip(attrs["start"], attrs["stop"], strict=True))
    return TensorType(shape, src[0].dtype)


def _slices(node: Node) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(node.attr("start"), node.attr("stop"), strict=True))


def _slice_vjp(n: Node, g: Node) -> tuple[Node | None, ...]:
    low = n.attr("start")
    high = tuple(size - stop for size, stop in zip(n.src[0].shape, n.attr("stop"), strict=True))
    return (pad(g, low, high),)


define(Primitive("slice", _slice_type, lambda n, args, env: args[0][_slices(n)], _slice_vjp))


def slice_(x: Node, start: Shape, stop: Shape) -> Node:
    """x[start[0]:stop[0], start[1]:stop[1], ...]."""
    whole = start == (0,) * x.type.rank and stop == x.shape
    return x if whole else make("slice", x, start=start, stop=stop)


def slice_axis(x: Node, axis: int, start: int, stop: int) -> Node:
    """x[:, ..., start:stop, ...] along one axis."""
    starts, stops = [0] * x.type.rank, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return slice_(x, tuple(starts), tuple(stops))


def _pad_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    assert len(attrs["low"]) == len(attrs["high"]) == src[0].type.rank
    shape = tuple(
        a + n + b for a, n, b in zip(attrs["low"], src[0].shape, attrs["high"], strict=True)
    )
    return TensorType(shape, src[0].dtype)


def _pad_vjp(n: Node, g: Node) -> tuple[Node | None, ...]:
    low = n.attr("low")
    return (slice_(g, low, tuple(a + s for a, s in zip(low, n.src[0].shape, strict=True))),)


define(
    Primitive(
        "pad",
        _pad_type,
        lambda n, args, env: np.pad(
            args[0], tuple(zip(n.attr("low"), n.attr("high"), strict=True))
        ),
        _pad_vjp,
    )
)


def pad(x: Node, low: Shape, high: Shape) -> Node:
    """Zeros around x: low[i] before and high[i] after along axis i."""
    return make("pad", x, low=low, high=high) if any(low) or any(high) else x


def _concat_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    axis = attrs["axis"]
    rest = {s.shape[:axis] + s.shape[axis + 1 :] for s in src}
    assert len(rest) == 1 and len({s.dtype for s in src}) == 1, [s.type for s in src]
    shape = list(src[0].shape)
    shape[axis] = sum(s.shape[axis] for s in src)
    return TensorType(tuple(shape), src[0].dtype)


def _concat_vjp(n: Node, g: Node) -> tuple[Node | None, ...]:
    axis, at, parts = n.attr("axis"), 0, []
    for source in n.src:
        parts.append(slice_axis(g, axis, at, at + source.shape[axis]))
        at += source.shape[axis]
    return tuple(parts)


define(
    Primitive(
        "concat",
        _concat_type,
        lambda node, args, env: np.concatenate(args, axis=node.attr("axis")),
        _concat_vjp,
    )
)


def concat(parts: tuple[Node, ...], axis: int) -> Node:
    """The parts one after the other along an axis."""
    return parts[0] if len(parts) == 1 else make("concat", *parts, axis=axis)


def _pack(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    flat = np.zeros(math.prod(node.shape), env.dtype(node.dtype))
    for offset, part in zip(node.attr("offsets"), args, strict=True):
        flat[offset : offset + part.size] = part.ravel()
    return flat.reshape(node.shape)


define(
    Primitive(
        "pack",
        lambda src, attrs: TensorType(attrs["shape"], src[0].dtype),
        _pack,
        # No vjp: only the solver packs gradients, and nothing differentiates an update.
    )
)


def pack(parts: tuple[Node, ...], offsets: tuple[int, ...], shape: Shape) -> Node:
    """The flattened parts at their offsets in one block of zeros: the arena of the gradients."""
    return make("pack", *parts, offsets=offsets, shape=shape)


def _delayed_type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    assert src[0].shape == (abs(attrs["by"]), *attrs["shape"][1:]), (src[0].type, attrs)
    return TensorType(attrs["shape"], src[0].dtype)


def _delayed_vjp(node: Node, g: Node) -> tuple[Node | None, ...]:
    by = node.attr("by")
    rows, steps = abs(by), node.shape[0]
    if rows > steps:  # only some of the rows are ever seen
        seen = (0, rows - steps) if by > 0 else (rows - steps, 0)
        rest = (0,) * (node.type.rank - 1)
        return (pad(g, (seen[0], *rest), (seen[1], *rest)),)
    return (slice_axis(g, 0, 0, rows) if by > 0 else slice_axis(g, 0, steps - rows, steps),)


define(
    Primitive(
        "delayed",
        type=_delayed_type,
        vjp=_delayed_vjp,
        evaluate=lambda node, args, env: env.feeds["delayed", node.attr("name")],
    )
)


def delayed(name: str, shape: Shape, by: int, initial: Node) -> Node:
    """A sequence (T, ...) of the graph, `by` steps ago: `compiler.ir.recurrence` says which one.

    Its first |by| rows are `initial`; with a negative `by`, it reads the future, and its last are.
    """
    return make("delayed", initial, name=name, shape=shape, by=by)


def expand_like(x: Node, like: Node, axis: int) -> Node:
    """Broadcasts x of shape (like.shape[axis],) or its block of axes from `axis` on over `like`."""
    shape = (1,) * axis + x.shape + (1,) * (like.type.rank - axis - x.type.rank)
    return broadcast(reshape(x, shape), like.shape)
