"""Goes on from Caffe's .solverstate: iteration, weights and histories as a Snapshot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from runtime.caffe_files import SolverState, read_solverstate
from runtime.caffe_hdf5 import read_solverstate_hdf5
from runtime.params import HISTORY, Blobs, fitting, lying, without_ones
from runtime.snapshot import Snapshot, read_snapshot
from runtime.weights import by_key, read_layers
from schemas.errors import SnapshotError
from schemas.program import Program
from schemas.solver import SolverSpec

Array = np.ndarray[Any, Any]


def is_solverstate(path: Path) -> bool:
    return path.name.endswith((".solverstate", ".solverstate.h5"))


def read_resume(
    path: Path, program: Program, blobs: Blobs, spec: SolverSpec, seed: int
) -> Snapshot:
    """Returns a snapshot of either kind: ours, or the one that Caffe's files make."""
    if is_solverstate(path):
        return caffe_snapshot(path, program, blobs, spec, seed)
    return read_snapshot(path)


def caffe_snapshot(
    path: Path, program: Program, blobs: Blobs, spec: SolverSpec, seed: int
) -> Snapshot:
    """Returns the snapshot that a .solverstate and the weights beside it make.

    As in Caffe, data starts from its beginning and random numbers from `seed`: the file has
    neither. Raises NetError where a file is missing, damaged or of another net or solver.
    """
    state = read_solverstate_hdf5(path) if path.suffix == ".h5" else read_solverstate(path)
    weights = _learned_net(path, state)
    given = by_key(read_layers(weights), program.layers, weights.name)
    found, _ = fitting(program, given, weights.name)
    learned = {info.key for info in program.params}
    # What Caffe's files do not have (a recurrent layer's last output) stays as it is.
    tensors = {k: a for k, a in blobs.read().items() if k not in learned and k not in found}
    tensors |= found
    tensors |= _histories(path, state, program, blobs, spec)
    return Snapshot(spec.type, state.iteration, seed, tensors)


def _learned_net(path: Path, state: SolverState) -> Path:
    """Returns the weight file: the one the state names, also where both have been moved."""
    name = re.split(r"[/\\]", state.learned_net)[-1]
    own = path.with_name(path.name.replace(".solverstate", ".caffemodel"))
    beside = path.with_name(name) if name else own
    for found in (beside, Path(state.learned_net), own):
        if found.is_file():
            return found
    message = f"{path} goes with the weights '{state.learned_net}', which are not there"
    raise SnapshotError(message, hint=f"put {beside.name} beside it")


def _histories(
    path: Path, state: SolverState, program: Program, blobs: Blobs, spec: SolverSpec
) -> dict[str, Array]:
    """Returns the solver's own states: one value for each weight, laid out like the weights."""
    keys = list(dict.fromkeys(key for layer in program.layers for key in layer.keys))
    names = [name for name in blobs.shapes if name.startswith(HISTORY)]
    need = len(keys) * max(1, len(names))
    if len(state.history) != need:
        message = (
            f"{path} has {len(state.history)} histories; {spec.type} keeps {need} "
            f"for the {len(keys)} blobs of this net"
        )
        raise SnapshotError(message, hint="it is of another net or solver; --weights starts anew")
    learned = {info.key for info in program.params}
    found: dict[str, Array] = {}
    for part, name in enumerate(names):
        flat = np.zeros(blobs.shapes[name], np.float32)
        for key, value in zip(keys, state.history[part * len(keys) :], strict=False):
            if key in learned:  # Caffe also keeps histories of running means, all zero
                _place(program, key, value, flat, path)
        found[name] = flat
    return found


def _place(program: Program, key: str, value: Array, flat: Array, path: Path) -> None:
    """Writes the history of one blob to where it lies in the block of all."""
    tensor = program.tensors[key]
    if without_ones(value.shape) != without_ones(tensor.shape):
        message = f"'{key}' has shape {tensor.shape} in the net and {value.shape} in {path}"
        raise SnapshotError(message)
    lying(tensor, flat)[...] = value.reshape(tensor.view)
