"""Learned blobs and states of an executable: first values, copies, assignment by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.executable import Executable, Memory
from runtime.fillers import fill
from runtime.tables import read_table
from schemas.errors import Diagnostics, SourceError, did_you_mean
from schemas.program import Program, Tensor
from schemas.span import Span

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
HISTORY = "history:"  # before the names of the solver's own states in a snapshot


class Blobs:
    """All learned blobs and states of the programs that train one net, each once.

    A blob that several programs hold is one block of memory; the first of them reads and writes it.
    What is no weight (momentum, carried states) has HISTORY before its name, so that no layer can
    be taken for it. Of `tests`, nets that read these weights, only what they carry counts.
    """

    def __init__(self, exes: Sequence[Executable], tests: Sequence[Executable] = ()) -> None:
        self._owners: dict[str, tuple[Executable, str]] = {}
        self.shapes: dict[str, Shape] = {}
        self.tested: list[str] = []  # what the tests carry
        for exe in exes:
            weights = weight_shapes(exe.program)
            history = [s for s in exe.program.states if s.key not in weights and not s.source]
            shapes = {key: (key, shape) for key, shape in weights.items()}
            shapes |= {HISTORY + s.key: (s.key, s.shape) for s in history}
            for name, (key, shape) in shapes.items():
                self._owners.setdefault(name, (exe, key))
                self.shapes.setdefault(name, shape)
        for number, exe in enumerate(tests):
            for s in exe.program.states:
                if s.carried:
                    name = f"{HISTORY}test{number}/{s.key}"
                    self._owners[name], self.shapes[name] = (exe, s.key), s.shape
                    self.tested.append(name)

    def read(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Returns a copy of each, or of those that are named."""
        chosen = {n: self._owners[n] for n in (self._owners if names is None else names)}
        return {name: exe.read(key) for name, (exe, key) in chosen.items()}

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Sets those named in `arrays`."""
        for name, array in arrays.items():
            exe, key = self._owners[name]
            exe.write(key, array)


def initialise(exe: Memory, seed: int, first: Mapping[str, Array] | None = None) -> None:
    """Gives every learned blob the values of its filler, and every state its first value.

    Blobs in `first` get the values there: a Python layer sets its own.
    """
    for info in exe.program.params:
        given = (first or {}).get(info.key)
        exe.write(info.key, fill(info, seed) if given is None else given)
    for state in exe.program.states:
        if state.source:
            exe.write(state.key, read_table(state))
        else:
            exe.write(state.key, np.broadcast_to(np.float32(state.fill), state.shape))


def weight_shapes(program: Program) -> dict[str, Shape]:
    """Returns the shapes of what a weight file holds: learned blobs and the net's own states.

    A layer's states (a running mean) are named LAYER/STATE; those of the solver, such as the
    momentum, have a bare name and are no weights. What comes from a file of its own is none either,
    nor is what a batch leaves to the next one.
    """
    shapes = {info.key: info.shape for info in program.params}
    kept = (s for s in program.states if "/" in s.key and not (s.source or s.carried))
    return shapes | {s.key: s.shape for s in kept}


def read_weights(exe: Executable) -> dict[str, Array]:
    """Returns a copy of every blob that a weight file holds, by key."""
    return {key: exe.read(key) for key in weight_shapes(exe.program)}


def assign_weights(exe: Memory, weights: Mapping[str, Array], origin: str) -> list[str]:
    """Writes weights to the layers of the same names (see `fitting`); returns the warnings."""
    arrays, warnings = fitting(exe.program, weights, origin)
    for key, array in arrays.items():
        exe.write(key, array)
    return warnings


def fitting(
    program: Program, weights: Mapping[str, Array], origin: str
) -> tuple[dict[str, Array], list[str]]:
    """Returns those of the weights that belong to the net, in its shapes, by Caffe's rules.

    `weights` are arrays by key (`conv1/weight`), `origin` names their file in messages. Layers that
    only one side has are left alone; a warning is returned for each. Leading axes of one element
    do not count: old Caffe files hold (1, 1, O, I) for (O, I). Histories of a solver are skipped.

    Raises SourceError (or NetErrors with all of them) where a layer of both sides has blobs of
    other names or shapes. A state that does not fit (a recurrent layer's last output, of another
    batch size) is left alone, with a warning.
    """
    shapes = weight_shapes(program)
    # A running mean that does not fit is as wrong as a weight.
    learned: dict[str, Span | None] = {key: None for one in program.layers for key in one.keys}
    learned |= {info.key: info.span for info in program.params}
    given = {key: a for key, a in weights.items() if not key.startswith(HISTORY)}
    ours = {_layer(key) for key in shapes}
    theirs = {_layer(key) for key in given}
    diagnostics = Diagnostics()
    for key, array in given.items():
        if _layer(key) in ours:
            _check(key, array.shape, shapes, learned, origin, diagnostics)
    for key, span in learned.items():
        if _layer(key) in theirs and key not in given:
            message = f"{origin} has layer '{_layer(key)}' without its blob '{key}'"
            diagnostics.error(SourceError(message, span, _rename(key)))
    diagnostics.raise_if_any()
    arrays = {
        key: np.ascontiguousarray(array, np.float32).reshape(shapes[key])
        for key, array in given.items()
        if key in shapes and without_ones(array.shape) == without_ones(shapes[key])
    }
    ignored = [f"{origin}: layer '{name}' ignored: not in the net" for name in theirs - ours]
    kept = [f"layer '{name}' keeps its first values: not in {origin}" for name in ours - theirs]
    return arrays, sorted(ignored) + sorted(kept) + [w.message for w in diagnostics.warnings]


def _check(
    key: str,
    shape: Shape,
    shapes: Mapping[str, Shape],
    learned: Mapping[str, Span | None],
    origin: str,
    diagnostics: Diagnostics,
) -> None:
    """Notes an error for a blob of a known layer that does not fit, a warning for a state."""
    if key not in shapes:
        message = f"{origin} holds '{key}', which layer '{_layer(key)}' of the net does not have"
        hint = did_you_mean(key, [k for k in shapes if _layer(k) == _layer(key)])
        diagnostics.error(SourceError(message, hint=hint or _rename(key)))
    elif without_ones(shape) != without_ones(shapes[key]):
        message = f"'{key}' has shape {shapes[key]} in the net and {shape} in {origin}"
        if key in learned:
            diagnostics.error(SourceError(message, learned[key], _rename(key)))
        else:
            diagnostics.warn(SourceError(f"{message}: not loaded"))


def _layer(key: str) -> str:
    return key.rpartition("/")[0] or key


def _rename(key: str) -> str:
    return f"to train this layer anew, give it a name other than '{_layer(key)}' in the net"


def lying(tensor: Tensor, flat: Array) -> Array:
    """Returns the part of a float32 block of all learned blobs that belongs to one of them.

    It has the shape `tensor.view`, and shares the block's memory.
    """
    steps = tuple(4 * step for step in tensor.strides)
    return np.ndarray(tensor.view, np.float32, flat.data, tensor.offset, steps)


def without_ones(shape: Shape) -> Shape:
    """Returns a shape without its leading axes of one element, which old files have added."""
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return tuple(shape[first:])
