"""Reads the tables of fixed numbers that a layer names by a file: .binaryproto, .npy or .npz."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from runtime.caffe_files import read_binaryproto
from schemas.errors import SourceError
from schemas.params import StateInfo

Array = np.ndarray[Any, Any]


def read_table(info: StateInfo) -> Array:
    """Returns the numbers of `info.source`, in the shape of the state.

    A path is relative to the net's folder, else to the working one. Raises SourceError.
    """
    places = [folder / info.source for folder in (Path(info.span.file).parent, Path())]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        hint = "paths are relative to the net's file"
        raise SourceError(f"'{info.key}': there is no file '{info.source}'", info.span, hint)
    try:
        found = load_array(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise SourceError(f"'{info.key}': cannot read '{path}': {error}", info.span) from None
    except SourceError as error:
        raise SourceError(f"'{info.key}': {error.message}", info.span, error.hint) from None
    if found.size != np.prod(info.shape):
        message = f"'{info.key}': '{path}' has {found.size} numbers, not {info.shape}"
        raise SourceError(message, info.span)
    return found.reshape(info.shape).astype(np.float32)


def load_array(path: Path) -> Array:
    """Returns the one array of a file. Raises SourceError, or what NumPy raises for damage."""
    if path.suffix not in (".npy", ".npz"):
        return read_binaryproto(path)
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if len(loaded.files) != 1:
            raise ValueError(f"it holds {len(loaded.files)} arrays, not one")
        only: Array = loaded[loaded.files[0]]
        return only
