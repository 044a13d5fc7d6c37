"""Caffe's transform of data items: subtract a mean, scale, mirror, crop."""

from __future__ import annotations

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

    def __call__(self, items: Array, seed: int, stream: int, index: int) -> Array:
        """Returns the batch (B, ...) float32, C-contiguous, for items of any real dtype."""
        image = self.mean is not None and self.mean.ndim == 3 and self.mean.shape[1:] != (1, 1)
        if image:  # each pixel has its own mean, whatever is cropped and mirrored afterwards
            items = items.astype(np.float32) - self._mean_of(items.shape[1:])
        if self.mirror or self.crop:
            items = self._moved(items, seed, stream, index)
        batch = items.astype(np.float32)  # always a copy: the records stay as they are
        if self.mean is not None and not image:
            batch -= self.mean
        if self.scale != 1.0:
            batch *= np.float32(self.scale)
        return np.ascontiguousarray(batch)

    def _mean_of(self, item: Shape) -> Array:
        """Returns the mean image for items of a shape: its middle where they are smaller."""
        assert self.mean is not None
        _, height, width = self.mean.shape
        top, left = (height - item[1]) // 2, (width - item[2]) // 2
        if top < 0 or left < 0:
            message = f"items of {item[1]} x {item[2]} pixels, but a mean of {height} x {width}"
            raise ShapeError(message, hint="the mean has to be made of the same images")
        return self.mean[:, top : top + item[1], left : left + item[2]]

    def _moved(self, items: Array, seed: int, stream: int, index: int) -> Array:
        """Returns the items cropped and mirrored."""
        count, _, height, width = items.shape
        flip, down, right, _ = philox(seed, np.arange(count), DOMAIN, index, stream)
        side_y, side_x = (self.crop, self.crop) if self.crop else (height, width)
        if self.crop and self.training:
            # The remainder favours low offsets by less than one in 2**24 for any real picture.
            top = (down.astype(np.uint64) * np.uint64(height - side_y + 1)) >> np.uint64(32)
            left = (right.astype(np.uint64) * np.uint64(width - side_x + 1)) >> np.uint64(32)
        else:
            top = np.full(count, (height - side_y) // 2, np.uint64)
            left = np.full(count, (width - side_x) // 2, np.uint64)
        moved = np.empty((count, items.shape[1], side_y, side_x), items.dtype)
        for i in range(count):
            y, x = int(top[i]), int(left[i])
            part = items[i, :, y : y + side_y, x : x + side_x]
            moved[i] = part[:, :, ::-1] if self.mirror and flip[i] & 1 else part
        return moved

    def item_shape(self, shape: Shape) -> Shape:
        """Returns the shape of an item after the transform."""
        return (shape[0], self.crop, self.crop) if self.crop else shape


def transform_of(feed: Feed, item: Shape, mean_file: bool = True) -> Transform:
    """Returns the transform that a data layer asks for, checked against its item's shape.

    `mean_file` False: only shapes are asked for, and the file need not be there.
    """
    options = feed.options
    crop, mirror = int(options.get("crop_size") or 0), bool(options.get("mirror"))
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
    training = feed.phase == "TRAIN"
    return Transform(1.0 if scale is None else float(scale), mean, mirror, crop, training)
