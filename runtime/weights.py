"""Weight files: safetensors by key, Caffe's .caffemodel and .caffemodel.h5 by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.caffe_files import LayerWeights, caffemodel, read_caffemodel
from runtime.caffe_hdf5 import read_weights_hdf5, weights_hdf5
from runtime.executable import Executable, Memory
from runtime.files import decode_arrays, encode_arrays, write_whole
from runtime.params import assign_weights, read_weights
from schemas.errors import Diagnostics, SourceError, near
from schemas.params import LayerBlobs

Array = np.ndarray[Any, Any]
CAFFE, HDF5, SAFETENSORS = "caffemodel", "hdf5", "safetensors"
_EXTENSIONS = {".caffemodel": CAFFE, ".h5": HDF5, ".hdf5": HDF5, ".safetensors": SAFETENSORS}


def format_of(path: Path) -> str | None:
    """Returns which kind of weight file a name means, None where it says nothing."""
    return _EXTENSIONS.get(path.suffix.lower())


def weight_files(text: str | Path) -> list[Path]:
    """Returns the files of a list with commas; a file whose name has a comma is itself."""
    if isinstance(text, Path) or "," not in text or Path(text).is_file():
        return [Path(text)]
    return [Path(part.strip()) for part in text.split(",") if part.strip()]


def save_weights(exe: Executable, path: Path) -> None:
    """Writes the net's weights, whole or not at all: .caffemodel, .h5, else safetensors.

    Raises SourceError.
    """
    weights = read_weights(exe)
    if format_of(path) in (CAFFE, HDF5):
        write_layers(path, by_layer(weights, exe.program.layers), exe.program.name)
    else:
        write_weight_file(path, weights)


def load_weights(exe: Memory, path: Path) -> list[str]:
    """Loads a weight file (a snapshot's too) by layer name, and Caffe's also by blob number.

    Returns a warning for each layer that only the file or only the net has. Raises SourceError for
    a file that cannot be read or does not fit (see `assign_weights`); then nothing is changed.
    """
    return assign_weights(exe, read_keyed(path, exe.program.layers), path.name)


def read_keyed(path: Path, layers: Sequence[LayerBlobs]) -> dict[str, Array]:
    """Returns the blobs of a weight file by key; the net's layers tell it for Caffe's files."""
    if format_of(path) in (CAFFE, HDF5):
        return by_key(read_layers(path), layers, path.name)
    return read_weight_file(path)


def by_key(
    given: Sequence[LayerWeights], layers: Sequence[LayerBlobs], origin: str
) -> dict[str, Array]:
    """Returns a file's blobs under the keys of the net's layers of the same names.

    The blobs of a layer that the net does not have are called LAYER/NUMBER, for messages. Raises
    SourceErrors where a layer of both has another number of blobs.
    """
    known = {layer.layer: layer.keys for layer in layers}
    found: dict[str, Array] = {}
    for one in given:
        keys = known.get(one.name, ())
        for number, blob in one.blobs.items():
            found[keys[number] if number < len(keys) else f"{one.name}/{number}"] = blob
    diagnostics = Diagnostics()
    for one in given:
        keys = known.get(one.name, ())
        # HDF5 files leave out blobs that another layer owns.
        missing = [k for i, k in enumerate(keys) if i not in one.blobs and k not in found]
        if one.blobs and one.name in known and (missing or max(one.blobs) >= len(keys)):
            has = ", ".join(f"'{key}'" for key in keys) or "none"
            count = f"{len(one.blobs)} blob{'s' * (len(one.blobs) != 1)}"
            message = f"{origin}: layer '{one.name}' has {count}; in the net it has {has}"
            hint = f"to train this layer anew, give it a name other than '{one.name}' in the net"
            diagnostics.error(SourceError(message, hint=hint))
    diagnostics.raise_if_any()
    return found


def by_layer(weights: Mapping[str, Array], layers: Sequence[LayerBlobs]) -> list[LayerWeights]:
    """Returns weights as Caffe's files have them: every layer with all of its blobs."""
    return [
        LayerWeights(one.layer, one.type, {i: weights[k] for i, k in enumerate(one.keys)})
        for one in layers
    ]


def read_layers(path: Path) -> list[LayerWeights]:
    """Returns the layers of a .caffemodel or .caffemodel.h5. Raises NetError."""
    return read_weights_hdf5(path) if format_of(path) == HDF5 else read_caffemodel(path)[1]


def write_layers(path: Path, layers: Sequence[LayerWeights], name: str) -> None:
    """Writes a .caffemodel or .caffemodel.h5. Raises NetError."""
    hdf5 = format_of(path) == HDF5
    _write(path, weights_hdf5(layers) if hdf5 else caffemodel(name, layers))


def write_weight_file(path: Path, weights: Mapping[str, Array]) -> None:
    """Writes arrays by key to a safetensors file. Raises SourceError."""
    _write(path, encode_arrays(weights))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise SourceError(f"cannot write {path}: {error.strerror or error}") from None


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
