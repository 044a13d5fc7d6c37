"""Reads Caffe's databases: LMDB folders of Datum messages, in the order of their keys."""

from __future__ import annotations

import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from runtime.data.datum import Item, read_datum
from runtime.data.places import wrong
from runtime.data.records import Array, Shape
from runtime.packages import package
from schemas.errors import SourceError
from schemas.params import Feed

LEVELDB_HINT = (
    "turn it into an LMDB: convert_imageset --backend=lmdb makes one from the pictures, and "
    "docs/data.md shows how to copy one record by record"
)


def is_database(path: Path) -> bool:
    """Returns whether a path is a folder with an LMDB or a LevelDB in it."""
    return (path / "data.mdb").is_file() or (path / "CURRENT").is_file()


class Database:
    """One open LMDB, read-only; train and test nets that read the same one share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lmdb = package("lmdb", "lmdb", "LMDB databases")
        # No lock: it may lie on a disk that cannot be written, and nobody writes to it meanwhile.
        self.env = lmdb.open(
            str(path), readonly=True, lock=False, create=False, readahead=True, max_spare_txns=4
        )

    @cached_property
    def keys(self) -> list[bytes]:
        """All keys in order; found once, without reading the values."""
        with self.env.begin() as transaction:
            return list(transaction.cursor().iternext(keys=True, values=False))

    def first(self) -> tuple[bytes, bytes] | None:
        with self.env.begin() as transaction:
            return next(iter(transaction.cursor()), None)

    def __del__(self) -> None:
        if hasattr(self, "env"):
            self.env.close()


# By device and number of the file: one that is replaced is another database.
_open: weakref.WeakValueDictionary[tuple[int, int], Database] = weakref.WeakValueDictionary()


def open_database(feed: Feed, path: Path) -> Database:
    """Returns the database at a path. Raises SourceError or BackendError."""
    file = path / "data.mdb"
    if not file.is_file():
        raise wrong(feed, f"'{path}' is a LevelDB, which nothing reads here", LEVELDB_HINT)
    key = (file.stat().st_dev, file.stat().st_ino)
    found = _open.get(key)
    if found is None:
        lmdb = package("lmdb", "lmdb", "LMDB databases", feed.span)
        try:
            found = _open[key] = Database(path)
            empty = found.first() is None
        except lmdb.Error as error:
            raise unreadable(feed, path, error) from None
        if empty:
            raise wrong(feed, f"the database '{path}' holds no records")
    return found


def unreadable(feed: Feed, path: Path, error: Exception) -> SourceError:
    text = " ".join(str(error).split())
    return wrong(feed, f"cannot read the database '{path}': {text:.200}", "is it an LMDB?")


class DatabaseRecords:
    """The Datums of a database as records; they are read when they are asked for."""

    label: Array | None = None  # nobody knows them all without reading everything

    def __init__(self, feed: Feed, path: Path) -> None:
        self.feed = feed
        self.path = path
        self.database = open_database(feed, path)
        options = feed.options
        self.labelled = len(feed.tops) > 1
        colored = bool(options.get("force_color") or options.get("force_encoded_color"))
        self.color = True if colored else False if options.get("force_gray") else None

    def __len__(self) -> int:
        return len(self.database.keys)

    def item(self) -> Shape:
        first = self.database.first()
        assert first is not None
        return tuple(self._parsed(*first).data.shape)

    def name(self, number: int) -> str:
        return _name(self.path, self.database.keys[number])

    def take(self, chosen: Array) -> tuple[list[Array], Array | None]:
        items: list[Item] = []
        lmdb: Any = package("lmdb", "lmdb", "LMDB databases")
        try:
            with self.database.env.begin(buffers=True) as transaction:
                for number in chosen:
                    key = self.database.keys[number]
                    items.append(self._parsed(key, transaction.get(key)))
        except lmdb.Error as error:
            raise unreadable(self.feed, self.path, error) from None
        labels = np.array([item.label for item in items], np.float32) if self.labelled else None
        return [item.data for item in items], labels

    def _parsed(self, key: bytes, record: bytes | memoryview) -> Item:
        try:
            return read_datum(record, self.color)
        except ValueError as error:
            message = f"{_name(self.path, key)} cannot be read: {error}"
            raise wrong(self.feed, message) from None


def _name(path: Path, key: bytes) -> str:
    return f"record '{key.decode(errors='backslashreplace')}' of the database '{path}'"
