"""Caffe's HDF5 files: weights and solver states, in and out."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.caffe_files import LayerWeights, SolverState
from runtime.packages import package
from schemas.errors import SourceError

Array = np.ndarray[Any, Any]
# What h5py raises for damaged files, by what was damaged.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError)


def read_weights_hdf5(path: Path) -> list[LayerWeights]:
    """Returns the layers of a .caffemodel.h5: /data/LAYER/0, /data/LAYER/1 ... Raises NetError.

    A name with slashes (`inception_3a/1x1`) is a group within a group.
    """
    h5py = _h5py()
    found: dict[str, dict[int, Array]] = {}

    def visit(name: str, item: Any) -> None:
        layer, _, number = name.rpartition("/")
        if isinstance(item, h5py.Dataset) and layer and number.isdecimal():
            found.setdefault(layer, {})[int(number)] = _floats(item)

    try:
        with h5py.File(path, "r") as file:
            if "data" not in file:
                raise SourceError(f"{path} holds no group /data", hint="is it a .caffemodel.h5?")
            file["data"].visititems(visit)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    return [LayerWeights(name, "", dict(sorted(blobs.items()))) for name, blobs in found.items()]


def weights_hdf5(layers: Iterable[LayerWeights]) -> bytes:
    """Returns the content of a .caffemodel.h5."""
    h5py = _h5py()
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        data = file.create_group("data")
        for layer in layers:
            group = data.require_group(layer.name)
            for number, blob in layer.blobs.items():
                group.create_dataset(str(number), data=blob)
    return stream.getvalue()


def read_solverstate_hdf5(path: Path) -> SolverState:
    """Reads a .solverstate.h5. Raises NetError."""
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            iteration = int(np.asarray(file["iter"]).reshape(-1)[0])
            learned = file["learned_net"][()] if "learned_net" in file else ""
            history = file["history"] if "history" in file else {}
            arrays = tuple(_floats(history[str(i)]) for i in range(len(history)))
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    name = learned.decode(errors="replace") if isinstance(learned, bytes) else str(learned)
    return SolverState(iteration, name.rstrip("\0"), arrays)


def solverstate_hdf5(state: SolverState) -> bytes:
    """Returns the content of a .solverstate.h5."""
    h5py = _h5py()
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["iter"] = np.int32(state.iteration)
        file["learned_net"] = np.bytes_(state.learned_net.encode())
        file["current_step"] = np.int32(0)
        group = file.create_group("history")
        for number, blob in enumerate(state.history):
            group.create_dataset(str(number), data=blob)
    return stream.getvalue()


def _floats(dataset: Any) -> Array:
    array = np.asarray(dataset)
    if array.dtype.kind != "f":
        raise ValueError(f"{dataset.name} holds {array.dtype}, not floats")
    return array


def _h5py() -> Any:
    return package("h5py", "hdf5", "HDF5 files")


def _unreadable(path: Path, error: Exception) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceError(f"there is no file {path}")
    text = " ".join(str(error).split())
    return SourceError(f"cannot use {path}: {text:.200}", hint="it has to be an HDF5 file")
