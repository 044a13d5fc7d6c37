"""Data sources: batch number in, arrays out; opened from a data layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from runtime.data.generated import MAKERS, GeneratedSource
from runtime.data.hdf5_data import HDF5Source, hdf5_shapes
from runtime.data.places import wrong
from runtime.data.record_source import RecordSource, record_shapes
from runtime.data.records import Array
from runtime.data.text import TextSource
from runtime.data.windows import WindowSource, window_shapes
from runtime.fillers import draw
from schemas.params import Feed, Filler

Shape = tuple[int, ...]
FED_BY_API = ("Input", "MemoryData")


class Source(Protocol):
    """Batches as a pure function of their number: where a source stands is one integer."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Returns the shape of each top."""
        ...

    @property
    def constant(self) -> frozenset[str]:
        """Returns the tops that are the same in every batch."""
        ...

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index` >= 0: a float32, C-contiguous array for each top."""
        ...


def open_source(feed: Feed, seed: int) -> Source | None:
    """Returns the source of a data layer, or None for a layer that the API fills.

    Everything random in it depends on `seed`, the layer's name, its phase and the batch number.
    Raises SourceError for a source that is missing or wrong.
    """
    if feed.type in FED_BY_API:
        return None
    if feed.type not in _KINDS:
        raise wrong(feed, "nothing reads data for layers of this type")
    return _KINDS[feed.type].open(feed, seed)


def probe(feed: Feed) -> tuple[Shape, ...]:
    """Returns the shapes of a data layer's tops: (B, C, H, W) and (B,) for pictures.

    Reads no more than headers, or one item. Raises what `open_source` would.
    """
    return _KINDS[feed.type].probe(feed) if feed.type in _KINDS else feed.shapes


class DummySource:
    """Made-up data (Caffe's DummyData): constant tops are made once, random ones for each batch."""

    def __init__(self, feed: Feed, seed: int) -> None:
        given = feed.options.get("data_filler") or [{}] * len(feed.tops)
        fillers = [one if isinstance(one, Filler) else Filler(**one) for one in given]
        self.feed = feed
        self.seed = seed
        self.shapes: dict[str, Shape] = dict(zip(feed.tops, feed.shapes, strict=True))
        self.fillers: dict[str, Filler] = dict(zip(feed.tops, fillers, strict=True))
        fixed = {top for top, filler in self.fillers.items() if filler.type == "constant"}
        self.constant: frozenset[str] = frozenset(fixed)
        self._fixed = {top: self._draw(top, 0) for top in feed.tops if top in fixed}

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index`; the constant arrays are the same objects each time."""
        return {
            top: self._fixed[top] if top in self._fixed else self._draw(top, index)
            for top in self.shapes
        }

    def _draw(self, top: str, index: int) -> Array:
        key = f"{self.feed.layer}/{self.feed.phase}/{top}/{index}"
        return draw(self.fillers[top], self.shapes[top], self.seed, key, self.feed.span)


class _Kind(NamedTuple):
    """How the data of a layer type is looked at and opened."""

    probe: Callable[[Feed], tuple[Shape, ...]]
    open: Callable[[Feed, int], Source]


_KINDS: dict[str, _Kind] = {
    "Data": _Kind(record_shapes, RecordSource),
    "ImageData": _Kind(record_shapes, RecordSource),
    "WindowData": _Kind(window_shapes, WindowSource),
    "HDF5Data": _Kind(hdf5_shapes, HDF5Source),
    "DummyData": _Kind(lambda feed: feed.shapes, DummySource),  # written in the net
    "TextData": _Kind(lambda feed: feed.shapes, TextSource),
    **{name: _Kind(lambda feed: feed.shapes, GeneratedSource) for name in MAKERS},
}
