"""Algebraic rules, one line each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from compiler.ir.node import Node
from compiler.ir.rewrite import Rule
from compiler.prims import leaves, moves
from compiler.prims.maps import SCALARS, div, mul, sqrt
from compiler.prims.registry import PRIMITIVES, Env, make
from compiler.prims.window import Window


def splat(node: Node) -> float | int | bool | None:
    """Returns the number that every element of a node is, if it is a constant."""
    while node.prim in ("broadcast", "reshape", "transpose"):
        (node,) = node.src
    return node.attr("value") if node.prim == "const" else None


def full(value: float | int | bool, like: Node) -> Node:
    return moves.broadcast(leaves.const(value, like.dtype), like.shape)


def _views(n: Node) -> Node | None:
    if n.prim == "reshape":
        if n.shape == n.src[0].shape:  # reshape(x, x.shape) -> x
            return n.src[0]
        if n.src[0].prim == "reshape":  # reshape(reshape(x)) -> reshape(x)
            return moves.reshape(n.src[0].src[0], n.shape)
    if n.prim == "transpose" and n.src[0].prim == "transpose":  # two permutations -> their product
        inner = n.src[0].attr("perm")
        return moves.transpose(n.src[0].src[0], tuple(inner[p] for p in n.attr("perm")))
    if n.prim == "transpose" and _unit_move(n):  # moving unit axes -> reshape
        return moves.reshape(n.src[0], n.shape)
    if n.prim == "broadcast" and n.src[0].prim == "broadcast":  # broadcast twice -> once
        return moves.broadcast(n.src[0].src[0], n.shape)
    return None


def _unit_move(n: Node) -> bool:
    kept = [p for p in n.attr("perm") if n.src[0].shape[p] > 1]
    return kept == sorted(kept)


def _constants(n: Node) -> Node | None:
    if n.prim in ("reshape", "transpose") and (value := splat(n)) is not None:
        flat = moves.broadcast(leaves.const(value, n.dtype), n.shape)
        return flat if flat is not n else None
    if n.prim in SCALARS and n.src and n.prim != "stop":  # f(constants) -> constant
        known = [splat(s) for s in n.src]
        if all(v is not None for v in known):
            env = Env(float_dtype=np.float64)
            args = tuple(env.cast(v, s.dtype) for v, s in zip(known, n.src, strict=True))
            value = PRIMITIVES[n.prim].evaluate(n, args, env).item()
            return full(value, n) if not isinstance(value, float) or math.isfinite(value) else None
    return None


def _arithmetic(n: Node) -> Node | None:
    if n.prim == "stop":  # gradients are taken: stop(x) -> x
        return n.src[0]
    if len(n.src) != 2 or n.prim not in SCALARS:
        return None
    (a, b), (x, y) = n.src, (splat(s) for s in n.src)
    if n.prim == "add":
        if x == 0:  # 0 + b -> b
            return b
        if y == 0:  # a + 0 -> a
            return a
        if b.prim == "sub" and b.src[1] is a:  # a + (c - a) -> c
            return b.src[0]
    if n.prim == "sub" and y == 0:  # a - 0 -> a
        return a
    if n.prim == "mul":
        if x == 0 or y == 0:  # a * 0 -> 0
            return full(0.0, n)
        if x == 1:  # 1 * b -> b
            return b
        if y == 1:  # a * 1 -> a
            return a
        if y is not None and a.prim == "mul" and (c := splat(a.src[1])) is not None:
            return mul(a.src[0], full(c * y, n))  # (a * c) * y -> a * (c * y)
    if n.prim == "div" and y is not None and y != 0:  # a / y -> a * (1 / y) where y is a power of 2
        return mul(a, full(1 / y, n)) if math.frexp(y)[0] in (0.5, -0.5) else None
    if n.prim == "pow":
        return (
            {1: a, 2: mul(a, a), 0.5: sqrt(a)}.get(y) if y is not None else None
        )  # x^1, x^2, x^.5
    return None


def _reductions(n: Node) -> Node | None:
    if n.prim == "sum" and (value := splat(n.src[0])) is not None:  # sum of a constant -> constant
        count = n.src[0].type.size // n.type.size
        return full(value * count, n)
    if n.prim == "neg" and n.src[0].prim == "neg":  # -(-x) -> x
        return n.src[0].src[0]
    if n.prim == "select" and n.src[1] is n.src[2]:  # select(c, x, x) -> x
        return n.src[1]
    return None


def _factored(n: Node) -> Node | None:
    """sum(x * c) -> sum(x) * c where c is the same along the sum: sums of the same x are one."""
    if n.prim != "sum":
        return None
    varying: list[Node] = []
    fixed: list[tuple[Callable[..., Node], Node]] = []

    def split(x: Node) -> None:
        if (c := _unvaried(x, n)) is not None:
            fixed.append((mul, c))
        elif x.prim == "mul":
            split(x.src[0])
            split(x.src[1])
        elif x.prim == "div" and (c := _unvaried(x.src[1], n)) is not None:
            split(x.src[0])
            fixed.append((div, c))
        elif x.prim == "neg":
            split(x.src[0])
            fixed.append((mul, full(-1.0, n)))
        else:
            varying.append(x)

    split(n.src[0])
    if not fixed or not varying:
        return None
    total = make("sum", functools.reduce(mul, varying), axes=n.attr("axes"))
    for operation, c in fixed:
        total = operation(total, c)
    return total


def _unvaried(x: Node, total: Node) -> Node | None:
    """Returns what has the value of x at any place along a sum, if that is always the same."""
    if (value := splat(x)) is not None:
        return full(value, total)
    if x.prim != "broadcast" or any(x.src[0].shape[a] > 1 for a in total.attr("axes")):
        return None
    return moves.broadcast(x.src[0], total.shape)


def _joined(n: Node) -> Node | None:
    """Parts that are padded to tile an axis and added up -> concat: the gradient of slices."""
    if n.prim != "add" or "pad" not in (n.src[0].prim, n.src[1].prim):
        return None
    parts, stack = [], [n]
    while stack:
        node = stack.pop()
        if node.prim == "add":
            stack.extend(node.src)
        elif node.prim != "pad":
            return None
        else:
            parts.append(node)
    padded = {i for p in parts for i, ends in enumerate(_ends(p)) if any(ends)}
    if len(padded) != 1:
        return None
    (axis,) = padded
    parts.sort(key=lambda p: _ends(p)[axis])
    at = 0
    for part in parts:
        if _ends(part)[axis][0] != at:
            return None
        at += part.src[0].shape[axis]
    return moves.concat(tuple(p.src[0] for p in parts), axis) if at == n.shape[axis] else None


def _ends(pad: Node) -> list[tuple[int, int]]:
    return list(zip(pad.attr("low"), pad.attr("high"), strict=True))


def _one_window(n: Node) -> Node | None:
    """The gradient of a sum over a window that sees everything -> the same number everywhere."""
    if n.prim != "unpool_sum":
        return None
    w: Window = n.attr("window")
    ends = zip(w.out, w.size, w.pad, w.full, strict=True)
    sees_all = all(out == 1 and size - pad >= whole for out, size, pad, whole in ends)
    return moves.broadcast(n.src[0], n.shape) if sees_all else None


def _empty(n: Node) -> Node | None:
    if n.prim in ("sum", "contract") and any(s.type.size == 0 for s in n.src):
        return full(0.0, n)  # the sum of nothing -> 0
    return None


RULES: tuple[Rule, ...] = (
    *(_empty, _views, _constants, _arithmetic, _reductions, _factored, _joined, _one_window),
)
