"""Reads the pictures of an ImageData layer: a list file of paths and labels."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import numpy as np

from runtime.data.pictures import decode, resize
from runtime.data.places import find, line_span, read_lines, wrong
from runtime.data.records import MAX_LABEL, Array, Shape
from schemas.errors import Diagnostics
from schemas.params import Feed

SHOWN = 10  # wrong lines of one list that are shown
LABEL_HINT = "each line is a path, a space and a whole number: images/cat.jpg 3"


class PictureFolder:
    """Where the pictures of a list lie: `root_folder` before each name, as Caffe joins them."""

    def __init__(self, feed: Feed, list_file: Path, first: str) -> None:
        self.feed = feed
        self.list_file = list_file
        root = str(feed.options.get("root_folder") or "")
        self.root = root + "/" if root and not root.endswith("/") else root
        bases = (Path(feed.span.file).parent, Path(), list_file.parent)
        known = (base for base in bases if (base / (self.root + first)).is_file())
        self.base = next(known, bases[0])

    def read(self, name: str, color: bool, line: int, text: str) -> Array:
        """Returns a picture; errors are located at the line of the list that names it."""
        path = self.base / (self.root + name)
        span = line_span(self.list_file, line, text)
        try:
            return decode(path.read_bytes(), color, self.feed.span)
        except FileNotFoundError:
            given = self.feed.options.get("root_folder")
            hint = "names are relative to " + (
                f"root_folder '{given}'" if given else "the net's folder, or give root_folder"
            )
            raise wrong(self.feed, f"there is no file '{path}'", hint, span) from None
        except (OSError, ValueError) as error:
            raise wrong(self.feed, f"cannot read '{path}': {error}", None, span) from None


class ImageList:
    """The lines of a list as records; the pictures are read when they are asked for."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.path = find(feed, str(feed.options.get("source") or ""))
        self.lines = read_lines(feed, self.path)
        self.folder = PictureFolder(feed, self.path, _split(self.lines[0][1])[0])
        self.color = feed.options.get("is_color", True) is not False
        self.sides = tuple(int(feed.options.get(f"new_{s}") or 0) for s in ("height", "width"))

    @cached_property
    def label(self) -> Array:
        """All labels. Raises all lines that have none, up to a few."""
        diagnostics = Diagnostics()
        labels = np.zeros(len(self.lines), np.float32)
        for at, (number, text) in enumerate(self.lines):
            name, word = _split(text)
            if name and re.fullmatch(r"[+-]?\d{1,8}", word) and abs(int(word)) <= MAX_LABEL:
                labels[at] = int(word)
                continue
            span = line_span(self.path, number, text, text.rindex(word) + 1)
            message = f"'{word}' is no label" if name else "a path without a label"
            diagnostics.error(wrong(self.feed, message, LABEL_HINT, span))
            if len(diagnostics.errors) == SHOWN:
                break
        diagnostics.raise_if_any()
        return labels

    def __len__(self) -> int:
        return len(self.lines)

    def item(self) -> Shape:
        if all(self.sides):
            return (3 if self.color else 1, *self.sides)
        return tuple(self._picture(0).shape)

    def name(self, number: int) -> str:
        line, text = self.lines[number]
        return f"'{_split(text)[0]}' ({self.path}:{line})"

    def take(self, chosen: Array) -> tuple[list[Array], Array | None]:
        labels = self.label[chosen] if len(self.feed.tops) > 1 else None
        return [self._picture(int(number)) for number in chosen], labels

    def _picture(self, at: int) -> Array:
        number, text = self.lines[at]
        picture = self.folder.read(_split(text)[0], self.color, number, text)
        return resize(picture, *self.sides) if all(self.sides) else picture


def _split(line: str) -> tuple[str, str]:
    """Returns path and label: the path may hold spaces, the last one ends it."""
    parts = line.strip().rsplit(None, 1)
    return (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
