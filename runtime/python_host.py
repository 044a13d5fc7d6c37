"""Runs a Python layer: values in, its methods, values out; mistakes with their place."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from runtime.python_layer import Blob, BlobVec, Phase
from runtime.python_modules import Surroundings
from schemas.errors import NetError, ShapeError
from schemas.host import Array, Host, HostSpec, LayerError, Shape

STATIC = "netdef compiles a net for the shapes of the first reshape; use another batch or crop size"


class PythonLayers:
    """Opens the Python layers of the net in a file: `NetSpec.python` where they may run."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._around: Surroundings | None = None

    def __call__(self, spec: HostSpec) -> Host:
        self._around = self._around or Surroundings(self._folder)
        return PythonHost(spec, self._around)


class PythonHost:
    """One layer of one net (see `schemas.host.Host`).

    Its blobs are its own: what it was given and what it made stay as they are until its next call,
    as in Caffe, wherever the compiler keeps them meanwhile.
    """

    def __init__(self, spec: HostSpec, around: Surroundings) -> None:
        self._spec, self._around = spec, around
        with around.active():
            try:
                self._layer = around.class_of(spec)()
            except NetError:
                raise
            except Exception as error:
                self._raise(error, f"module '{spec.module}'")
        self._layer.param_str = spec.param_str
        self._layer.param_str_ = spec.param_str  # type: ignore[attr-defined]  # its older name
        self._layer.phase = Phase[spec.phase]
        self._layer.blobs = BlobVec()
        self._bottoms = [Blob(shape) for _, shape in spec.bottoms]
        known = dict(zip((name for name, _ in spec.bottoms), self._bottoms, strict=True))
        self._tops = [known.get(name) or Blob() for name in spec.tops]  # in place: one blob
        self._call("setup", self._bottoms, self._tops)
        self._call("reshape", self._bottoms, self._tops)
        for name, blob in zip(spec.tops, self._tops, strict=True):
            if not blob.count:
                hint = f"its reshape says it: top[{spec.tops.index(name)}].reshape(...)"
                self._mistake(f"leaves its top '{name}' without elements", hint)
        self._shapes = self._all_shapes()
        self._require_bottoms()

    @property
    def tops(self) -> tuple[Shape, ...]:
        return tuple(blob.shape for blob in self._tops)

    @property
    def blobs(self) -> tuple[Array, ...]:
        return tuple(np.array(blob.data) for blob in self._layer.blobs)

    def forward(self, values: Array) -> Array:
        parts = [blob.data for blob in (*self._bottoms, *self._layer.blobs)]
        _fill(parts, values)
        self._call("reshape", self._bottoms, self._tops)
        self._require_shapes()
        self._call("forward", self._bottoms, self._tops)
        self._require_shapes()
        learned = sum(blob.count for blob in self._layer.blobs)
        now = _flat(blob.data for blob in self._layer.blobs)
        if learned and not np.array_equal(now, values[values.size - learned :], equal_nan=True):
            hint = "numbers that the layer itself changes belong in attributes of its own"
            self._mistake("changes self.blobs in forward; they are the solver's to change", hint)
        return self.made()

    def backward(self, gradient: Array, wanted: Sequence[bool]) -> Array:
        for blob in (*self._bottoms, *self._layer.blobs):
            blob.diff[...] = 0
        _fill([blob.diff for blob in self._tops], gradient)
        down = [bool(one) for one in wanted[: len(self._bottoms)]]
        self._call("backward", self._tops, down, self._bottoms)
        self._require_shapes()
        return _flat(blob.diff for blob in (*self._bottoms, *self._layer.blobs))

    def again(self) -> Host:
        return _Again(self)

    def made(self) -> Array:
        """Returns the tops as the last forward left them."""
        return _flat(blob.data for blob in self._tops)

    def _all_shapes(self) -> list[tuple[str, Shape]]:
        named = [
            ("bottom", name, b)
            for (name, _), b in zip(self._spec.bottoms, self._bottoms, strict=True)
        ]
        named += [("top", name, b) for name, b in zip(self._spec.tops, self._tops, strict=True)]
        named += [("blob", str(i), b) for i, b in enumerate(self._layer.blobs)]
        return [(f"{kind} '{name}'", blob.shape) for kind, name, blob in named]

    def _require_bottoms(self) -> None:
        for (name, shape), blob in zip(self._spec.bottoms, self._bottoms, strict=True):
            if blob.shape != shape and name not in self._spec.tops:
                self._mistake(f"reshapes its bottom '{name}' from {shape} to {blob.shape}")
            if name in self._spec.tops and blob.data.size != np.prod(shape):
                self._mistake(f"works in place on '{name}' {shape}, but makes {blob.shape} of it")

    def _require_shapes(self) -> None:
        now = self._all_shapes()
        for (what, before), (_, after) in zip(self._shapes, now, strict=False):
            if before != after:
                self._mistake(f"changes the shape of its {what} from {before} to {after}", STATIC)
        if len(now) != len(self._shapes):
            self._mistake("adds to self.blobs after its setup")

    def _call(self, method: str, *args: Sequence[Blob] | Sequence[bool]) -> None:
        with self._around.active():
            try:
                getattr(self._layer, method)(*args)
            except Exception as error:
                self._raise(error, f"{method} of '{self._spec.cls}'")

    def _raise(self, error: Exception, what: str) -> NoReturn:
        kind, said = type(error).__name__, str(error)
        message = f"layer '{self._spec.layer}' (Python): {what} raised {kind}"
        message += f": {said}" if said else ""
        raise LayerError(message, self._spec.span, _trace(error)) from error

    def _mistake(self, message: str, hint: str | None = None) -> NoReturn:
        who = f"layer '{self._spec.layer}' (Python): '{self._spec.cls}' "
        raise ShapeError(who + message, self._spec.span, hint)


class _Again:
    """A layer in a pass that repeats its last forward for the sake of a backward."""

    def __init__(self, host: PythonHost) -> None:
        self._host = host

    @property
    def tops(self) -> tuple[Shape, ...]:
        return self._host.tops

    @property
    def blobs(self) -> tuple[Array, ...]:
        return self._host.blobs

    def forward(self, values: Array) -> Array:
        return self._host.made()

    def backward(self, gradient: Array, wanted: Sequence[bool]) -> Array:
        return self._host.backward(gradient, wanted)

    def again(self) -> Host:
        return self


def _trace(error: Exception) -> str:
    """Returns the way to an error through the user's files, as Python prints it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = str(Path(__file__).parent)
    inside = [frame for frame in frames if not frame.filename.startswith((own, "<frozen"))]
    lines = traceback.format_list(inside)
    if isinstance(error, SyntaxError):  # its place is not on the way to it
        lines += traceback.format_exception_only(error)[:-1]
    return "".join(lines).rstrip("\n")


def _fill(arrays: Iterable[Array], values: Array) -> None:
    at = 0
    for array in arrays:
        array[...] = values[at : at + array.size].reshape(array.shape)
        at += array.size


def _flat(arrays: Iterable[Array]) -> Array:
    """Returns the arrays as one block; of a single one, its own memory."""
    parts = [np.ravel(array) for array in arrays]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
