"""Reads the mean image that a data layer's mean_file names: .binaryproto or .npy."""

from __future__ import annotations

import zipfile

import numpy as np

from runtime.data.places import find
from runtime.data.records import Array
from runtime.tables import load_array
from schemas.errors import NetError, SourceError
from schemas.params import Feed

Shape = tuple[int, ...]


def read_mean(feed: Feed, item: Shape) -> Array:
    """Returns the mean as (C, H, W), or as (C, 1, 1) where the file has one number a channel.

    A path is relative to the net's folder, else to the working one. Raises SourceError.
    """
    name = str(feed.options["mean_file"])
    where = f"layer '{feed.layer}' ({feed.type}): "
    path = find(feed, name)
    try:
        found = load_array(path)
    except NetError as error:
        raise SourceError(where + error.message, feed.span, error.hint) from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise SourceError(f"{where}cannot read '{path}': {error}", feed.span) from None
    mean = found.reshape(found.shape[1:]) if found.ndim == 4 and len(found) == 1 else found
    if mean.dtype.kind not in "fiu" or not np.isfinite(mean).all():
        raise SourceError(f"{where}'{path}' holds values that are no finite numbers", feed.span)
    if mean.size == item[0]:
        mean = mean.reshape(-1, *(1 for _ in item[1:]))
    elif mean.shape != item and (mean.ndim != 3 or len(item) != 3 or len(mean) != item[0]):
        message = f"{where}the mean in '{path}' is {mean.shape}, but an item is {item}"
        raise SourceError(message, feed.span, "it has to be made of the same images")
    return np.ascontiguousarray(mean, np.float32)
