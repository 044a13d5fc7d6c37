"""Samples windows of pictures as R-CNN trains on them: Caffe's WindowData."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.data.image_list import PictureFolder
from runtime.data.pictures import resize
from runtime.data.places import find, line_span, read_lines, wrong
from runtime.data.records import Array, Shape
from runtime.data.transform import DOMAIN, stream_of, transform_of
from schemas.params import Feed
from schemas.philox import philox

CHANNELS = 3  # pictures are read in colour
HINT = "'# 0', path, channels, height, width, number of windows, then class overlap x1 y1 x2 y2"


class Picture(NamedTuple):
    """A picture of a window file, and the line that names it."""

    name: str
    line: int
    text: str


class Window(NamedTuple):
    """A box of a picture, its corners included, and its class; 0 is background."""

    picture: int
    label: int
    overlap: float
    box: tuple[int, int, int, int]  # x1, y1, x2, y2


class WindowSource:
    """Batches of windows, background first: drawn anew for each batch, not read in order."""

    def __init__(self, feed: Feed, seed: int) -> None:
        options = feed.options
        self.feed = feed
        self.seed = seed
        self.stream = stream_of(feed)
        self.crop = int(options["crop_size"])
        self.size = int(options["batch_size"])
        shapes = window_shapes(feed)
        self.shapes: dict[str, Shape] = dict(zip(feed.tops, shapes, strict=False))
        self.constant: frozenset[str] = frozenset()
        self.path = find(feed, str(options["source"]))
        self.pictures, windows = read_windows(feed, self.path)
        self.folder = PictureFolder(feed, self.path, self.pictures[0].name)
        self.foreground = [w for w in windows if w.overlap >= options["fg_threshold"]]
        rest = (w for w in windows if w.overlap < options["fg_threshold"])
        low = (w for w in rest if w.overlap < options["bg_threshold"])
        self.background = [w._replace(label=0, overlap=0.0) for w in low]
        self.count = int(np.float32(self.size) * np.float32(options["fg_fraction"]))
        self._check()
        self.labels = np.array([w.label for w in self.foreground] + [0], np.float32)
        self.transform = transform_of(feed, (CHANNELS, self.crop, self.crop), cut=False)
        self.mean = self.transform.mean_of((CHANNELS, self.crop, self.crop))

    def _check(self) -> None:
        """Raises where a batch asks for windows that are not there, or that have no class."""
        for windows, wanted, what in (
            (self.foreground, self.count, "an overlap of fg_threshold or more"),
            (self.background, self.size - self.count, "an overlap below bg_threshold"),
        ):
            if wanted and not windows:
                message = f"no window of '{self.path}' has {what}, but a batch takes {wanted}"
                raise wrong(self.feed, message)
        for window in self.foreground:
            if window.label < 1:
                picture = self.pictures[window.picture]
                message = f"a window of '{picture.name}' covers its object, but has class 0"
                raise wrong(self.feed, message, "classes count from 1; 0 is background")

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index`: (B, 3, crop, crop) and the classes."""
        words, coins, _, _ = philox(self.seed, np.arange(self.size), DOMAIN, index, self.stream)
        data = np.zeros((self.size, CHANNELS, self.crop, self.crop), np.float32)
        label = np.zeros(self.size, np.float32)
        for i in range(self.size):
            windows = self.foreground if i >= self.size - self.count else self.background
            window = windows[int(words[i]) % len(windows)]
            flip = self.transform.mirror and bool(coins[i] & 1)
            self._fill(data[i], window, flip)
            label[i] = window.label
        return dict(zip(self.shapes, (data, label), strict=False))

    def _fill(self, place: Array, window: Window, flip: bool) -> None:
        """Writes a window to its place in the batch; what lies outside of its picture stays 0."""
        picture = self.pictures[window.picture]
        pixels = self.folder.read(picture.name, True, picture.line, picture.text)
        options = self.feed.options
        square, pad = options["crop_mode"] == "square", int(options["context_pad"])
        try:
            patch, top, left = cut(pixels, window.box, self.crop, pad, square, flip)
        except ValueError as error:
            span = line_span(self.path, picture.line, picture.text)
            raise wrong(self.feed, f"{error} of '{picture.name}'", None, span) from None
        values = patch.astype(np.float32)
        down, right = top + patch.shape[1], left + patch.shape[2]
        if self.mean is not None:
            values -= np.broadcast_to(self.mean, place.shape)[:, top:down, left:right]
        place[:, top:down, left:right] = values * np.float32(self.transform.scale)


def window_shapes(feed: Feed) -> tuple[Shape, ...]:
    """Returns the shapes of the tops: the layer's own fields tell them, if its file is there."""
    find(feed, str(feed.options["source"]))
    size, crop = int(feed.options["batch_size"]), int(feed.options["crop_size"])
    return ((size, CHANNELS, crop, crop), (size,))[: len(feed.tops)]


