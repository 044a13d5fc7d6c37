"""What a caller gives: arrays of numbers, of the shape of a blob, or files of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import SourceError, UsageError, did_you_mean

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
_BEGINNINGS = (b"\x93NUMPY", b"PK")  # of .npy and .npz


def numbers(name: str, value: Any) -> Array:
    """Returns what was given for a blob as an array of real numbers. Raises UsageError."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and array.ndim:  # numbers of several kinds; None is none
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        given = f" of {array.dtype}" if isinstance(value, np.ndarray) else ""
        raise UsageError(f"'{name}' must be an array of numbers, not {type(value).__name__}{given}")
    return array


def shaped(name: str, value: Any, shape: Shape) -> Array:
    """Returns it as an array of this shape; a single number may have any. Raises UsageError."""
    array = numbers(name, value)
    if array.shape != shape and not (array.size == 1 == np.prod(shape, dtype=int)):
        raise UsageError(f"'{name}' has shape {shape}, not {array.shape}")
    return array.reshape(shape)


def read_array(path: Path, name: str) -> Array:
    """Returns the array of a .npy file, or the one called `name`, `data` or alone in an .npz."""
    try:
        with path.open("rb") as file:  # what begins otherwise, NumPy takes for pickled
            if not file.read(6).startswith(_BEGINNINGS):
                raise SourceError(f"cannot read {path}: it is neither .npy nor .npz")
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            for key in (name, "data", "x_test", *(found.files if len(found.files) == 1 else ())):
                if key in found.files:
                    return np.asarray(found[key])
            hint = did_you_mean(name, found.files)
            raise SourceError(f"{path} holds no array '{name}'", hint=hint)
    except FileNotFoundError:
        raise UsageError(f"there is no file '{path}'") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"cannot read {path}: {error}") from None
