"""Learned blobs and states of an executable: first values, copies, assignment by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.executable import Executable
from runtime.fillers import fill
from schemas.errors import Diagnostics, SourceError, did_you_mean
from schemas.net import NOWHERE
from schemas.program import Program
from schemas.span import Span

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Blobs:
    """All learned blobs and states of the programs that train one net, each once.

    A blob that several programs hold is one block of memory; the first of them reads and writes it.
    """

    def __init__(self, exes: Sequence[Executable]) -> None:
        self._owners: dict[str, Executable] = {}
        self.shapes: dict[str, Shape] = {}
        for exe in exes:
            shapes = {info.key: info.shape for info in exe.program.params}
            shapes |= {state.key: state.shape for state in exe.program.states}
            for key, shape in shapes.items():
                self._owners.setdefault(key, exe)
                self.shapes.setdefault(key, shape)

    def read(self) -> dict[str, Array]:
        """Returns a copy of each, by key."""
        return {key: exe.read(key) for key, exe in self._owners.items()}

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Sets those named in `arrays`."""
        for key, array in arrays.items():
            self._owners[key].write(key, array)


def initialise(exe: Executable, seed: int) -> None:
    """Gives every learned blob the values of its filler, and every state its first value."""
    for info in exe.program.params:
        exe.write(info.key, fill(info, seed))
    for state in exe.program.states:
        exe.write(state.key, np.full(state.shape, state.fill, np.float32))


def is_history(key: str, keys: Mapping[str, Any]) -> bool:
    """Returns whether `key` is a solver's history of a blob in `keys`: `conv1/weight/momentum`."""
    return key.rpartition("/")[0] in keys


def weight_shapes(program: Program) -> dict[str, Shape]:
    """Returns the shapes of what a weight file holds: learned blobs and the net's own states.

    Running means belong to the net; a solver's history of a learned blob does not.
    """
    shapes = {info.key: info.shape for info in program.params}
    states = {s.key: s.shape for s in program.states if not is_history(s.key, shapes)}
    return shapes | states


def read_weights(exe: Executable) -> dict[str, Array]:
    """Returns a copy of every blob that a weight file holds, by key."""
    return {key: exe.read(key) for key in weight_shapes(exe.program)}


def copy_weights(source: Executable, target: Executable) -> list[str]:
    """Copies weights by name from one net to another; returns what `assign_weights` does."""
    return assign_weights(target, read_weights(source), source.program.name)


def assign_weights(exe: Executable, weights: Mapping[str, Array], origin: str) -> list[str]:
    """Writes weights to the layers of the same names, by Caffe's rules.

    `weights` are arrays by key (`conv1/weight`), `origin` names their file in messages. Layers that
    only one side has are left alone; a warning is returned for each. Leading axes of one element
    do not count: old Caffe files hold (1, 1, O, I) for (O, I). Histories of a solver are skipped.

    Raises SourceError (or NetErrors with all of them), before anything is written, where a layer
    of both sides has blobs of other names or shapes.
    """
    shapes = weight_shapes(exe.program)
    given = {key: a for key, a in weights.items() if not is_history(key, weights)}
    spans = {info.key: info.span for info in exe.program.params}
    ours = {_layer(key) for key in shapes}
    theirs = {_layer(key): None for key in given}  # a dict keeps the order
    diagnostics = Diagnostics()
    for key, array in given.items():
        if _layer(key) in ours:
            _check(key, array.shape, shapes, origin, spans.get(key, NOWHERE), diagnostics)
    learned = {info.key for info in exe.program.params}
    for key in shapes.keys() & learned:
        if _layer(key) in theirs and key not in given:
            message = f"{origin} has layer '{_layer(key)}' without its blob '{key}'"
            diagnostics.error(SourceError(message, spans[key], _rename(key)))
    diagnostics.raise_if_any()
    for key, array in given.items():
        if key in shapes:
            exe.write(key, np.ascontiguousarray(array, np.float32).reshape(shapes[key]))
    ignored = [
        f"{origin}: layer '{name}' ignored: not in the net" for name in theirs if name not in ours
    ]
    kept = [f"layer '{name}' keeps its first values: not in {origin}" for name in ours - {*theirs}]
    return sorted(ignored) + sorted(kept)


def _check(
    key: str,
    shape: Shape,
    shapes: Mapping[str, Shape],
    origin: str,
    span: Span,
    diagnostics: Diagnostics,
) -> None:
    if key not in shapes:
        message = f"{origin} holds '{key}', which layer '{_layer(key)}' of the net does not have"
        hint = did_you_mean(key, [k for k in shapes if _layer(k) == _layer(key)])
        diagnostics.error(SourceError(message, span, hint or _rename(key)))
    elif _without_ones(shape) != _without_ones(shapes[key]):
        message = f"'{key}' has shape {shapes[key]} in the net and {shape} in {origin}"
        diagnostics.error(SourceError(message, span, _rename(key)))


def _layer(key: str) -> str:
    return key.rpartition("/")[0] or key


def _rename(key: str) -> str:
    return f"to train this layer anew, give it a name other than '{_layer(key)}' in the net"


def _without_ones(shape: Shape) -> Shape:
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return tuple(shape[first:])
