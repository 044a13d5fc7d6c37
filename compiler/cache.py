"""Keeps what was compiled on disk, so that a net that was compiled before starts at once."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DIGEST = hashlib.sha256().digest_size


def default_folder() -> Path | None:
    """Returns the user's folder for caches, None if there is no home."""
    inner = {"darwin": "Library/Caches", "win32": "AppData/Local"}.get(sys.platform, ".cache")
    try:
        return Path.home() / inner / "netdef"
    except RuntimeError:
        return None


@dataclass(frozen=True, slots=True)
class Cache:
    """Entries by key, in a folder of their own (None: nothing is kept), up to `limit` bytes.

    An entry is written whole or not at all and carries a digest: whatever stops a writer, however
    many write at once, a reader finds the entry or none. A folder that cannot be written does no
    harm.
    """

    folder: Path | None
    limit: int = 256 << 20

    def load(self, key: str) -> bytes | None:
        """Returns an entry, None if there is none or it is damaged."""
        if self.folder is None:
            return None
        path = self.folder / key
        try:
            content = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # of a folder that is read-only
            os.utime(path)
        digest, entry = content[:_DIGEST], content[_DIGEST:]
        return entry if hashlib.sha256(entry).digest() == digest else None

    def save(self, entries: Mapping[str, bytes]) -> None:
        """Adds entries; those that were used longest ago make room for them."""
        if self.folder is None or not entries:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for key, entry in entries.items():
                self._write(self.folder / key, hashlib.sha256(entry).digest() + entry)
            self._trim(self.folder)

    def _write(self, path: Path, content: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _trim(self, folder: Path) -> None:
        found = []
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):  # another process trims, too
                stat = entry.stat()
                found.append((stat.st_mtime_ns, stat.st_size, entry.path))
        total = 0
        for _, size, path in sorted(found, reverse=True):
            total += size
            if total > self.limit:
                with suppress(FileNotFoundError):
                    os.unlink(path)
