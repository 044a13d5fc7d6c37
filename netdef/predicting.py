"""Reads files as inputs of a net, treated as its data layer treats its items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.frontend.build import build
from compiler.frontend.deploy import is_python_source
from netdef.arrays import read_array
from netdef.probing import Prober, phases_used, written
from runtime.data.transform import Transform, transform_of
from schemas.errors import BackendError, NetError, SourceError, UsageError
from schemas.net import NetSpec

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclass(frozen=True)
class Reader:
    """Makes items of one input of a net: `shape` is an item's, (C, H, W) for pictures."""

    name: str
    shape: Shape
    transform: Transform
    bgr: bool = False

    def read(self, path: Path) -> Array:
        """Returns the items of a file, (N, *shape) float32. Raises NetError."""
        kind = path.suffix.lower()
        if kind in PICTURES:
            items = self._picture(path)[None]
        elif kind in (".npy", ".npz"):
            items = self._items(path, read_array(path, self.name))
        else:
            hint = "give .npy, .npz, .png or .jpg"
            raise UsageError(f"'{path}' is of no kind that can be read", hint=hint)
        if not np.isfinite(items).all():
            raise SourceError(f"{path} holds NaN or infinite values")
        return self.transform(items, 0, 0, 0)

    def _items(self, path: Path, array: Array) -> Array:
        """Returns (N, *shape) from one item or several, also without the axis of one channel."""
        if array.dtype.kind not in "buif":
            raise SourceError(f"{path} holds {array.dtype}, not numbers")
        whole = array.shape[1:]
        inner = self.shape[1:] if self.shape[:1] == (1,) else None
        if self._fits(array.shape) or array.shape == inner:
            array = array[None]
        elif not self._fits(whole) and whole != inner:
            want = "x".join(map(str, self.shape))
            raise SourceError(
                f"{path} has shape {array.shape}; an item of '{self.name}' is {want}",
                hint="the first axis counts the items, if there are several",
            )
        if array.shape[1:] == inner:
            array = array[:, None]
        if not len(array):
            raise SourceError(f"{path} holds no items: its shape is {array.shape}")
        return array

    def _fits(self, shape: Shape) -> bool:
        """Returns whether an item of this shape will do; the transform may crop a larger one."""
        if not self.transform.crop or len(shape) != 3:
            return shape == self.shape
        return shape[0] == self.shape[0] and min(shape[1:]) >= self.transform.crop

    def _picture(self, path: Path) -> Array:
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError:
            hint = "pip install 'netdef[pillow]'; or give the picture as .npy"
            raise BackendError("pictures need the package pillow", hint=hint) from None
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            want = "x".join(map(str, self.shape))
            raise UsageError(f"'{path}' is a picture, but an item of '{self.name}' is {want}")
        try:
            with Image.open(path) as opened:
                picture = opened.convert("L" if self.shape[0] == 1 else "RGB")
                sides = (self.shape[2], self.shape[1])
                if picture.size != sides:
                    picture = picture.resize(sides, Image.Resampling.BILINEAR)
                array = np.asarray(picture, np.float32)
        except FileNotFoundError:
            raise UsageError(f"there is no file '{path}'") from None
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise SourceError(f"cannot read {path}: {error}") from None
        if array.ndim == 2:
            return array[None]
        return np.moveaxis(array[..., ::-1] if self.bgr else array, -1, 0)


def reader_of(spec: NetSpec, shapes: dict[str, Shape], raw: bool, bgr: bool) -> Reader:
    """Returns the reader for the one input of a net. Raises NetError if it has several."""
    deploy = build(spec, "TEST", probe=Prober(shapes), inputs=written(spec, shapes), deploy=True)
    if len(deploy.inputs) != 1:
        listed = ", ".join(deploy.inputs) or "none"
        hint = "use the Python API: netdef.load(...).forward(a=..., b=...)"
        raise UsageError(f"predict feeds nets of one input; this one has: {listed}", hint=hint)
    ((name, node),) = deploy.inputs.items()
    item = tuple(node.shape[1:])
    transform = Transform(training=False)
    if not raw and not _made_by_code(spec, name):
        transform = _transform(spec, name, item, shapes)
    return Reader(name, item, transform, bgr)


def changed(reader: Reader, scale: float | None, mean: str | None) -> Reader:
    """Returns the reader with the user's scale and mean in place of the net's.

    A net for use alone (Caffe's deploy files) does not say how its items were scaled.
    """
    transform = reader.transform
    if scale is not None:
        transform = replace(transform, scale=scale)
    if mean is not None:
        try:
            values = np.array([float(part) for part in mean.split(",")], np.float32)
        except ValueError:
            raise UsageError(f"'{mean}' is not a mean", hint="write --mean 104,117,123") from None
        if len(values) not in (1, reader.shape[0]):
            message = f"{len(values)} values in --mean for {reader.shape[0]} channels"
            raise UsageError(message, hint="give one, or one for each channel")
        shape = (-1, *(1 for _ in reader.shape[1:])) if len(values) > 1 else (1,)
        transform = replace(transform, mean=values.reshape(shape))
    return replace(reader, transform=transform)


def _made_by_code(spec: NetSpec, name: str) -> bool:
    return any(is_python_source(one) and name in map(str, one.tops) for one in spec.layers)


def _transform(spec: NetSpec, name: str, item: Shape, shapes: dict[str, Shape]) -> Transform:
    """Returns what the net's data layer does to an item, without what is random in it."""
    phase = phases_used(spec)[-1]
    try:
        graph = build(spec, phase, probe=Prober(shapes), inputs=written(spec, shapes))
    except NetError:
        return Transform(training=False)  # a net for use alone: no data layer to copy
    for feed in graph.feeds:
        if name in feed.tops:
            found = transform_of(feed, item)
            return Transform(found.scale, found.mean, False, found.crop, False)
    return Transform(training=False)
