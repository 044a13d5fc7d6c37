"""Filter layers: how many items they choose is known only when a net runs."""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.graph import Graph, LayerInfo
from schemas.net import NetSpec, Value


def next_filter(graph: Graph) -> LayerInfo | None:
    """Returns the first Filter whose `count` is not known yet, None if there is none.

    In a net with Python layers all keep the items they are built with: to find a count, the layers
    would be called twice, and to use it, made anew.
    """
    if graph.hosts:
        return None
    known = {layer.span for layer in graph.spec.layers if "count" in layer.params}
    filters = (one for one in graph.layers if one.type == "Filter" and one.span not in known)
    return next(filters, None)


def with_count(spec: NetSpec, layer: LayerInfo, count: int) -> NetSpec:
    """Returns the net with a Filter of `count` items."""
    value = Value(count, layer.span, layer.span)
    layers = tuple(
        replace(one, params={**one.params, "count": value}) if one.span == layer.span else one
        for one in spec.layers
    )
    return replace(spec, layers=layers)
