"""Writes files whole or not at all; reads and writes named arrays."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves the old content or the new, never a part.

    Raises OSError.
    """
    write_in_order({path: content})


def write_in_order(contents: Mapping[Path, bytes]) -> None:
    """Writes several files of one folder; each appears whole, in the order of the mapping.

    All are first written to temporary names and synced, so that the time between the first and
    the last name appearing is short. Raises OSError, after removing the temporary files.
    """
    temporary = {path: temporary_name(path) for path in contents}
    try:
        for path, content in contents.items():
            with open(temporary[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(temporary[path], path)
    finally:
        for left in temporary.values():
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


def temporary_name(path: Path) -> Path:
    """Returns where a file lies until it is whole. Raises OSError for `.` and `/`."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f".{path.name}.tmp")


def publish(path: Path) -> None:
    """Gives the file that was written to the temporary name of `path` its name. Raises OSError."""
    temporary = temporary_name(path)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the names of a folder durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def encode_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Returns the content of a safetensors file."""
    from safetensors import numpy  # `netdef run` writes files without it

    whole = {key: np.ascontiguousarray(a).reshape(a.shape) for key, a in arrays.items()}
    return numpy.save(whole)


def decode_arrays(content: bytes) -> dict[str, Array]:
    """Returns the arrays of a safetensors file, read-only; raises ValueError for anything else."""
    from safetensors import SafetensorError, numpy

    try:
        return dict(numpy.load(content))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"it is not a safetensors file ({error})") from None
