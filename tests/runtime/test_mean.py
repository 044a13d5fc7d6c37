"""Mean images: subtracted pixel by pixel, before cropping and mirroring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.caffe_files import blob_parts
from runtime.data import open_source, probe
from runtime.data.transform import Transform, transform_of
from schemas.errors import ShapeError, SourceError
from schemas.params import Feed

MEAN = np.arange(48.0, dtype="f4").reshape(3, 4, 4)


def feed_of(path: Path, phase: str = "TEST", **options: object) -> Feed:
    given = {"source": "digits", "batch_size": 1, "mean_file": str(path), **options}
    return Feed("d", "Data", ("data",), (), given, phase)


@pytest.mark.parametrize("name", ["m.binaryproto", "m.npy"])
def test_cropped_at_the_uncropped_place(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, MEAN)
    else:
        path.write_bytes(b"".join(blob_parts(MEAN[None])))
    items = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 4)).astype("u1")
    made = transform_of(feed_of(path, crop_size=2, scale=0.5), (3, 4, 4))
    assert np.array_equal(made(items, 1, 2, 3), ((items - MEAN) * 0.5)[:, :, 1:3, 1:3])
    train = transform_of(feed_of(path, "TRAIN", crop_size=2, mirror=True), (3, 4, 4))
    plain = Transform(mirror=True, crop=2)
    assert np.array_equal(train(items, 1, 2, 3), plain(items - MEAN, 1, 2, 3))


def test_items_as_small_as_the_crop_meet_the_middle(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MEAN)
    made = transform_of(feed_of(tmp_path / "m.npy", crop_size=2), (3, 2, 2))
    items = np.zeros((1, 3, 2, 2))
    assert np.array_equal(made(items, 0, 0, 0)[0], -MEAN[:, 1:3, 1:3])
    with pytest.raises(ShapeError, match="items of 6 x 6 pixels, but a mean of 4 x 4"):
        made(np.zeros((1, 3, 6, 6)), 0, 0, 0)


def test_one_number_a_channel(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", [1.0, 2.0, 3.0])
    made = transform_of(feed_of(tmp_path / "m.npy"), (3, 4, 4))
    assert np.array_equal(made(np.zeros((1, 3, 4, 4)), 0, 0, 0)[0, :, 0, 0], [-1, -2, -3])


def test_shapes_do_not_need_the_file(tmp_path: Path) -> None:
    assert probe(feed_of(tmp_path / "none.binaryproto")) == ((1, 1, 28, 28),)
    np.save(tmp_path / "meen.npy", MEAN)
    with pytest.raises(SourceError, match=r"no file '.*mean.npy'\n.*did you mean '.*meen.npy'"):
        open_source(feed_of(tmp_path / "mean.npy"), 0)
    with pytest.raises(SourceError, match=r"is \(3, 4, 4\), but an item is \(1, 28, 28\)"):
        open_source(feed_of(tmp_path / "meen.npy"), 0)
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="cannot read '.*bad.npy'"):
        open_source(feed_of(tmp_path / "bad.npy"), 0)
