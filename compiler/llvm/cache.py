"""Keeps object code on disk, so that a net that was compiled before starts at once."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import llvmlite

from compiler.llvm.host import Host

_KEPT = 200  # entries; the ones that were used longest ago go first
_DIGEST = hashlib.sha256().digest_size


def default_folder() -> Path | None:
    """Returns the user's folder for caches, None if there is no home."""
    inner = {"darwin": "Library/Caches", "win32": "AppData/Local"}.get(sys.platform, ".cache")
    try:
        return Path.home() / inner / "netdef" / "objects"
    except RuntimeError:
        return None


def key_of(ir: str, host: Host) -> str:
    """Returns the name of the entry: everything that decides what the compiler makes."""
    parts = ("O1", ir, llvmlite.__version__, host.name, host.features, host.triple)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def load(folder: Path | None, key: str) -> bytes | None:
    """Returns an entry, None if there is none or it is damaged."""
    if folder is None:
        return None
    try:
        content = (folder / key).read_bytes()
        os.utime(folder / key)
    except OSError:
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def save(folder: Path | None, key: str, code: bytes) -> None:
    """Writes an entry, whole or not at all; a cache that cannot be written does no harm."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(file.name, folder / key)
        entries = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in entries[_KEPT:]:
            old.unlink()
    except OSError:
        pass
