"""WindowData: the window file, what is cut out, what a batch is made of."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.data import open_source, probe
from runtime.data.pictures import resize
from runtime.data.windows import cut, read_windows
from schemas.errors import ShapeError, SourceError
from tests.runtime.data_files import encoded, feed_of, images

PICTURES = images(2, 3, 10, 12)
# Overlaps: object from 0.6 on, background below 0.3; between them nothing.
WINDOWS = """\
# 0
a.png
3
10
12
4
2 0.9 1 2 6 7
1 0.45 0 0 3 3
5 0.1 2 2 9 9
3 0.6 0 0 11 9
# 1
b.png
3 10 12
1
4 0.0 4 0 11 5
"""
OPTIONS = {"crop_size": 6, "fg_threshold": 0.6, "bg_threshold": 0.3, "fg_fraction": 0.5}


def feed(folder, **options):
    return feed_of("WindowData", folder, source="windows.txt", **{**OPTIONS, **options})


@pytest.fixture
def folder(tmp_path):
    for name, picture in zip("ab", PICTURES, strict=True):
        (tmp_path / f"{name}.png").write_bytes(encoded(picture))
    (tmp_path / "windows.txt").write_text(WINDOWS)
    return tmp_path


def test_window_file(folder):
    pictures, windows = read_windows(feed(folder), folder / "windows.txt")
    assert [(p.name, p.line) for p in pictures] == [("a.png", 2), ("b.png", 12)]
    assert windows[0] == (0, 2, 0.9, (1, 2, 6, 7)) and windows[4] == (1, 4, 0.0, (4, 0, 11, 5))


def test_a_batch_is_background_then_objects(folder):
    source = open_source(feed(folder, batch_size=8), 1)
    assert source.shapes == {"data": (8, 3, 6, 6), "label": (8,)} and len(source.background) == 2
    seen = set()
    boxes = {2: (0, 1, 2, 6, 7), 3: (0, 0, 0, 11, 9)}
    for index in range(6):
        batch = source.batch(index)
        assert batch["label"][:4].tolist() == [0] * 4
        for data, label in zip(batch["data"][4:], batch["label"][4:], strict=True):
            seen.add(int(label))
            number, x1, y1, x2, y2 = boxes[int(label)]
            part = PICTURES[number][:, y1 : y2 + 1, x1 : x2 + 1]
            assert np.array_equal(data, resize(part, 6, 6))
    assert seen == {2, 3}
    assert np.array_equal(
        open_source(feed(folder, batch_size=8), 1).batch(5)["data"], batch["data"]
    )
    assert not np.array_equal(source.batch(4)["data"], batch["data"])


@pytest.mark.parametrize(("size", "fraction", "objects"), [(5, 0.25, 1), (10, 0.3, 3), (3, 0, 0)])
def test_how_many_are_objects_is_rounded_down(folder, size, fraction, objects):
    source = open_source(feed(folder, batch_size=size, fg_fraction=fraction), 1)
    assert np.count_nonzero(source.batch(0)["label"]) == objects


# What Caffe's formulas give by hand for a picture of 10 x 12: rows, columns and place of the patch.
CUTS = [
    # crop 8 with 2 pixels around: scale 8 / 4; the box 4..7 x 4..7 becomes 2..10 by 2..10.
    ((4, 4, 7, 7), 8, 2, False, False, (slice(2, 10), slice(2, 11)), (7, 8), (0, 0)),
    # at the corner, 2..10 becomes -2..6: 9 pixels, of which 2 are missing (1.78 of the result).
    ((0, 0, 3, 3), 8, 2, False, False, (slice(0, 7), slice(0, 7)), (6, 6), (2, 2)),
    ((0, 0, 3, 3), 8, 2, False, True, (slice(0, 7), slice(0, 7)), (6, 6), (2, 0)),
    # a square around a wide box: 8 x 2 at (2, 4) becomes rows 1..9, columns 2..10.
    ((2, 4, 9, 5), 9, 0, True, False, (slice(1, 10), slice(2, 11)), (9, 9), (0, 0)),
    ((2, 4, 9, 5), 6, 0, False, False, (slice(4, 6), slice(2, 10)), (6, 6), (0, 0)),
]


@pytest.mark.parametrize(("box", "crop", "pad", "square", "flip", "part", "sides", "place"), CUTS)
def test_cut(box, crop, pad, square, flip, part, sides, place):
    picture = PICTURES[0]
    patch, top, left = cut(picture, box, crop, pad, square, flip)
    want = resize(picture[:, *part], *sides)
    assert (top, left) == place and np.array_equal(patch, want[:, :, ::-1] if flip else want)


def test_mirrored_windows(folder):
    plain = open_source(feed(folder, batch_size=16), 1).batch(0)["data"]
    some = open_source(feed(folder, batch_size=16, mirror=True), 1).batch(0)["data"]
    flipped = [np.array_equal(b, a[:, :, ::-1]) for a, b in zip(plain, some, strict=True)]
    kept = [np.array_equal(b, a) for a, b in zip(plain, some, strict=True)]
    assert 2 < sum(flipped) < 14 and all(np.logical_xor(flipped, kept))


@pytest.mark.parametrize("kind", ["value", "file"])
def test_the_mean_is_not_taken_from_the_padding(folder, kind):
    mean = np.arange(3 * 10 * 10, dtype=np.float32).reshape(3, 10, 10)
    np.save(folder / "mean.npy", mean)
    options = {"mean_value": (1, 2, 3)} if kind == "value" else {"mean_file": "mean.npy"}
    options |= {"context_pad": 2, "batch_size": 1, "fg_fraction": 0.0, "scale": 0.5}
    (folder / "windows.txt").write_text("# 0 a.png 3 10 12 1 0 0 0 0 3 3\n# 1 b.png 3 9 9 0\n")
    got = open_source(feed(folder, crop_size=8, **options), 1).batch(0)["data"][0]
    patch, top, left = cut(PICTURES[0], (0, 0, 3, 3), 8, 2, False, False)
    off = (10 - 8) // 2  # a mean image is read in its middle, at the place of the result
    used = mean[:, off + top : off + 8, off + left : off + 8]
    used = np.array([1, 2, 3]).reshape(3, 1, 1) if kind == "value" else used
    want = np.zeros((3, 8, 8), np.float32)
    want[:, top:, left:] = (patch - used) * 0.5
    assert np.array_equal(got, want)


BROKEN = [
    ("a.png\n", "windows.txt:1:1: error: 'a.png' where a picture begins with '#'"),
    ("# 0\na.png\n3\n10\n12\n2\n1 0.5 1 2 3 4\n", "ends where the class of a window should be"),
    (
        "# 0\na.png\n3\n10\n12\nmany\n",
        "windows.txt:6:1: error: 'many' is not the number of windows",
    ),
    ("# 0\na.png\n3\n10\n12\n1\n1 0.5 1 2.5 3 4", "txt:7:9: error: '2.5' is not a corner"),
    ("# 0\na.png\n1\n10\n12\n0\n", "windows.txt:2:1: error: 'a.png' has 1 channels"),
    (WINDOWS.replace("0.1", "0.4").replace("0.0 ", "0.3 "), "has an overlap below bg_threshold"),
    (WINDOWS.replace("0.9", "0.4").replace("0.6", "0.4"), "has an overlap of fg_threshold or"),
    (WINDOWS.replace("2 0.9", "0 0.9"), "a window of 'a.png' covers its object, but has class 0"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_window_files(folder, text, message):
    (folder / "windows.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(feed(folder), 1)


def test_windows_and_pictures_that_are_not_there(folder):
    (folder / "windows.txt").write_text("# 0\na.png\n3 10 12\n1\n0 0 5 5 12 9\n")
    one = {"fg_fraction": 0.0, "batch_size": 1}
    with pytest.raises(SourceError, match="txt:2:1: error: the window 5 5 12 9 leaves the 12x10 p"):
        open_source(feed(folder, **one), 1).batch(0)
    (folder / "a.png").unlink()
    with pytest.raises(SourceError, match=r"windows.txt:2:1: error: there is no file '.*a.png'"):
        open_source(feed(folder, **one), 1).batch(0)
    with pytest.raises(SourceError, match="no file 'other.txt'"):
        probe(feed_of("WindowData", folder, source="other.txt", **OPTIONS))
    np.save(folder / "mean.npy", np.zeros((3, 4, 4)))
    with pytest.raises(ShapeError, match="items of 6 x 6 pixels, but a mean of 4 x 4"):
        open_source(feed(folder, mean_file="mean.npy", **one), 1)
