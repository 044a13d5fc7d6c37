"""Writes Caffe's own snapshot files beside ours, for `snapshot_format` of a solver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime.caffe_files import SolverState, caffemodel, solverstate
from runtime.caffe_hdf5 import solverstate_hdf5, weights_hdf5
from runtime.files import write_whole
from runtime.params import HISTORY, lying
from runtime.weights import by_layer
from schemas.errors import SnapshotError
from schemas.program import Program
from schemas.solver import SolverSpec

Array = np.ndarray[Any, Any]


def check_format(spec: SolverSpec) -> None:
    """Raises BackendError, before any training, where a format needs a package that is missing."""
    if spec.snapshot_format == "HDF5":
        weights_hdf5([])


def write_caffe_snapshot(
    stem: Path, spec: SolverSpec, program: Program, tensors: Mapping[str, Array], iteration: int
) -> None:
    """Writes STEM.caffemodel and STEM.solverstate (.h5 for HDF5) if the solver asks for them.

    `tensors` are those of a `Snapshot`. Raises SnapshotError.
    """
    if spec.snapshot_format == "SAFETENSORS":
        return
    hdf5 = spec.snapshot_format == "HDF5"
    end = ".h5" if hdf5 else ""
    weights, state = Path(f"{stem}.caffemodel{end}"), Path(f"{stem}.solverstate{end}")
    layers = by_layer(tensors, program.layers)
    kept = SolverState(iteration, str(weights), histories(program, tensors))
    files = {
        weights: weights_hdf5(layers) if hdf5 else caffemodel(program.name, layers),
        state: solverstate_hdf5(kept) if hdf5 else solverstate(kept),
    }
    for path, content in files.items():
        try:
            write_whole(path, content)
        except OSError as error:
            raise SnapshotError(f"cannot write {path}: {error.strerror or error}") from None


def histories(program: Program, tensors: Mapping[str, Array]) -> tuple[Array, ...]:
    """Returns what Caffe keeps: a blob for each weight, one of the solver's states after another.

    Of running means, and of plain SGD without momentum, which keep none here, Caffe has zeros.
    """
    keys = list(dict.fromkeys(key for layer in program.layers for key in layer.keys))
    names = [name for name in tensors if name.startswith(HISTORY)]
    learned = {info.key for info in program.params}
    found: list[Array] = []
    for name in names or [""]:
        for key in keys:
            if not name or key not in learned:
                found.append(np.zeros(tensors[key].shape, np.float32))
            else:
                flat = np.ascontiguousarray(tensors[name], np.float32)
                part = lying(program.tensors[key], flat)
                found.append(part.reshape(program.tensors[key].shape).copy())
    return tuple(found)
