"""Reads data sets from .npz files, and says what is wrong with those it cannot read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from runtime.data.places import wrong
from runtime.data.records import MAX_LABEL, Array, Records
from schemas.errors import did_you_mean
from schemas.params import Feed

Shape = tuple[int, ...]
_BROKEN = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def npz_item_shapes(feed: Feed, path: Path) -> tuple[Shape, Shape]:
    """Returns the shapes of one item and of one label, from the headers of the arrays only."""
    with _open(feed, path) as archive:
        headers = _headers(feed, path, archive)
    data, label = headers[0], headers[1] if len(headers) > 1 else None
    return _item(data[0]), _label_item(*label) if label else ()


def load_npz(feed: Feed, path: Path) -> Records:
    """Returns the data set of a file, checked; only one with one top does without labels."""
    with _open(feed, path) as archive:
        _headers(feed, path, archive)
        names = _names(feed, path, archive)
        arrays = [_read(feed, path, archive, name) for name in names]
    data = arrays[0].reshape(len(arrays[0]), *_item(arrays[0].shape))
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise wrong(feed, f"'{names[0]}' of {path} holds NaN or infinite values")
    label = _labels(feed, path, names[1], arrays[1]) if len(arrays) > 1 else None
    return Records(data, label)


def _open(feed: Feed, path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _BROKEN as error:
        raise wrong(feed, f"{path} is not an .npz file: {error}") from None


def _names(feed: Feed, path: Path, archive: zipfile.ZipFile) -> Sequence[str]:
    """Returns the names of the arrays to read: the data, and the labels if there is a top."""
    held = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    part = "test" if feed.phase == "TEST" else "train"
    pairs = (("data", "label"), (f"x_{part}", f"y_{part}"))
    pair = next((pair for pair in pairs if pair[0] in held), None)
    inside = ", ".join(held) or "nothing"
    if pair is None:
        hint = f"name the arrays data and label, or x_train, y_train, x_test, y_test; {path.name}"
        message = f"{path} has no array 'data' or '{pairs[1][0]}'"
        raise wrong(feed, message, f"{hint} holds: {inside}")
    wanted = pair[: len(feed.tops)]
    for name in wanted:
        if name not in held:
            raise wrong(
                feed,
                f"{path} has no array '{name}' for the top '{feed.tops[1]}'",
                did_you_mean(name, [h for h in held if h != pair[0]]) or f"it holds: {inside}",
            )
    return wanted


def _headers(
    feed: Feed, path: Path, archive: zipfile.ZipFile
) -> list[tuple[Shape, np.dtype[np.generic]]]:
    """Returns shape and dtype of each wanted array, after checking them."""
    names = _names(feed, path, archive)
    headers = []
    for name in names:
        try:
            with archive.open(f"{name}.npy") as file:
                shape, dtype = _header(file)
        except _BROKEN as error:
            raise wrong(feed, f"cannot read '{name}' of {path}: {error}") from None
        if dtype.kind not in "buif":
            what = "Python objects" if dtype.hasobject else str(dtype)
            hint = "store numbers: uint8, an integer type or a float type"
            raise wrong(feed, f"'{name}' of {path} holds {what}", hint)
        if not shape or shape[0] == 0:
            raise wrong(feed, f"'{name}' of {path} holds no records: its shape is {shape}")
        headers.append((shape, dtype))
    if len(headers[0][0]) < 2:
        raise wrong(
            feed,
            f"'{names[0]}' of {path} has shape {headers[0][0]}",
            "the first axis counts the records; then come C, H, W (or H, W; or features)",
        )
    if len({shape[0] for shape, _ in headers}) > 1:
        counts = " and ".join(f"{h[0][0]} '{n}'" for n, h in zip(names, headers, strict=True))
        raise wrong(feed, f"{path} holds {counts}: one label is needed for each record")
    return headers


def _header(file: IO[bytes]) -> tuple[Shape, np.dtype[np.generic]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:  # 3.0 is for field names in Unicode: a table, not an array of numbers
        raise ValueError(f"its format is {version[0]}.{version[1]}, not 1.0 or 2.0")
    return shape, dtype


def _read(feed: Feed, path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    try:
        with archive.open(f"{name}.npy") as file:
            array: Array = npy.read_array(file, allow_pickle=False)
    except _BROKEN as error:
        raise wrong(feed, f"cannot read '{name}' of {path}: {error}") from None
    except MemoryError:
        raise wrong(feed, f"'{name}' of {path} does not fit into memory") from None
    return array


def _item(shape: Shape) -> Shape:
    """Returns the shape of one item: (N, H, W) are pictures of one channel."""
    return (1, *shape[1:]) if len(shape) == 3 else shape[1:]


def _label_item(shape: Shape, dtype: np.dtype[np.generic]) -> Shape:
    """Returns the shape of one label: (N, 1) whole numbers are (N,), as Keras stores them."""
    return () if dtype.kind != "f" and shape[1:] == (1,) else shape[1:]


def _labels(feed: Feed, path: Path, name: str, label: Array) -> Array:
    if label.dtype.kind == "f":
        if not np.isfinite(label).all():
            raise wrong(feed, f"'{name}' of {path} holds NaN or infinite values")
    elif label.size and (label.min() < 0 or label.max() > MAX_LABEL):
        odd = label.min() if label.min() < 0 else label.max()
        raise wrong(
            feed,
            f"'{name}' of {path} holds the label {odd}",
            f"labels are 0 to {MAX_LABEL}; for records without one, store e.g. 255 and write "
            "ignore_label: 255 in the loss",
        )
    shape = (len(label), *_label_item(label.shape, label.dtype))
    return np.ascontiguousarray(label.reshape(shape), np.float32)