def cut(
    picture: Array,
    box: tuple[int, int, int, int],
    crop: int,
    context_pad: int,
    square: bool,
    flip: bool,
) -> tuple[Array, int, int]:
    """Returns a box of a picture, warped and flipped, and its place in a square of `crop` pixels.

    With `context_pad` or `square` the box is enlarged, so that context_pad pixels of the result
    show what surrounds it; of what lies outside of the picture nothing is returned. Numbers are
    float32 and rounded away from 0, as Caffe's are. Raises ValueError for a box that is not there.
    """
    _, rows, columns = picture.shape
    x1, y1, x2, y2 = box
    sides, top, left = (crop, crop), 0, 0
    if context_pad or square:
        scale = np.float32(crop) / np.float32(crop - 2 * context_pad)
        half_w, half_h = np.float32((x2 - x1 + 1) / 2), np.float32((y2 - y1 + 1) / 2)
        center_x, center_y = np.float32(x1) + half_w, np.float32(y1) + half_h
        if square:
            half_w = half_h = max(half_w, half_h)
        x1, x2, before, after, width = _clip(center_x, half_w * scale, columns, crop)
        y1, y2, top, _, height = _clip(center_y, half_h * scale, rows, crop)
        left = after if flip else before  # the padding is mirrored too
        sides = (min(height, crop - top), min(width, crop - left))
    if not (0 <= x1 <= x2 < columns and 0 <= y1 <= y2 < rows):
        raise ValueError(f"the window {' '.join(map(str, box))} leaves the {columns}x{rows} pixels")
    if min(sides) < 1:
        return np.empty((len(picture), 0, 0), np.uint8), 0, 0
    patch = resize(picture[:, y1 : y2 + 1, x1 : x2 + 1], *sides)
    return patch[:, :, ::-1] if flip else patch, top, left


def _clip(
    center: np.float32, half: np.float32, size: int, crop: int
) -> tuple[int, int, int, int, int]:
    """Returns the ends of a side within the picture, and in pixels of the result: what is missing
    before and after it, and what is left.
    """
    low, high = _round(center - half), _round(center + half)
    scale = np.float32(crop) / np.float32(high - low + 1)
    before, after = max(0, -low), max(0, high - size + 1)
    low, high = low + before, high - after
    pixels = (_round(np.float32(n) * scale) for n in (before, after, high - low + 1))
    return (low, high, *pixels)  # type: ignore[return-value]


def _round(x: np.float32) -> int:
    return int(math.copysign(math.floor(abs(float(x)) + 0.5), float(x)))


def read_windows(feed: Feed, path: Path) -> tuple[list[Picture], list[Window]]:
    """Returns the pictures and the windows of a window file. Raises SourceError at a place in it.

    As in Caffe, words count, not lines.
    """
    words = _words(feed, path)
    pictures: list[Picture] = []
    windows: list[Window] = []
    for word, line, column, text in words:
        if word != "#":
            span = line_span(path, line, text, column)
            raise wrong(feed, f"'{word}' where a picture begins with '#'", HINT, span)
        _number(feed, path, words, int, "the number of a picture")
        name, line, _, text = _next(feed, path, words, "the path of a picture")
        pictures.append(Picture(name, line, text))
        parts = ("channels", "height", "width", "the number of windows")
        channels, _, _, count = (_number(feed, path, words, int, part) for part in parts)
        if channels != CHANNELS:
            message = f"'{name}' has {channels} channels; pictures are read in colour, with 3"
            raise wrong(feed, message, None, line_span(path, line, text))
        for _ in range(int(count)):
            label = _number(feed, path, words, int, "the class of a window")
            overlap = _number(feed, path, words, float, "an overlap")
            x1, y1, x2, y2 = (
                int(_number(feed, path, words, int, "a corner of a window")) for _ in range(4)
            )
            windows.append(Window(len(pictures) - 1, int(label), overlap, (x1, y1, x2, y2)))
    return pictures, windows


Word = tuple[str, int, int, str]  # the word, its line, its column, the text of the line


def _words(feed: Feed, path: Path) -> Iterator[Word]:
    for line, text in read_lines(feed, path):
        at = 0
        for word in text.split():
            at = text.index(word, at)
            yield word, line, at + 1, text
            at += len(word)


def _next(feed: Feed, path: Path, words: Iterator[Word], what: str) -> Word:
    found = next(words, None)
    if found is None:
        raise wrong(feed, f"'{path}' ends where {what} should be", HINT)
    return found


def _number(
    feed: Feed, path: Path, words: Iterator[Word], kind: type[int] | type[float], what: str
) -> float:
    word, line, column, text = _next(feed, path, words, what)
    try:
        return kind(word)
    except ValueError:
        span = line_span(path, line, text, column)
        raise wrong(feed, f"'{word}' is not {what}", HINT, span) from None
