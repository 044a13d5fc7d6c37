"""The blobs of a net's layers as Python sees them: net.params and net.grads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from netdef.arrays import shaped
from runtime.executable import Executable
from schemas.errors import UsageError, did_you_mean

Array = np.ndarray[Any, Any]


class UnknownName(UsageError, KeyError):
    """A name that the net does not have; a KeyError, so that `in` and `get` work as in a dict."""


class Blob(np.ndarray[Any, Any]):
    """A copy of a blob; what is assigned to elements of it is written to the net as well.

    >>> net.params["conv1"]["weight"][0] = 0
    """

    _write: Callable[[Array], None] | None = None

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        if self._write is not None:
            self._write(np.asarray(self))


class Blobs(Mapping[str, Array]):
    """The blobs of one layer by name, in Caffe's order; reading copies, assigning writes.

    >>> net.params["conv1"]["weight"] = np.zeros((20, 1, 5, 5))
    """

    def __init__(self, exe: Executable, keys: Mapping[str, str], prefix: str = "") -> None:
        self._exe = exe
        self._keys = keys
        self._prefix = prefix

    def _key(self, name: str) -> str:
        if name not in self._keys:
            raise UnknownName(f"no blob '{name}'", hint=did_you_mean(str(name), self._keys))
        return self._prefix + self._keys[name]

    def __getitem__(self, name: str) -> Array:
        key = self._key(name)
        blob = self._exe.read(key).view(Blob)
        blob._write = partial(self._exe.write, key)
        return blob

    def __setitem__(self, name: str, value: Array) -> None:
        key = self._key(name)
        self._exe.write(key, shaped(key, value, self._exe.program.tensors[key].shape))

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        shapes = {name: self._exe.program.tensors[self._key(name)].shape for name in self}
        return f"Blobs({shapes})"


class Layers(Mapping[str, Blobs]):
    """The blobs of all layers that have any, by layer; assigning sets those that are given.

    >>> net.params["ip2"] = {"weight": weight, "bias": bias}
    """

    def __init__(
        self, exe: Executable, keys: Mapping[str, Mapping[str, str]], prefix: str = ""
    ) -> None:
        self._layers = {layer: Blobs(exe, own, prefix) for layer, own in keys.items()}

    def __getitem__(self, name: str) -> Blobs:
        if name not in self._layers:
            message = f"no layer '{name}' with learned blobs"
            raise UnknownName(message, hint=did_you_mean(str(name), self._layers))
        return self._layers[name]

    def __setitem__(self, name: str, values: object) -> None:
        blobs = self[name]
        if not isinstance(values, Mapping):
            listed = ", ".join(f"'{blob}': ..." for blob in blobs)
            raise UsageError(f"'{name}' takes its blobs by name", hint=f"give {{{listed}}}")
        for blob, value in values.items():
            blobs[blob] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Layers({self._layers})"
