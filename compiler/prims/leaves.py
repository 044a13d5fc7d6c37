"""Leaves of the graph: inputs, parameters, states, scalars, constants, iota, random."""

from __future__ import annotations

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims.registry import Array, Env, Primitive, define, make
from schemas.philox import uniform
from schemas.program import Dtype


def _named(prim: str) -> Primitive:
    return define(
        Primitive(
            prim,
            type=lambda src, a: TensorType(a["shape"], a["dtype"]),
            evaluate=lambda node, args, env: env.cast(
                env.feeds[prim, node.attr("name")], node.dtype
            ).reshape(node.shape),
        )
    )


# What differs is who owns the memory: `input` is written before each step, `param` is learned (the
# flat arena of a training step is one), `state` is kept from step to step (momentum, running
# means), `scalar` changes from step to step without recompiling (the learning rate).
for _prim in ("input", "param", "state", "scalar"):
    _named(_prim)


def input_(name: str, shape: tuple[int, ...], dtype: Dtype = "f32") -> Node:
    return make("input", name=name, shape=shape, dtype=dtype)


def param(name: str, shape: tuple[int, ...]) -> Node:
    return make("param", name=name, shape=shape, dtype="f32")


def state(name: str, shape: tuple[int, ...], dtype: Dtype = "f32") -> Node:
    return make("state", name=name, shape=shape, dtype=dtype)


def part(whole: Node, start: int, shape: tuple[int, ...]) -> Node:
    """Elements of a param or state, from number `start` on, as a leaf of their own."""
    name = str(whole.attr("name"))
    attrs = {"name": f"{name}@{start}", "whole": (name, whole.type.size), "start": start}
    return make(whole.prim, shape=shape, dtype=whole.dtype, **attrs)


def scalar(name: str, dtype: Dtype = "f32") -> Node:
    return make("scalar", name=name, shape=(), dtype=dtype)


define(
    Primitive(
        "const",
        type=lambda src, a: TensorType((), a["dtype"]),
        evaluate=lambda node, args, env: env.cast(node.attr("value"), node.dtype),
    )
)


def const(value: float | int | bool, dtype: Dtype = "f32") -> Node:
    """A scalar constant; larger ones are broadcasts of it."""
    plain = {"f32": float, "i32": int, "bool": bool}[dtype](value)
    return make("const", value=plain, dtype=dtype)


def _iota(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    axis = node.attr("axis")
    line = np.arange(node.shape[axis], dtype=np.int32)
    shape = [-1 if i == axis else 1 for i in range(len(node.shape))]
    return np.broadcast_to(line.reshape(shape), node.shape)


define(Primitive("iota", type=lambda src, a: TensorType(a["shape"], "i32"), evaluate=_iota))


def iota(shape: tuple[int, ...], axis: int) -> Node:
    """The index along `axis` at every element, as i32."""
    return make("iota", shape=shape, axis=axis)


define(
    Primitive(
        "random",
        type=lambda src, a: TensorType(a["shape"], "f32"),
        evaluate=lambda node, args, env: env.cast(
            uniform(env.seed, node.attr("stream"), env.iteration, node.type.size), "f32"
        ).reshape(node.shape),
    )
)


def random(stream: int, shape: tuple[int, ...]) -> Node:
    """Uniform numbers in [0, 1), new in each iteration, keyed by `stream` (one a use).

    Element e (row-major over `shape`) is the first Philox word of counter (e, 0, iteration,
    stream) under the run's seed, its upper 24 bits times 2**-24: the same on every backend.
    """
    return make("random", stream=stream, shape=shape)
