"""Items that the caller gives to a MemoryData layer, treated as the layer says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from runtime.data.records import Array
from runtime.data.transform import stream_of, transform_of
from schemas.params import Feed


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
