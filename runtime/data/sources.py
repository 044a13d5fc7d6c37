"""Data sources: batch number in, arrays out; opened from a data layer."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

import numpy as np

from runtime.data.digits import ITEM_SHAPES, load_digits
from runtime.data.npz import find_file, load_npz, npz_item_shapes
from runtime.data.records import Array, Records
from runtime.data.transform import DOMAIN, Transform, transform_of
from runtime.fillers import draw
from schemas.errors import SourceError, SpecError, near
from schemas.params import Feed, Filler
from schemas.philox import philox

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
    if feed.type == "DummyData":
        return DummySource(feed, seed)
    if feed.type == "Data":
        return RecordSource(feed, seed)
    message = f"layer '{feed.layer}': nothing reads data for layers of type {feed.type}"
    hint = "write type: Data with source: digits or an .npz file"
    raise SourceError(message, feed.span, hint)


def probe(feed: Feed) -> tuple[Shape, ...]:
    """Returns the shapes of a data layer's tops: (B, C, H, W) and (B,) for pictures.

    Reads no more than the headers of a file. Raises what `open_source` would.
    """
    if feed.type != "Data":
        return feed.shapes  # written in the net
    if len(feed.tops) not in (1, 2):
        message = f"layer '{feed.layer}' (Data): {len(feed.tops)} tops"
        raise SpecError(message, feed.span, "write top: [data, label], or data alone")
    batch = _batch_size(feed)
    name = _source_name(feed)
    item, label = _item_shapes(feed, name)
    shapes = ((batch, *transform_of(feed, item, mean_file=False).item_shape(item)), (batch, *label))
    return shapes[: len(feed.tops)]


class RecordSource:
    """Reads records in order, from the first again after the last, `batch_size` at a time.

    With `shuffle: true`, each pass has its own order, a function of the seed and its number.
    """

    def __init__(self, feed: Feed, seed: int) -> None:
        shapes = probe(feed)
        self.shapes: dict[str, Shape] = dict(zip(feed.tops, shapes, strict=True))
        self.constant: frozenset[str] = frozenset()
        self.size = shapes[0][0]
        self.seed = seed
        self.stream = zlib.crc32(f"{feed.layer}/{feed.phase}".encode())
        self.records: Records = _load(feed, _source_name(feed))
        self.transform: Transform = transform_of(feed, self.records.data.shape[1:])
        self.shuffle = bool(feed.options.get("shuffle"))
        self.skip = _skip(int(feed.options.get("rand_skip") or 0), seed, self.stream)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index`: items transformed, labels as they are."""
        chosen = self.chosen(index)
        data = self.transform(self.records.data[chosen], self.seed, self.stream, index)
        arrays = [data]
        if self.records.label is not None:
            arrays.append(self.records.label[chosen])
        return dict(zip(self.shapes, arrays, strict=True))

    def chosen(self, index: int) -> Array:
        """Returns the numbers of the records that make up batch `index`."""
        count = len(self.records)
        positions = self.skip + index * self.size + np.arange(self.size, dtype=np.int64)
        if not self.shuffle:
            return positions % count
        passes, places = np.divmod(positions, count)
        chosen = np.empty_like(positions)
        for number in range(int(passes[0]), int(passes[-1]) + 1):
            here = passes == number
            chosen[here] = self._order(number)[places[here]]
        return chosen

    def _shuffled(self, number: int) -> Array:
        """Returns the order of the records in pass `number`."""
        words = philox(self.seed, np.arange(len(self.records)), ~DOMAIN, number, self.stream)[0]
        return np.argsort(words, kind="stable")


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


def _skip(limit: int, seed: int, stream: int) -> int:
    """Returns how many records to leave out at the start: 0 to `limit` - 1 (Caffe's rand_skip)."""
    word = int(philox(seed, 0, ~DOMAIN, stream, 0)[1][0])
    return word % limit if limit > 0 else 0


def _batch_size(feed: Feed) -> int:
    size = feed.options.get("batch_size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        message = f"layer '{feed.layer}' ({feed.type}): batch_size must be 1 or more, not {size}"
        raise SpecError(message, feed.span, "write batch_size: 64")
    return size


def _source_name(feed: Feed) -> str:
    """Returns the name of an embedded source or of an .npz file, or raises SourceError."""
    name = feed.options.get("source")
    known = ", ".join(sorted(ITEM_SHAPES))
    who = f"layer '{feed.layer}' ({feed.type}): "
    if not isinstance(name, str) or not name:
        hint = f"write source: NAME, one of {known}, or the path of an .npz file"
        raise SourceError(f"{who}it has no source", feed.span, hint)
    if name not in ITEM_SHAPES and not name.endswith(".npz"):
        match = near(name, ITEM_SHAPES)
        hint = f"embedded: {known}; anything else is the path of an .npz file"
        hint = f"did you mean '{match}'? {hint}" if match else hint
        raise SourceError(f"{who}'{name}' is not a data source", feed.span, hint)
    return name


def _item_shapes(feed: Feed, name: str) -> tuple[Shape, Shape]:
    if name in ITEM_SHAPES:
        return ITEM_SHAPES[name], ()
    return npz_item_shapes(feed, find_file(feed, name))


def _load(feed: Feed, name: str) -> Records:
    if name not in ITEM_SHAPES:
        return load_npz(feed, find_file(feed, name))
    records = load_digits(name, feed.phase)
    return records if len(feed.tops) > 1 else Records(records.data, None)
