"""ImageData: decoding as OpenCV does, lists of pictures, located mistakes."""

from __future__ import annotations

import io

import numpy as np
import pytest

from runtime.data import open_source, probe
from runtime.data.pictures import decode, resize
from schemas.errors import BackendError, NetErrors, ShapeError, SourceError
from tests.runtime.data_files import encoded, feed_of, images, write_pictures

PICTURES = images(5, 3, 4, 6)
LABELS = [3, 1, 4, 1, 5]
RED = np.zeros((3, 2, 2), np.uint8)
RED[2] = 255  # blue first: red is the last channel


def opened(folder, seed=1, **options):
    return open_source(feed_of("ImageData", folder, source="list.txt", **options), seed)


def test_channels_are_blue_first(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    image_module.new("RGB", (6, 4), (250, 20, 3)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png 0\n")
    assert opened(tmp_path).batch(0)["data"][0, :, 0, 0].tolist() == [3, 20, 250]


@pytest.mark.parametrize(
    ("mode", "color", "pixel"),
    [
        ("RGB", None, [3, 20, 250]),
        ("RGBA", None, [3, 20, 250, 255]),
        ("RGBA", True, [3, 20, 250]),
        ("P", None, [0, 0, 255]),  # the nearest of the web's colours
        ("L", None, [87]),
        ("L", True, [87, 87, 87]),
        ("LA", None, [87, 87, 87, 255]),
        ("1", None, [0]),
        ("RGB", False, [87]),
        ("RGBA", False, [87]),
    ],
)
def test_decoded_channels(mode, color, pixel):
    image_module = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    picture = image_module.new("RGB", (6, 4), (250, 20, 3))
    picture.convert(mode, dither=0).save(stream, "PNG")
    found = decode(stream.getvalue(), color)
    assert found.shape == (len(pixel), 4, 6) and found.dtype == np.uint8
    assert found[:, 2, 3].tolist() == pixel


@pytest.mark.parametrize(("color", "channels"), [(None, 4), (True, 3), (False, 1)])
def test_a_palette_with_transparency(color, channels):
    image_module = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    picture = image_module.new("P", (6, 4), 1)
    picture.putpalette([0, 0, 0, 250, 20, 3])
    picture.save(stream, "PNG", transparency=bytes([255, 100]))
    want = {4: [3, 20, 250, 100], 3: [3, 20, 250], 1: [87]}[channels]
    assert decode(stream.getvalue(), color)[:, 0, 0].tolist() == want


def test_jpeg_is_decoded_near_the_original():
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8) * 3
    content = encoded(np.stack([smooth, smooth[::-1], smooth]), "JPEG", quality=100, subsampling=0)
    assert np.abs(decode(content, True).astype(int)[0] - smooth).max() <= 4
    weights = 0.114 * smooth + 0.587 * smooth[::-1] + 0.299 * smooth
    assert np.abs(decode(content, False)[0] - weights).max() <= 3


def test_sixteen_bits_are_refused():
    image_module = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image_module.fromarray(np.full((4, 6), 40_000, np.uint16)).save(stream, "PNG")
    with pytest.raises(ValueError, match="not of 8 bits a channel"):
        decode(stream.getvalue(), None)


@pytest.mark.parametrize("shape", [(5, 5), (8, 12), (2, 3), (9, 4), (1, 1), (7, 20)])
def test_resize_is_bilinear_without_smoothing(shape):
    torch = pytest.importorskip("torch")
    picture = images(1, 3, 4, 6)[0]
    theirs = torch.nn.functional.interpolate(
        torch.tensor(picture[None], dtype=torch.float64), shape, mode="bilinear"
    )[0].numpy()
    ours = resize(picture, *shape)
    assert ours.dtype == np.uint8 and np.abs(ours - theirs).max() < 0.75
    assert np.array_equal(resize(picture, 4, 6), picture)


def test_resize_as_opencv():
    # cv2.resize(picture, (3, 5), interpolation=cv2.INTER_LINEAR), OpenCV 5.0, run once; its
    # versions and processors differ by one grey level among themselves.
    picture = np.array([[[10, 200, 33, 90], [0, 255, 7, 121], [61, 13, 250, 77]]], np.uint8)
    want = [[42, 116, 80], [42, 122, 89], [42, 131, 102], [49, 131, 104], [53, 131, 106]]
    assert np.abs(resize(picture, 5, 3)[0].astype(int) - want).max() <= 1


def test_batches_of_a_list(tmp_path):
    write_pictures(tmp_path, PICTURES, LABELS)
    source = opened(tmp_path, batch_size=4)
    assert source.shapes == {"data": (4, 3, 4, 6), "label": (4,)}
    second = source.batch(1)
    assert np.array_equal(second["data"], PICTURES[[4, 0, 1, 2]])
    assert second["label"].tolist() == [5, 3, 1, 4]


def test_resized_grey_and_cropped(tmp_path):
    write_pictures(tmp_path, PICTURES, LABELS)
    options = {"new_height": 8, "new_width": 9, "batch_size": 5}
    source = opened(tmp_path, **options)
    assert np.array_equal(source.batch(0)["data"], [resize(one, 8, 9) for one in PICTURES])
    grey = opened(tmp_path, is_color=False, **options)
    assert grey.shapes["data"] == (5, 1, 8, 9)
    assert probe(feed_of("ImageData", tmp_path, source="list.txt", crop_size=2, **options)) == (
        (5, 3, 2, 2),
        (5,),
    )


def test_pictures_of_several_sizes(tmp_path):
    write_pictures(tmp_path, [PICTURES[0], images(1, 3, 5, 5)[0]], [0, 1])
    assert opened(tmp_path, batch_size=2, crop_size=4).batch(0)["data"].shape == (2, 3, 4, 4)
    with pytest.raises(SourceError, match=r"'p 1.png' \(.*list.txt:2\) is 3x5x5, .*\n.*new_height"):
        opened(tmp_path, batch_size=2).batch(0)


def test_shuffle_and_rand_skip(tmp_path):
    write_pictures(tmp_path, images(12, 3, 2, 2), range(12))
    source = opened(tmp_path, shuffle=True, batch_size=8)
    labels = np.concatenate([source.batch(i)["label"] for i in range(3)])
    passes = labels[:12].tolist(), labels[12:].tolist()
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(12)) and passes[0] != passes[1]
    assert opened(tmp_path, shuffle=True, batch_size=8).batch(2)["label"].tolist() == passes[1][4:]
    first = {int(opened(tmp_path, s, rand_skip=3).batch(0)["label"][0]) for s in range(40)}
    assert first == {0, 1, 2}


