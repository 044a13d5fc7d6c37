"""transform_param: what is subtracted where, what is cut out, in which order."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.data import open_source
from runtime.data.datum import datum
from runtime.data.transform import Transform
from tests.runtime.data_files import feed_of, images, write_lmdb, write_pictures

ITEMS = images(6, 3, 7, 9)
MEAN = images(1, 3, 7, 9, seed=5)[0].astype(np.float32)
MIDDLE = (slice(None), slice(None), slice(1, 5), slice(2, 6))  # floor((7 - 4) / 2), (9 - 4) / 2
CHANNELS = np.array([1.0, 2.0, 3.5]).reshape(3, 1, 1)

CASES = {
    "nothing": ({}, ITEMS),
    "scale": ({"scale": 0.25}, ITEMS * 0.25),
    "one mean": ({"mean_value": (7,)}, ITEMS - 7.0),
    "a mean a channel": ({"mean_value": (1, 2, 3.5)}, ITEMS - CHANNELS),
    "the mean comes before the scale": (
        {"mean_value": (1, 2, 3.5), "scale": 0.5},
        (ITEMS - CHANNELS) * 0.5,
    ),
    "the middle in TEST": ({"crop_size": 4}, ITEMS[MIDDLE]),
    "all": ({"crop_size": 4, "scale": 2, "mean_value": (9,)}, (ITEMS[MIDDLE] - 9.0) * 2),
    "a mean image at the crop's own place": (
        {"crop_size": 4, "mean_file": "mean.npy", "scale": 0.5},
        ((ITEMS - MEAN) * 0.5)[MIDDLE],
    ),
}


@pytest.mark.parametrize("kind", ["Data", "ImageData"])
@pytest.mark.parametrize("name", CASES)
def test_values(tmp_path, kind, name):
    options, want = CASES[name]
    np.save(tmp_path / "mean.npy", MEAN)
    if kind == "Data":
        write_lmdb(tmp_path / "source", [datum(one, 1) for one in ITEMS])
    else:
        write_pictures(tmp_path, ITEMS, [1] * 6).rename(tmp_path / "source")
    feed = feed_of(kind, tmp_path, source="source", batch_size=6, phase="TEST", **options)
    source = open_source(feed, 1)
    batch = source.batch(0)["data"]
    assert batch.shape == source.shapes["data"] and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, want.astype(np.float32))


def test_training_crops_everywhere_and_takes_the_mean_along():
    item = np.arange(7 * 9, dtype=np.float32).reshape(1, 7, 9)
    mean = item * 3 + 1
    transform = Transform(scale=0.5, mean=mean, mirror=True, crop=4)
    found = set()
    for index in range(40):
        for one in transform([item] * 8, 1, 2, index):
            flip = bool(one[0, 0, 0] < one[0, 0, 1])  # (x - mean) falls along a row
            upright = one[:, :, ::-1] if flip else one
            start = int((-2 * upright[0, 0, 0] - 1) / 2)
            top, left = divmod(start, 9)
            want = ((item - mean) * 0.5)[:, top : top + 4, left : left + 4]
            assert np.array_equal(upright, want)
            found.add((top, left, flip))
    assert found == {(y, x, f) for y in range(4) for x in range(6) for f in (False, True)}


@pytest.mark.parametrize("training", [True, False])
def test_mirroring_is_random_in_both_phases(training):
    transform = Transform(mirror=True, training=training)
    batch = transform(ITEMS[:1].repeat(64, 0), 1, 2, 3)
    flipped = [np.array_equal(one, ITEMS[0, :, :, ::-1]) for one in batch]
    kept = [np.array_equal(one, ITEMS[0]) for one in batch]
    assert 16 < sum(flipped) < 48 and all(np.logical_xor(flipped, kept))


def test_items_alone_and_in_an_array_are_treated_alike():
    for options in ({}, {"mirror": True}, {"crop": 3}, {"crop": 3, "mirror": True, "scale": 0.1}):
        transform = Transform(mean=MEAN, **options)
        together, alone = transform(ITEMS, 5, 6, 7), transform(list(ITEMS), 5, 6, 7)
        assert np.array_equal(together, alone)


def test_the_records_stay_as_they_are():
    items = ITEMS.astype(np.float32)
    before = items.copy()
    Transform(scale=2.0, mean=MEAN)(items, 0, 0, 0)
    Transform(scale=2.0, mean=MEAN, crop=3)(list(items), 0, 0, 0)
    assert np.array_equal(items, before)
