"""Decodes and resizes pictures as OpenCV does for Caffe: bytes to (C, H, W), blue first."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from runtime.data.records import Array
from runtime.packages import package
from schemas.span import Span

_ONE = 1 << 11  # the weight 1 of a resize
_GREY = np.array([1868, 9617, 4899])  # blue, green, red: 0.114, 0.587, 0.299 of 1 << 14


def decode(content: bytes, color: bool | None, span: Span | None = None) -> Array:
    """Returns a picture (JPEG, PNG, BMP ...) as (C, H, W) uint8, channels blue, green, red.

    `color` True: three channels; False: one; None: as many as are stored, four with transparency.
    Pixels stay where they are stored: a camera's note of how it was held (EXIF) does not turn them.
    Raises ValueError for what is no picture of 8 bits a channel; where the package for pictures is
    missing, BackendError at `span`.
    """
    image_module = package("PIL.Image", "pillow", "pictures", span)
    try:
        with image_module.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its pixels are {image.mode}, not of 8 bits a channel")
            if color is False and image.format == "JPEG":
                image.draft("L", image.size)  # brightness is stored apart: no detour over colours
            return _channels(image, color)
    except (OSError, SyntaxError, image_module.DecompressionBombError) as error:
        raise ValueError(str(error) or "it is damaged") from None


def _channels(image: Any, color: bool | None) -> Array:
    """Returns the pixels of an opened picture in the channels that are asked for."""
    grey = image.mode in ("1", "L")
    clear = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if grey and color is not True and not (clear and color is None):
        return np.array(image.convert("L"))[None]
    if clear:  # stored colours count, not what is left of them behind the transparency
        pixels = _blue_first(np.asarray(image.convert("RGBA")), (2, 1, 0, 3))
        if color is None:
            return pixels
        pixels = pixels[:3]
    else:
        pixels = _blue_first(np.asarray(image.convert("RGB")), (2, 1, 0))
    if color is not False:
        return pixels
    mixed = np.tensordot(_GREY, pixels.astype(np.int64), 1)
    return np.asarray((mixed[None] + (1 << 13)) >> 14).astype(np.uint8)


def _blue_first(pixels: Array, order: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(pixels[..., order].transpose(2, 0, 1))


def resize(picture: Array, height: int, width: int) -> Array:
    """Returns a uint8 picture (C, H, W) in another size, bilinear between the four nearest pixels.

    This is cv::resize with INTER_LINEAR: centres half a pixel in, edges clamped, no smoothing when
    it shrinks, and weights in whole numbers of 1/2048 (Pillow and others smooth: other pictures).
    Versions of OpenCV round in different ways; all of them are within one grey level of this.
    """
    if picture.shape[1:] == (height, width):
        return picture
    top, bottom, up, down = _weights(picture.shape[1], height)
    near, far, left, right = _weights(picture.shape[2], width)
    wide = picture.astype(np.int64)
    wide = wide[:, :, near] * left + wide[:, :, far] * right
    above = (up[:, None] * (wide[:, top] >> 4)) >> 16
    below = (down[:, None] * (wide[:, bottom] >> 4)) >> 16
    rounded: Array = (above + below + 2) >> 2
    return rounded.astype(np.uint8)


def _weights(count: int, wanted: int) -> tuple[Array, Array, Array, Array]:
    """Returns for each new pixel of an axis the two old ones it lies between, and their weights."""
    at = np.maximum((np.arange(wanted) + 0.5) * (count / wanted) - 0.5, 0)
    low = np.minimum(at.astype(np.int64), count - 1)
    part = (at - low).astype(np.float32)
    first, second = (np.rint(w * _ONE).astype(np.int64) for w in (1 - part, part))
    return low, np.minimum(low + 1, count - 1), first, second
