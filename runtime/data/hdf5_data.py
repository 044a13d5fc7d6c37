"""Reads HDF5 files of arrays, one for each top: Caffe's HDF5Data."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from runtime.data.order import Order, permutation
from runtime.data.places import find, line_span, read_lines, wrong
from runtime.data.records import Array, Shape
from runtime.data.transform import stream_of
from runtime.packages import package
from schemas.errors import Diagnostics, SourceError, did_you_mean
from schemas.params import Feed
from schemas.span import Span

LIST_HINT = "source is a text file with the name of an .h5 file on each line"
# What h5py raises for damaged files, by what was damaged.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError)
_FILES, _ROWS = 1, 2  # keep the random numbers for both apart


class HDF5Source:
    """Rows of HDF5 files in order, from the first again after the last; a batch may lie in two.

    With `shuffle`, each pass has another order of the files, and of the rows within a file; rows of
    two files never mix. A whole file is held in memory at a time, as in Caffe.
    """

    def __init__(self, feed: Feed, seed: int) -> None:
        self.feed = feed
        self.files = list_files(feed)
        shapes, rows = _headers(feed, self.files)
        size = int(feed.options["batch_size"])
        self.shapes: dict[str, Shape] = {top: (size, *shapes[top]) for top in feed.tops}
        self.constant: frozenset[str] = frozenset()
        self.rows = np.array(rows)
        self.ends = np.cumsum(self.rows)
        self.seed, self.stream = seed, stream_of(feed)
        shuffled = self._shuffled if feed.options.get("shuffle") else None
        self.order = Order(int(self.ends[-1]), size, 0, shuffled)
        self._load = lru_cache(maxsize=2)(self._read)

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index`: rows as they are, as float32."""
        chosen = self.order.chosen(index)
        homes = np.searchsorted(self.ends, chosen, side="right")
        made = {top: np.empty(shape, np.float32) for top, shape in self.shapes.items()}
        for home in np.unique(homes):
            here = homes == home
            inside = chosen[here] - (self.ends[home] - self.rows[home])
            for top, array in self._load(int(home)).items():
                made[top][here] = array[inside]
        return made

    def _shuffled(self, number: int) -> Array:
        """Returns the order of all rows in pass `number`."""
        files = permutation(len(self.files), self.seed, self.stream, number, _FILES)
        first = self.ends - self.rows
        parts = [
            first[file]
            + permutation(int(self.rows[file]), self.seed, self.stream ^ int(file), number, _ROWS)
            for file in files
        ]
        return np.concatenate(parts)

    def _read(self, number: int) -> dict[str, Array]:
        path, span = self.files[number]
        found = {}
        try:
            with package("h5py", "hdf5", "HDF5 files").File(path, "r") as file:
                for top in self.feed.tops:
                    found[top] = np.asarray(file[top], np.float32)
        except _DAMAGE as error:
            raise unreadable(self.feed, path, span, error) from None
        for top, array in found.items():
            if not np.isfinite(array).all():
                message = f"'{top}' of '{path}' holds NaN or infinite values"
                raise wrong(self.feed, message, None, span)
        return found


def hdf5_shapes(feed: Feed) -> tuple[Shape, ...]:
    """Returns the shapes of the tops, from the headers of the first file."""
    shapes, _ = _headers(feed, list_files(feed)[:1])
    size = int(feed.options["batch_size"])
    return tuple((size, *shapes[top]) for top in feed.tops)


def list_files(feed: Feed) -> list[tuple[Path, Span]]:
    """Returns the files that the layer's list names, each with its place in the list."""
    path = find(feed, str(feed.options["source"]))
    if path.suffix in (".h5", ".hdf5"):
        raise wrong(feed, f"'{path}' is no list", LIST_HINT)
    folders = (Path(feed.span.file).parent, Path(), path.parent)
    found = []
    diagnostics = Diagnostics()
    for number, text in read_lines(feed, path):
        name = text.strip()
        span = line_span(path, number, text)
        known = next((f / name for f in folders if (f / name).is_file()), None)
        if known is None:
            hint = "names are relative to the net's file, the working folder or the list"
            diagnostics.error(wrong(feed, f"there is no file '{name}'", hint, span))
        else:
            found.append((known, span))
    diagnostics.raise_if_any()
    return found


def _headers(feed: Feed, files: list[tuple[Path, Span]]) -> tuple[dict[str, Shape], list[int]]:
    """Returns the shape of a row of each top, and how many rows each file has; checked."""
    rows: list[int] = []
    first: dict[str, Shape] = {}
    diagnostics = Diagnostics()
    for path, span in files:
        try:
            shapes = _shapes(feed, path, span)
        except SourceError as error:
            diagnostics.error(error)
            continue
        counts = {top: shape[0] for top, shape in shapes.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} of '{top}'" for top, count in counts.items())
            diagnostics.error(wrong(feed, f"'{path}' holds {listed}: not the same", None, span))
        inner = {top: shape[1:] for top, shape in shapes.items()}
        first = first or inner
        for top in feed.tops:
            if inner[top] != first[top]:
                message = f"a row of '{top}' is {inner[top]} in '{path}', but {first[top]} in "
                diagnostics.error(wrong(feed, f"{message}'{files[0][0]}'", None, span))
        rows.append(counts[feed.tops[0]])
    diagnostics.raise_if_any()
    return first, rows


def _shapes(feed: Feed, path: Path, span: Span) -> dict[str, Shape]:
    h5py = package("h5py", "hdf5", "HDF5 files", feed.span)
    found: dict[str, Shape] = {}
    try:
        with h5py.File(path, "r") as file:
            for top in feed.tops:
                dataset = file.get(top)
                if not isinstance(dataset, h5py.Dataset):
                    hint = did_you_mean(top, file) or "a dataset has the name of its top"
                    raise wrong(feed, f"'{path}' has no dataset '{top}'", hint, span)
                if dataset.dtype.kind not in "iuf":
                    raise wrong(feed, f"'{top}' of '{path}' holds {dataset.dtype}", None, span)
                if not dataset.shape or not dataset.shape[0]:
                    raise wrong(feed, f"'{top}' of '{path}' holds no rows", None, span)
                found[top] = tuple(dataset.shape)
    except _DAMAGE as error:
        raise unreadable(feed, path, span, error) from None
    return found


def unreadable(feed: Feed, path: Path, span: Span, error: Exception) -> SourceError:
    text: Any = " ".join(str(error).split())
    return wrong(feed, f"cannot read '{path}': {text:.200}", "it has to be an HDF5 file", span)
