"""Folds layers that scale and shift channels into the weights of the layer before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.frontend.build import build
from compiler.frontend.deploy import readers, wired
from compiler.ir.evaluate import evaluate
from compiler.ir.graph import Graph
from compiler.layers import layer_type
from compiler.layers.conv import Filters
from compiler.layers.deconv import Deconvolution
from compiler.layers.dense import InnerProduct
from compiler.layers.fields import read_fields
from compiler.layers.forks import Deconvolution3D, Filters3D
from compiler.passes.fold import affine
from compiler.prims.registry import Env
from schemas.errors import Diagnostics
from schemas.net import LayerSpec, Name, NetSpec, value_of

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]
BLOB = "x"  # what the layers of a chain are called where they are built alone


@dataclass
class Absorbed:
    """The layers that are left, the weights by key, and the names of the layers that are gone."""

    layers: list[LayerSpec]
    weights: dict[str, Array]
    gone: list[str]


def absorb(layers: Sequence[LayerSpec], graph: Graph, weights: Weights) -> Absorbed:
    """Returns the layers without those that weights of the layer before them can stand for.

    `graph` is built of these layers; `weights` are in Caffe's shapes. A chain of layers behind a
    Convolution, Deconvolution or InnerProduct is folded if each reads nothing but what the one
    before it makes, nobody else reads that, and it multiplies and adds numbers that differ by
    channel alone. Weights that layers share stay as they are.
    """
    read = readers(wired(layers))
    uses = Counter(key for info in graph.layers for key in info.params)
    infos = {info.name: info for info in graph.layers}
    made = Absorbed([], dict(weights), [])
    new: dict[int, LayerSpec | None] = {}
    for i, spec in enumerate(layers):
        layer = _layer(spec)
        if not isinstance(layer, (Filters, Filters3D, InnerProduct)) or not _alone(spec):
            continue
        info = infos[spec.name.text]
        if any(uses[key] > 1 or key not in weights for key in info.params):
            continue
        shape = info.tops[0][1]
        chain = _chain(layers, i, read, shape, getattr(layer, "axis", 1) % len(shape), weights)
        if not chain.members:
            continue
        new[i] = _fold(spec, layer, info.params, chain, made.weights)
        new.update(dict.fromkeys(chain.members))
        made.gone += [layers[j].name.text for j in chain.members]
    every = [new.get(i, spec) for i, spec in enumerate(layers)]
    made.layers = [spec for spec in every if spec is not None]
    return made


def _alone(spec: LayerSpec) -> bool:
    return len(spec.bottoms) == len(spec.tops) == 1


def _layer(spec: LayerSpec) -> Any:
    """Returns a layer as its dataclass; it has been read before, without a mistake."""
    cls = layer_type(spec.type.text)
    assert cls is not None, spec.type
    return read_fields(cls, spec, Diagnostics())


@dataclass
class _Chain:
    """Layers one after the other, by number: their top is factor * x + constant by channel."""

    members: list[int]
    top: Name
    factor: Array | None = None
    constant: Array | None = None


def _chain(
    layers: Sequence[LayerSpec],
    start: int,
    read: Mapping[tuple[int, int], list[int]],
    shape: tuple[int, ...],
    axis: int,
    weights: Weights,
) -> _Chain:
    """Returns the longest chain behind a layer that is one product and one sum a channel."""
    chain = _Chain([], layers[start].tops[0])
    while True:
        last = chain.members[-1] if chain.members else start
        following = read.get((last, 0), [])
        if len(following) != 1 or not _alone(layers[following[0]]):
            return chain
        members = [*chain.members, *following]
        found = _product_and_sum([layers[j] for j in members], shape, axis, weights)
        if found is None:
            return chain
        chain = _Chain(members, layers[members[-1]].tops[0], *found)


def _product_and_sum(
    chain: Sequence[LayerSpec], shape: tuple[int, ...], axis: int, weights: Weights
) -> tuple[Array | None, Array | None] | None:
    """Returns factor and constant of a chain of layers, None where it is more than that."""
    blobs = [Name(f"{BLOB}{i}") for i in range(len(chain) + 1)]
    source = LayerSpec(blobs[0], Name("Input"), (), (blobs[0],), {"shape": value_of(shape)})
    renamed = [
        replace(spec, bottoms=(blobs[i],), tops=(blobs[i + 1],)) for i, spec in enumerate(chain)
    ]
    graph = build(NetSpec("", (source, *renamed)), "TEST")
    x, y = graph.blobs[blobs[0].text], graph.blobs[blobs[-1].text]
    # A state that layers share goes by the name of one of them, which may not be here.
    running = any(info.running for info in graph.layers)
    if (running and any(p.name for spec in chain for p in spec.param)) or graph.updates:
        return None
    form = affine(graph.nodes()).get(y)
    if form is None or form.x is not x or not {*graph.params, *graph.states} <= weights.keys():
        return None
    along = tuple(n if i == axis else 1 for i, n in enumerate(shape))
    parts = {name: n for name in ("factor", "constant") if (n := getattr(form, name)) is not None}
    if any(np.broadcast_shapes(part.shape, along) != along for part in parts.values()):
        return None
    feeds = {("param", k): np.asarray(weights[k], np.float64) for k in graph.params}
    feeds |= {("state", k): np.asarray(weights[k], np.float64) for k in graph.states}
    values = evaluate(list(parts.values()), Env(feeds))
    found = {k: np.broadcast_to(v, along).ravel() for k, v in zip(parts, values, strict=True)}
    return found.get("factor"), found.get("constant")


def _fold(
    spec: LayerSpec, layer: Any, keys: Sequence[str], chain: _Chain, weights: dict[str, Array]
) -> LayerSpec:
    """Returns the layer with the chain's top, and puts its new weight and bias into `weights`.

    factor * (W x + b) + constant = (factor * W) x + (factor * b + constant)
    """
    bias = np.asarray(weights[keys[1]], np.float64) if layer.bias_term else None
    if chain.factor is not None:
        weight = np.asarray(weights[keys[0]], np.float64)
        weights[keys[0]] = _scaled(layer, weight, chain.factor).astype(np.float32)
        bias = None if bias is None else bias * chain.factor
    if chain.constant is not None:
        bias = chain.constant if bias is None else bias + chain.constant
    params = dict(spec.params)
    if bias is not None:
        key = keys[1] if layer.bias_term else f"{spec.name}/bias"
        weights[key] = bias.astype(np.float32)
        params.pop("bias_term", None)
    return replace(spec, tops=(chain.top,), params=params)


def _scaled(layer: Any, weight: Array, factor: Array) -> Array:
    """Returns a weight times one number for each output channel."""
    if isinstance(layer, (Deconvolution, Deconvolution3D)):  # (channels, num_output / group, ...)
        groups = getattr(layer, "group", 1)
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        each = factor.reshape(groups, 1, weight.shape[1], *(1,) * (weight.ndim - 2))
        return (grouped * each).reshape(weight.shape)
    if isinstance(layer, InnerProduct) and layer.transpose:
        return weight * factor
    return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
