"""Scalar maps: one result element from the same element of each source."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims import leaves, moves
from compiler.prims.registry import Array, Env, Primitive, define, make
from schemas.program import Dtype

Operand = Node | float | int
Binary = Callable[[Operand, Operand], Node]
Unary = Callable[[Node], Node]


@dataclass(frozen=True)
class ScalarOp:
    """What the backends need to know of one map: its arity, and its price in plain operations."""

    name: str
    arity: int
    cost: int = 1


SCALARS: dict[str, ScalarOp] = {}


def _map(
    name: str,
    arity: int,
    numpy: Callable[..., Any],
    vjp: Callable[[Node, Node], tuple[Node | None, ...]] | None = None,
    result: Dtype | None = None,
    cost: int = 1,
) -> None:
    def rule(src: tuple[Node, ...], attrs: Any) -> TensorType:
        assert len(src) == arity, f"{name} takes {arity} sources, not {len(src)}"
        assert len({s.shape for s in src}) == 1, f"{name}: {[s.shape for s in src]} differ"
        assert name == "select" or len({s.dtype for s in src}) == 1, f"{name}: types differ"
        return TensorType(src[0].shape, attrs.get("dtype") or result or src[-1].dtype)

    def evaluate(node: Node, args: tuple[Array, ...], env: Env) -> Array:
        with np.errstate(all="ignore"):
            return env.cast(numpy(*args, **dict(node.attrs)), node.dtype)

    SCALARS[name] = ScalarOp(name, arity, cost)
    define(Primitive(name, rule, evaluate, vjp or (lambda node, g: (None,) * arity)))


def lift(*operands: Operand) -> tuple[Node, ...]:
    """Returns the operands with one shape: numbers and unit axes are broadcast."""
    dtype: Dtype = next(
        (o.dtype for o in operands if isinstance(o, Node) and o.dtype != "bool"), "f32"
    )
    nodes = [o if isinstance(o, Node) else leaves.const(o, dtype) for o in operands]
    shape = np.broadcast_shapes(*(n.shape for n in nodes))
    return tuple(moves.broadcast(n, shape) for n in nodes)


def _binary(prim: str) -> Binary:
    return lambda a, b: make(prim, *lift(a, b))


def _unary(prim: str) -> Unary:
    return lambda a: make(prim, a)


add, sub, mul, div = _binary("add"), _binary("sub"), _binary("mul"), _binary("div")
maximum, minimum, pow_ = _binary("maximum"), _binary("minimum"), _binary("pow")
less, lesseq, equal, and_ = _binary("less"), _binary("lesseq"), _binary("equal"), _binary("and")
neg, exp, log, sqrt = _unary("neg"), _unary("exp"), _unary("log"), _unary("sqrt")
tanh, sigmoid, abs_, sign = _unary("tanh"), _unary("sigmoid"), _unary("abs"), _unary("sign")
floor, stop, erf = _unary("floor"), _unary("stop"), _unary("erf")


def relu(x: Node, slope: float = 0.0) -> Node:
    assert slope >= 0, "a negative slope loses the sign: compose it from select"
    return make("relu", x, slope=float(slope))


def select(condition: Node, yes: Operand, no: Operand) -> Node:
    return make("select", *lift(condition, yes, no))


def cast(x: Node, dtype: Dtype) -> Node:
    return x if x.dtype == dtype else make("cast", x, dtype=dtype)


def _sigmoid(x: Array) -> Array:
    return 0.5 * np.tanh(0.5 * x) + 0.5


def _erf(x: Array) -> Array:
    result: Array = np.vectorize(math.erf, otypes=[x.dtype])(x)  # NumPy has none of its own
    return result


_map("add", 2, np.add, lambda n, g: (g, g))
_map("sub", 2, np.subtract, lambda n, g: (g, neg(g)))
_map("mul", 2, np.multiply, lambda n, g: (mul(g, n.src[1]), mul(g, n.src[0])))
_map(
    "div",
    2,
    np.divide,
    lambda n, g: (div(g, n.src[1]), neg(div(mul(g, n), n.src[1]))),
    cost=4,
)
# Ties of maximum and minimum: the gradient goes to the second source, as in Caffe's Eltwise MAX.
_map(
    "maximum",
    2,
    np.maximum,
    lambda n, g: (
        select(less(n.src[1], n.src[0]), g, 0.0),
        select(less(n.src[1], n.src[0]), 0.0, g),
    ),
)
_map(
    "minimum",
    2,
    np.minimum,
    lambda n, g: (
        select(less(n.src[0], n.src[1]), g, 0.0),
        select(less(n.src[0], n.src[1]), 0.0, g),
    ),
)
_map(
    "pow",
    2,
    np.power,
    lambda n, g: (
        mul(g, mul(n.src[1], pow_(n.src[0], sub(n.src[1], 1.0)))),
        mul(g, mul(n, log(n.src[0]))),
    ),
    cost=40,
)
_map("neg", 1, np.negative, lambda n, g: (neg(g),))
_map("exp", 1, np.exp, lambda n, g: (mul(g, n),), cost=16)
_map("log", 1, np.log, lambda n, g: (div(g, n.src[0]),), cost=16)
_map("sqrt", 1, np.sqrt, lambda n, g: (div(mul(g, 0.5), n),), cost=4)
_map("tanh", 1, np.tanh, lambda n, g: (mul(g, sub(1.0, mul(n, n))),), cost=20)
_map("sigmoid", 1, _sigmoid, lambda n, g: (mul(g, mul(n, sub(1.0, n))),), cost=20)
# The slope of erf is the bell curve 2 / sqrt(pi) * exp(-x**2).
_map(
    "erf",
    1,
    _erf,
    lambda n, g: (mul(g, mul(exp(neg(mul(n.src[0], n.src[0]))), 2 / math.sqrt(math.pi))),),
    cost=20,
)
_map("abs", 1, np.abs, lambda n, g: (mul(g, sign(n.src[0])),))
_map("sign", 1, np.sign, cost=2)
_map("floor", 1, np.floor)
# relu(x; slope) = x > 0 ? x : slope * x with slope >= 0; its sign is x's, so the result suffices
# for the gradient and x need not be kept.
_map(
    "relu",
    1,
    lambda x, slope: np.where(x > 0, x, slope * x),
    lambda n, g: (select(less(0.0, n), g, mul(g, n.attr("slope")) if n.attr("slope") else 0.0),),
)
_map("less", 2, np.less, result="bool")
_map("lesseq", 2, np.less_equal, result="bool")
_map("equal", 2, np.equal, result="bool")
_map("and", 2, np.logical_and, result="bool")
_map(
    "select",
    3,
    np.where,
    lambda n, g: (None, select(n.src[0], g, 0.0), select(n.src[0], 0.0, g)),
)
# Floats are cut towards zero, as in Caffe's static_cast<int>(label).
_map(
    "cast",
    1,
    lambda x, dtype: np.trunc(x) if dtype == "i32" else x,
    lambda n, g: (g if n.src[0].dtype == n.dtype == "f32" else None,),
)
_map("stop", 1, lambda x: x)  # the identity, through which no gradient flows
