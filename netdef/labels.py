"""Opens data sources, and refuses labels for which the net has no class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.graph import Graph
from runtime.data import Source, open_source
from runtime.feeder import Opener
from schemas.errors import SourceError
from schemas.params import Feed

Array = np.ndarray[Any, Any]
MEMORY_HINT = (
    "give arrays: net.forward(data=..., label=...); to train, store them in an .npz file and "
    "write type: Data"
)
_READERS = {"SoftmaxWithLoss", "Accuracy"}  # bottoms: scores of each class, labels


@dataclass(frozen=True)
class Reader:
    """A layer that takes a top as labels of so many classes."""

    feed: Feed
    top: str
    layer: str
    scores: str
    classes: int
    ignored: float | None

    def check(self, labels: Array) -> None:
        """Raises SourceError where a label is no class."""
        wrong = (labels != self.ignored) & ((labels < 0) | (labels >= self.classes))
        if wrong.any():
            raise SourceError(
                f"layer '{self.feed.layer}' ({self.feed.type}): its labels go from "
                f"{labels.min():g} to {labels.max():g}, but '{self.scores}' has scores of "
                f"{self.classes} classes, 0 to {self.classes - 1} (layer '{self.layer}')",
                self.feed.span,
                f"set num_output of the layer that makes '{self.scores}' to the number of classes",
            )


@dataclass(frozen=True)
class CheckedSource:
    """A source whose labels are only known as they are read; each batch is checked."""

    source: Source
    readers: tuple[Reader, ...]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.source.shapes

    @property
    def constant(self) -> frozenset[str]:
        return self.source.constant

    def batch(self, index: int) -> dict[str, Array]:
        batch = self.source.batch(index)
        for reader in self.readers:
            reader.check(batch[reader.top])
        return batch


def checked(graphs: Sequence[Graph]) -> Opener:
    """Returns `open_source` with a check of the labels against the classes of these nets.

    All labels are checked at once where they are known before the items are read.
    """

    def opener(feed: Feed, seed: int) -> Source | None:
        if feed.type == "MemoryData":
            message = f"layer '{feed.layer}' (MemoryData): nobody gives it data"
            raise SourceError(message, feed.span, MEMORY_HINT)
        source = open_source(feed, seed)
        readers = tuple(reader for graph in graphs for reader in _readers(graph, feed))
        if source is None or not readers or feed.type == "DummyData":
            return source
        labels = getattr(source, "labels", None)
        if labels is None:
            return CheckedSource(source, readers)
        for reader in readers:
            reader.check(labels)
        return source

    return opener


def _readers(graph: Graph, feed: Feed) -> list[Reader]:
    """Returns the layers of a net that take a top of this data layer as labels."""
    if not any((one.layer, one.phase) == (feed.layer, feed.phase) for one in graph.feeds):
        return []
    specs = {layer.span: layer for layer in graph.spec.layers}
    found = []
    for info in graph.layers:
        spec = specs.get(info.span)
        if info.type not in _READERS or spec is None or info.bottoms[1][0] not in feed.tops:
            continue
        fields = {name: value.data for name, value in spec.params.items()}
        scores, shape = info.bottoms[0]
        classes, ignored = shape[fields.get("axis", 1)], fields.get("ignore_label")
        found.append(Reader(feed, info.bottoms[1][0], info.name, scores, classes, ignored))
    return found
