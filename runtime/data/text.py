"""TextData: streams of characters from a file, a folder or Python's own library."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import numpy as np

from runtime.data.places import find, wrong
from runtime.data.records import Array
from schemas.params import Feed

STDLIB = "stdlib"
OTHER = 0  # the class of every character that is not in VOCABULARY
# Fixed, so that weights fit any text: character i is class i + 1.
VOCABULARY = "\t\n" + "".join(map(chr, range(32, 127)))
CLASSES = 1 + len(VOCABULARY)
_CONTINUES = 0xFF  # in _CODES: a byte that goes on with the character before it
_CODES = np.full(256, OTHER, np.uint8)
_CODES[0x80:0xC0] = _CONTINUES  # of UTF-8
_CODES[[ord(c) for c in VOCABULARY]] = range(1, CLASSES)


def encode(text: str | bytes) -> Array:
    """Returns the class of each character of a text (UTF-8) as uint8."""
    content = text.encode() if isinstance(text, str) else text
    codes: Array = _CODES[np.frombuffer(content.replace(b"\r\n", b"\n"), np.uint8)]
    whole: Array = codes[codes != _CONTINUES]
    return whole


class TextSource:
    """`batch_size` streams, each of its own part of the text and from its start again at the end.

    Batch i holds the steps i * T to (i + 1) * T of each: where a stream stands depends on i alone.
    """

    def __init__(self, feed: Feed, seed: int) -> None:
        self.steps, self.count = feed.shapes[0]
        self.shapes = dict(zip(feed.tops, feed.shapes, strict=True))
        self.constant: frozenset[str] = frozenset()
        self.labels = np.array([0, CLASSES - 1], np.float32)  # the range; all are classes of text
        codes = _part(encode(_content(feed)), feed.phase)
        self.length = (len(codes) - 1) // self.count  # of a stream; the label is one behind
        if self.length < self.steps:
            need = self.count * self.steps + 1
            raise wrong(
                feed,
                f"its text for {feed.phase} has {len(codes):,} characters; {self.count} streams of "
                f"{self.steps} steps need {need:,}",
                "TEST reads the last tenth of a text, TRAIN the rest; lower batch_size or steps",
            )
        self.codes = codes

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index`: characters, the next ones, 0 where a stream begins anew."""
        first = index * self.steps % self.length
        places = (first + np.arange(self.steps)) % self.length
        chosen = places[:, None] + self.length * np.arange(self.count)
        begins = np.broadcast_to((places != 0)[:, None], chosen.shape)
        arrays = (self.codes[chosen], self.codes[chosen + 1], begins)
        return {
            top: np.ascontiguousarray(array, np.float32)
            for top, array in zip(self.shapes, arrays, strict=False)
        }


def _part(codes: Array, phase: str) -> Array:
    """Returns the last tenth of a text for TEST, the rest for TRAIN."""
    cut = len(codes) - len(codes) // 10
    return codes[cut:] if phase == "TEST" else codes[:cut]


def _content(feed: Feed) -> bytes:
    """Returns the whole text that a layer names, several files one after the other."""
    name = str(feed.options["source"])
    if name == STDLIB:
        return _library(feed)
    path = find(feed, name, Path.exists)
    files = [path]
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file())
        files = [p for p in below if not any(part.startswith(".") for part in _inside(p, path))]
        if not files:
            raise wrong(feed, f"there is no file in '{path}'")
    content = b"".join(_read(feed, file) for file in files)
    if not content.strip():
        raise wrong(feed, f"'{path}' is empty")
    return content


def _inside(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def _library(feed: Feed) -> bytes:
    """Returns the modules of Python's standard library that are one file, in the order of names."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [folder / f"{name}.py" for name in sorted(sys.stdlib_module_names)]
    content = b"".join(_read(feed, file) for file in files if file.is_file())
    if not content:
        message = f"the sources of Python's library are not in {folder}"
        raise wrong(feed, message, "give a text file: source: FILE")
    return content


def _read(feed: Feed, path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"cannot read '{path}': {error.strerror or error}"
        raise wrong(feed, message) from None
    if b"\0" in content:
        raise wrong(feed, f"'{path}' is no text file", "a text in UTF-8 is needed")
    return content
