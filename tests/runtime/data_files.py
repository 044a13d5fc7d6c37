"""Makes small data sets in a folder, for tests of the layers that read them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.params import Feed
from schemas.span import Span

Array = np.ndarray[Any, Any]
# What the layers fill in where the spec says nothing; a Feed has all options.
DEFAULTS: dict[str, dict[str, Any]] = {
    "Data": {"batch_size": 4},
    "ImageData": {"batch_size": 1, "is_color": True, "root_folder": ""},
    "HDF5Data": {"batch_size": 4, "shuffle": False},
    "WindowData": {
        "batch_size": 4,
        "fg_threshold": 0.5,
        "bg_threshold": 0.5,
        "fg_fraction": 0.25,
        "context_pad": 0,
        "crop_mode": "warp",
        "root_folder": "",
    },
}


def feed_of(
    kind: str, folder: Path, *, tops: Sequence[str] = ("data", "label"), phase="TRAIN", **options
) -> Feed:
    """Returns the feed of a layer that stands at line 3 of a net in a folder."""
    given = {**DEFAULTS[kind], **options}
    return replace(
        Feed("d", kind, tuple(tops), (), given, phase), span=Span(str(folder / "net.yaml"), 3, 5)
    )


def images(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def encoded(image: Array, kind: str = "PNG", **options: Any) -> bytes:
    """Returns a picture (C, H, W), blue first, as a file of a kind."""
    image_module = pytest.importorskip("PIL.Image")
    pixels = image[0] if len(image) == 1 else image[::-1].transpose(1, 2, 0)
    stream = io.BytesIO()
    image_module.fromarray(np.ascontiguousarray(pixels)).save(stream, kind, **options)
    return stream.getvalue()


def write_lmdb(path: Path, records: Mapping[str, bytes] | Sequence[bytes]) -> Path:
    """Writes records under their keys, or under numbers."""
    lmdb = pytest.importorskip("lmdb")
    if not isinstance(records, Mapping):
        records = {f"{i:08}": record for i, record in enumerate(records)}
    with lmdb.open(str(path), map_size=2**24) as env, env.begin(write=True) as transaction:
        for key, record in records.items():
            transaction.put(key.encode(), record)
    return path


def write_pictures(folder: Path, pictures: Array | Sequence[Array], labels: Sequence[int]) -> Path:
    """Writes pictures and their list, and returns the list."""
    lines = []
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        (folder / f"p {i}.png").write_bytes(encoded(picture))
        lines.append(f"p {i}.png {label}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def write_hdf5(folder: Path, *files: Mapping[str, Array]) -> Path:
    """Writes files f0.h5, f1.h5, ... and their list, and returns the list."""
    h5py = pytest.importorskip("h5py")
    for i, arrays in enumerate(files):
        with h5py.File(folder / f"f{i}.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array
    names = "".join(f"f{i}.h5\n" for i in range(len(files)))
    (folder / "list.txt").write_text(names)
    return folder / "list.txt"
