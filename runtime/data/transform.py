"""Caffe's transform of data items: subtract a mean, scale, mirror, crop."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.data.mean import read_mean
from runtime.data.records import Array
from schemas.errors import ShapeError, SpecError
from schemas.params import Feed
from schemas.philox import philox

Shape = tuple[int, ...]
DOMAIN = 0x64617461  # "data": keeps these random words apart from those of a net's layers


@dataclass(frozen=True, slots=True)
class Transform:
    """(x - mean) * scale on a batch; `mirror` and `crop` need items of C, H, W.

    Caffe's data_transformer.cpp: mirroring is random in TEST as well; the crop lies at random in
    TRAIN and at floor((H - crop) / 2) in TEST. The random words are a function of seed, stream,
    batch index and place in the batch, never of what was drawn before.
    """

    scale: float = 1.0
    mean: Array | None = None  # (C, H, W), (C, 1, 1), or a single number as (1,)
    mirror: bool = False
    crop: int = 0
    training: bool = True

    def __call__(self, items: Sequence[Array] | Array, seed: int, stream: int, index: int) -> Array:
        """Returns the batch (B, ...) float32, C-contiguous, for items of any real dtype.

        Items may be of several sizes where `crop` makes them alike.
        """
        if isinstance(items, np.ndarray) and not (self.crop or self.mirror):
            return self._valued(self.mean_of(items.shape[1:]), np.array(items, np.float32))
        batch = np.empty((len(items), *self.item_shape(items[0].shape)), np.float32)
        flip, down, right, _ = philox(seed, np.arange(len(items)), DOMAIN, index, stream)
        for i, item in enumerate(items):
            place = self._place(item.shape, int(down[i]), int(right[i]))
            mean = self.mean_of(item.shape)
            if mean is not None and mean.shape == item.shape:  # each pixel has its own
                mean = mean[place]
            part = self._valued(mean, np.array(item[place], np.float32))
            batch[i] = part[:, :, ::-1] if self.mirror and flip[i] & 1 else part
        return batch

    def _valued(self, mean: Array | None, values: Array) -> Array:
        """Returns (x - mean) * scale, in place."""
        if mean is not None:
            values -= mean
        if self.scale != 1.0:
            values *= np.float32(self.scale)
        return values

    def mean_of(self, item: Shape) -> Array | None:
        """Returns the mean for items of a shape: the middle of an image where they are smaller."""
        mean = self.mean
        if mean is None or mean.ndim != 3 or mean.shape[1:] == (1, 1):
            return mean
        _, height, width = mean.shape
        top, left = (height - item[1]) // 2, (width - item[2]) // 2
        if top < 0 or left < 0:
            message = f"items of {item[1]} x {item[2]} pixels, but a mean of {height} x {width}"
            raise ShapeError(message, hint="the mean has to be made of the same images")
        return mean[:, top : top + item[1], left : left + item[2]]

    def _place(self, shape: Shape, down: int, right: int) -> tuple[slice, ...]:
        """Returns the part of an item that is kept, given two random words."""
        if not self.crop:
            return (slice(None),)
        rest = [side - self.crop for side in shape[1:]]
        if self.training:
            # The remainder favours low offsets by less than one in 2**24 for any real picture.
            top, left = (word * (r + 1) >> 32 for word, r in zip((down, right), rest, strict=True))
        else:
            top, left = (r // 2 for r in rest)
        return (slice(None), slice(top, top + self.crop), slice(left, left + self.crop))

    def item_shape(self, shape: Shape) -> Shape:
        """Returns the shape of an item after the transform."""
        return (shape[0], self.crop, self.crop) if self.crop else shape


def stream_of(feed: Feed) -> int:
    """Returns the stream of a data layer's random numbers: its own in each phase."""
    return zlib.crc32(f"{feed.layer}/{feed.phase}".encode())


def transform_of(feed: Feed, item: Shape, mean_file: bool = True, cut: bool = True) -> Transform:
    """Returns the transform that a data layer asks for, checked against its item's shape.

    `mean_file` False: only shapes are asked for, and the file need not be there. `cut` False:
    crop_size means something else for this layer.
    """
    options = feed.options
    crop = int(options.get("crop_size") or 0) if cut else 0
    mirror = bool(options.get("mirror"))
    where = f"layer '{feed.layer}' ({feed.type}): "
    if (crop or mirror) and len(item) != 3:
        what = "crop_size" if crop else "mirror"
        raise ShapeError(f"{where}'{what}' needs items of C, H, W; these are {item}", feed.span)
    if crop < 0 or (crop and crop > min(item[1:])):
        message = f"{where}crop_size {crop} does not fit into {item[1]} x {item[2]} pixels"
        raise ShapeError(message, feed.span)
    given = options.get("mean_value") or ()
    values = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    if len(values) not in (0, 1, item[0]):
        message = f"{where}{len(values)} values in mean_value for {item[0]} channels"
        raise ShapeError(message, feed.span, "write one value, or one for each channel")
    mean = None
    if values:
        mean = np.asarray(values, np.float32)
        if len(values) > 1:
            mean = mean.reshape(-1, *(1 for _ in item[1:]))
    if options.get("mean_file"):
        if values:
            message = f"{where}both 'mean_file' and 'mean_value'"
            raise SpecError(message, feed.span, "leave one of them out")
        mean = read_mean(feed, item) if mean_file else None
    scale = options.get("scale")
    scale = 1.0 if scale is None else float(scale)
    transform = Transform(scale, mean, mirror, crop, feed.phase == "TRAIN")
    try:
        transform.mean_of(item)
    except ShapeError as error:
        raise ShapeError(where + error.message, feed.span, error.hint) from None
    return transform
