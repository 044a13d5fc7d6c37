"""MemoryData: items that the caller gives, for one run or as a data set to read in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.data.order import Order
from runtime.data.places import wrong
from runtime.data.records import Array, Records
from runtime.data.transform import stream_of, transform_of
from schemas.errors import SourceError, UsageError
from schemas.params import Feed

Shape = tuple[int, ...]
HINT = (
    "give arrays: net.set_input_arrays(data, labels), of a solver solver.net and "
    "solver.test_nets[i], or net.forward(data=..., label=...); the command line has none to give: "
    "store them in an .npz file and write type: Data"
)


def given_items(
    feeds: Sequence[Feed], given: Mapping[str, Array], seed: int, index: int
) -> dict[str, Array]:
    """Returns what is given, by top, with the items of MemoryData layers transformed.

    This is what Caffe's AddMatVector does. `index` counts the batches: what is random in a
    transform (crops in TRAIN, mirroring) depends on it and on `seed`. Raises ShapeError.
    """
    values = dict(given)
    for feed in feeds:
        items = values.get(feed.tops[0]) if feed.type == "MemoryData" else None
        if items is not None and np.ndim(items) > 1 and len(items):
            transform = transform_of(feed, tuple(items.shape[1:]))
            values[feed.tops[0]] = transform(items, seed, stream_of(feed), index)
    return values


class Arrays:
    """The arrays of a net's MemoryData layer: None until the caller has set some."""

    def __init__(self) -> None:
        self.records: Records | None = None

    def set(self, feed: Feed, data: Array, labels: Array | None) -> None:
        """Makes all sources of the layer read these arrays. Raises UsageError, ShapeError."""
        batch, *item = feed.shapes[0]
        found = tuple(data.shape[1:])
        if len(found) == len(item) and len(data):
            found = transform_of(feed, found).item_shape(found)
        if found != tuple(item) or not len(data):
            message = f"data {data.shape} for layer '{feed.layer}', which gives {feed.shapes[0]}"
            raise UsageError(message, hint=f"data is (n, {', '.join(map(str, item))})")
        count = len(data)
        if count % batch:
            message = f"{count} items are no multiple of batch_size {batch} of layer '{feed.layer}'"
            raise UsageError(message, hint=f"give {count - count % batch or batch} items")
        if (labels is not None) != (len(feed.tops) > 1):
            message = f"layer '{feed.layer}' has {len(feed.tops)} tops"
            hint = "give data and labels" if labels is None else "give data alone"
            raise UsageError(message, hint=hint)
        if labels is not None:
            if labels.shape not in ((count,), (count, 1, 1, 1)):
                message = f"labels {labels.shape} for {count} items of layer '{feed.layer}'"
                raise UsageError(message, hint=f"labels are ({count},)")
            labels = labels.reshape(count)
        self.records = Records(data, labels)


@dataclass(frozen=True)
class MemorySource:
    """Batches of the arrays that are set, from the first again after the last."""

    feed: Feed
    seed: int
    arrays: Arrays
    constant: frozenset[str] = frozenset()

    @property
    def shapes(self) -> dict[str, Shape]:
        return dict(zip(self.feed.tops, self.feed.shapes, strict=True))

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index` of the arrays of now. Raises SourceError if there are none."""
        feed, records = self.feed, self.arrays.records
        if records is None:
            raise ungiven(feed)
        items, labels = records.take(Order(len(records), feed.shapes[0][0]).chosen(index))
        transform = transform_of(feed, records.item())
        arrays = [transform(items, self.seed, stream_of(feed), index)]
        if labels is not None:
            arrays.append(np.ascontiguousarray(labels, np.float32))
        return dict(zip(feed.tops, arrays, strict=True))


def ungiven(feed: Feed) -> SourceError:
    """Returns the error about a MemoryData layer for which no arrays were set."""
    return wrong(feed, "nobody gives it data", HINT)