@pytest.mark.parametrize("root", ["pics", "pics/"])
@pytest.mark.parametrize("name", ["a.png", "/a.png"])
def test_root_folder_stands_before_each_name(tmp_path, root, name):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/a.png").write_bytes(encoded(RED))
    (tmp_path / "list.txt").write_text(f"{name} 1\n")
    assert np.array_equal(opened(tmp_path, root_folder=root).batch(0)["data"][0], RED)


def test_names_are_relative_to_the_net_the_working_folder_or_the_list(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "lists/list.txt").write_text("a.png 1\n")
    monkeypatch.chdir(tmp_path / "work")
    for folder in ("lists", "work", "."):  # the net's own comes first
        picture = images(1, 3, 2, 2, seed=len(folder))[0]
        (tmp_path / folder / "a.png").write_bytes(encoded(picture))
        source = open_source(feed_of("ImageData", tmp_path, source="lists/list.txt"), 1)
        assert np.array_equal(source.batch(0)["data"][0], picture)


LISTS = [
    ("a.png 1\na.png\n", "list.txt:2:1: error: a path without a label"),
    ("a.png x\n", "list.txt:1:7: error: 'x' is no label .*net.yaml:3:5.*\n.*a.png x\n"),
    ("a.png 16777217\n", "1:7: error: '16777217' is no label"),
    ("a.png 1.5\n", "1:7: error: '1.5' is no label"),
    ("a.png\t2\n\nb.png two words\n", "3:11: error: 'words' is no label"),
    ("", "list.txt' is empty"),
    ("a\0b 1\n", "list.txt' is no text file"),
]


def test_a_picture_larger_than_the_mean_is_located(tmp_path):
    np.save(tmp_path / "mean.npy", np.zeros((3, 4, 6)))
    write_pictures(tmp_path, [PICTURES[0], images(1, 3, 8, 8)[0]], [0, 1])
    source = opened(tmp_path, batch_size=2, crop_size=4, mean_file="mean.npy")
    with pytest.raises(SourceError, match="net.yaml:3:5: .*items of 8 x 8 pixels, but a mean of"):
        source.batch(0)
    with pytest.raises(ShapeError, match="net.yaml:3:5: .*items of 9 x 9 pixels"):
        opened(tmp_path, new_height=9, new_width=9, mean_file="mean.npy")


@pytest.mark.parametrize(("text", "message"), LISTS)
def test_lines_that_do_not_parse_are_located(tmp_path, text, message):
    (tmp_path / "a.png").write_bytes(encoded(RED))
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        opened(tmp_path).batch(0)


def test_all_wrong_lines_at_once(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(RED))
    (tmp_path / "list.txt").write_text("a.png 1\na.png x\na.png y\n")
    with pytest.raises(NetErrors, match="list.txt:2:7(.|\n)*list.txt:3:7"):
        opened(tmp_path).batch(0)


def test_a_missing_package_is_named_at_the_layer(tmp_path, monkeypatch):
    write_pictures(tmp_path, PICTURES, LABELS)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(BackendError, match="net.yaml:3:5: .*need the package pillow\n.*pillow."):
        opened(tmp_path).batch(0)


def test_missing_and_broken_pictures_name_their_line(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(RED))
    (tmp_path / "b.png").write_bytes(encoded(RED)[:40])
    (tmp_path / "list.txt").write_text("a.png 1\ngone.png 1\nb.png 1\n")
    source = opened(tmp_path)
    with pytest.raises(SourceError, match=r"list.txt:2:1: error: there is no file '.*gone.png'"):
        source.batch(1)
    with pytest.raises(SourceError, match=r"list.txt:3:1: error: cannot read '.*b.png'"):
        source.batch(2)
    with pytest.raises(SourceError, match=r"net.yaml:3:5: .*no file 'lost.txt'\n.*'list.txt'"):
        probe(feed_of("ImageData", tmp_path, source="lost.txt"))
