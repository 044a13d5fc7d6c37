"""Weight files: safetensors with the blobs of a net by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime.executable import Executable
from runtime.files import decode_arrays, encode_arrays, write_whole
from runtime.params import assign_weights, read_weights
from schemas.errors import SourceError, near

Array = np.ndarray[Any, Any]


def save_weights(exe: Executable, path: Path) -> None:
    """Writes the net's weights to a safetensors file, whole or not at all. Raises SourceError."""
    write_weight_file(path, read_weights(exe))


def write_weight_file(path: Path, weights: Mapping[str, Array]) -> None:
    """Writes arrays by key to a safetensors file. Raises SourceError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, encode_arrays(weights))
    except OSError as error:
        raise SourceError(f"cannot write {path}: {error.strerror or error}") from None


def load_weights(exe: Executable, path: Path) -> list[str]:
    """Loads a safetensors file (a snapshot's too) by layer name.

    Returns a warning for each layer that only the file or only the net has. Raises SourceError for
    a file that cannot be read or does not fit (see `assign_weights`); then nothing is changed.
    """
    return assign_weights(exe, read_weight_file(path), path.name)


def read_weight_file(path: Path) -> dict[str, Array]:
    """Returns the arrays of a safetensors file by key. Raises SourceError."""
    try:
        return decode_arrays(path.read_bytes())
    except FileNotFoundError:
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        match = near(path.name, names)
        hint = f"did you mean '{path.with_name(match)}'?" if match else None
        raise SourceError(f"there is no weight file {path}", hint=hint) from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise SourceError(f"cannot use {path}: {error}") from None
