"""Opens data sources, and refuses labels without a class and lengths beyond a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir.graph import Graph
from netdef.arrays import numbers
from runtime.data import Arrays, MemorySource, Source, open_source
from runtime.feeder import Opener
from schemas.errors import SourceError, UsageError
from schemas.params import Feed

Array = np.ndarray[Any, Any]
# Bottoms: scores of each class, labels.
_READERS = {
    *("Accuracy", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "SoftmaxWithLoss"),
}
_INDICES = {"BatchReindex": 1, "Embed": 0}  # which bottom holds numbers of items


@dataclass(frozen=True)
class Reader:
    """A layer that takes a top as labels of so many classes."""

    top: str
    layer: str
    scores: str
    classes: int
    ignored: float | None

    def wrong(self, labels: Array) -> str | None:
        """Returns what is wrong with labels of which some are no class, else None."""
        # Written so that what is no number counts as wrong.
        if ((labels == self.ignored) | ((labels > -1) & (labels < self.classes))).all():
            return None
        return (
            f"labels go from {labels.min():g} to {labels.max():g}, but '{self.scores}' has scores "
            f"of {self.classes} classes, 0 to {self.classes - 1} (layer '{self.layer}')"
        )

    def check(self, feed: Feed, labels: Array) -> None:
        """Raises SourceError where a label of a data layer is no class."""
        if wrong := self.wrong(labels):
            raise SourceError(
                f"layer '{feed.layer}' ({feed.type}): its {wrong}",
                feed.span,
                f"set num_output of the layer that makes '{self.scores}' to the number of classes",
            )


@dataclass(frozen=True)
class LengthReader:
    """A layer that takes a top as lengths of sequences of so many steps."""

    top: str
    layer: str
    steps: int

    def wrong(self, lengths: Array) -> str | None:
        """Returns what is wrong with lengths of which some are more than there are steps."""
        if ((lengths > -1) & (lengths <= self.steps)).all():
            return None
        return (
            f"lengths go from {lengths.min():g} to {lengths.max():g}, but a sequence has "
            f"{self.steps} steps (layer '{self.layer}')"
        )

    def check(self, feed: Feed, lengths: Array) -> None:
        """Raises SourceError where a data layer's sequence is longer than there are steps."""
        if wrong := self.wrong(lengths):
            raise SourceError(f"layer '{feed.layer}' ({feed.type}): its {wrong}", feed.span)


@dataclass(frozen=True)
class CheckedSource:
    """A source whose labels are only known as they are read; each batch is checked."""

    source: Source
    feed: Feed
    readers: tuple[Reader | LengthReader, ...]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.source.shapes

    @property
    def constant(self) -> frozenset[str]:
        return self.source.constant

    def batch(self, index: int) -> dict[str, Array]:
        batch = self.source.batch(index)
        for reader in self.readers:
            reader.check(self.feed, batch[reader.top])
        return batch


def checked(graph: Graph, arrays: Arrays) -> Opener:
    """Returns `open_source` with a check of the labels against the classes of this net.

    All labels are checked at once where they are known before the items are read. A MemoryData
    layer reads `arrays`, which `set_arrays` has checked.
    """

    def opener(feed: Feed, seed: int) -> Source | None:
        if feed.type == "MemoryData":
            return MemorySource(feed, seed, arrays)
        source = open_source(feed, seed)
        readers = tuple(_readers(graph, feed.tops))
        if source is None or not readers or feed.type == "DummyData":
            return source
        labels = getattr(source, "labels", None)
        if labels is None:
            return CheckedSource(source, feed, readers)
        for reader in readers:
            reader.check(feed, labels)
        return source

    return opener


def set_arrays(arrays: Arrays, graph: Graph, data: Any, labels: Any) -> tuple[str, ...]:
    """Sets what the MemoryData layer of a net reads; returns its tops. Raises UsageError."""
    feeds = [feed for feed in graph.feeds if feed.type == "MemoryData"]
    if len(feeds) != 1:
        message = f"net '{graph.name}' has {len(feeds)} MemoryData layers in phase {graph.phase}"
        raise UsageError(message, hint="set_input_arrays sets the arrays of one")
    (feed,) = feeds
    items = numbers("data", data)
    classes = None if labels is None else numbers("labels", labels)
    if classes is not None and len(feed.tops) > 1:
        check_given(graph, feed.tops[1], classes)
    arrays.set(feed, items, classes)
    return feed.tops


def check_given(graph: Graph, blob: str, values: Array) -> None:
    """Raises UsageError for labels or numbers of items from the caller that the net has not."""
    for reader in _readers(graph, (blob,)):
        if wrong := reader.wrong(values):
            raise UsageError(f"'{blob}': {wrong}")
    specs = {layer.span: layer for layer in graph.spec.layers}
    for info in graph.layers:
        which = _INDICES.get(info.type)
        if which is None or info.bottoms[which][0] != blob:
            continue
        rows = specs[info.span].params.get("input_dim")
        count = info.bottoms[0][1][0] if rows is None else rows.data
        if not ((values > -1) & (values < count)).all():
            raise UsageError(
                f"'{blob}' goes from {values.min():g} to {values.max():g}, but layer "
                f"'{info.name}' ({info.type}) has items 0 to {count - 1}"
            )


def _readers(graph: Graph, blobs: Sequence[str]) -> list[Reader | LengthReader]:
    """Returns the layers of a net that take one of these blobs as labels or lengths."""
    specs = {layer.span: layer for layer in graph.spec.layers}
    found: list[Reader | LengthReader] = []
    for info in graph.layers:
        if info.type == "SequenceMask" and info.bottoms[1][0] in blobs:
            top, steps = info.bottoms[1][0], info.bottoms[0][1][0]
            found.append(LengthReader(top, info.name, steps))
        spec = specs.get(info.span)
        if info.type not in _READERS or spec is None or info.bottoms[1][0] not in blobs:
            continue
        fields = {name: value.data for name, value in spec.params.items()}
        scores, shape = info.bottoms[0]
        classes, ignored = shape[fields.get("axis", 1)], fields.get("ignore_label")
        found.append(Reader(info.bottoms[1][0], info.name, scores, classes, ignored))
    return found
