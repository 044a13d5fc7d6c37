"""Opens data sources, and refuses labels for which the net has no class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.graph import Graph
from runtime.data import RecordSource, Source, open_source
from runtime.feeder import Opener
from schemas.errors import SourceError
from schemas.params import Feed

_READERS = {"SoftmaxWithLoss", "Accuracy"}  # bottoms: scores of each class, labels


def checked(graphs: Sequence[Graph]) -> Opener:
    """Returns `open_source` with a check of the labels against the classes of these nets."""

    def opener(feed: Feed, seed: int) -> Source | None:
        source = open_source(feed, seed)
        if isinstance(source, RecordSource) and source.records.label is not None:
            for graph in graphs:
                if any((f.layer, f.phase) == (feed.layer, feed.phase) for f in graph.feeds):
                    _check(graph, feed, source.records.label)
        return source

    return opener


def _check(graph: Graph, feed: Feed, labels: np.ndarray[Any, Any]) -> None:
    specs = {layer.span: layer for layer in graph.spec.layers}
    for info in graph.layers:
        spec = specs.get(info.span)
        if info.type not in _READERS or spec is None or info.bottoms[1][0] != feed.tops[1]:
            continue
        fields = {name: value.data for name, value in spec.params.items()}
        scores, shape = info.bottoms[0]
        classes = shape[fields.get("axis", 1)]
        wrong = labels[
            (labels != fields.get("ignore_label")) & ((labels < 0) | (labels >= classes))
        ]
        if wrong.size:
            raise SourceError(
                f"layer '{feed.layer}' ({feed.type}): its labels go from {labels.min():g} to "
                f"{labels.max():g}, but '{scores}' has scores of {classes} classes, 0 to "
                f"{classes - 1} (layer '{info.name}')",
                feed.span,
                f"set num_output of the layer that makes '{scores}' to the number of classes",
            )
