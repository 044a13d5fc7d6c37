"""What a layer written in Python derives from and works on: PythonLayer, Blob."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Phase(IntEnum):
    """`self.phase`: a number for `== caffe.TEST`, a name for `str(self.phase)`, as in pycaffe."""

    TRAIN = 0
    TEST = 1

    def __str__(self) -> str:
        return self.name


class Blob:
    """An array of f32 and its gradient, in Caffe's axis order; write to them with `[...] =`."""

    def __init__(self, shape: Shape | None = None) -> None:
        self.shaped = shape is not None  # else it has no elements yet
        self._data = np.zeros(shape or (), np.float32)
        self._diff = np.zeros(shape or (), np.float32)

    @property
    def data(self) -> Array:
        return self._data

    @property
    def diff(self) -> Array:
        return self._diff

    @property
    def shape(self) -> Shape:
        return tuple(self._data.shape)

    @property
    def count(self) -> int:
        return self._data.size if self.shaped else 0

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        """Returns the size of one of the four axes that blobs once had; missing ones are 1."""
        if len(self.shape) > 4:
            raise ValueError(f"num, channels, height, width are of four axes, not {self.shape}")
        return self.shape[axis] if axis < len(self.shape) else 1

    def reshape(self, *shape: int) -> None:
        """Gives the blob another shape; its values stay where their number stays the same."""
        sizes = tuple(int(n) for n in shape)
        if any(n < 0 for n in sizes):
            raise ValueError(f"a blob cannot have shape {sizes}")
        if self.shaped and prod(sizes) == self._data.size:
            self._data, self._diff = self._data.reshape(sizes), self._diff.reshape(sizes)
        else:
            self._data, self._diff = np.zeros(sizes, np.float32), np.zeros(sizes, np.float32)
        self.shaped = True


class BlobVec:
    """`self.blobs`: the learned blobs of a layer, which its setup adds."""

    def __init__(self) -> None:
        self._blobs: list[Blob] = []

    def add_blob(self, *shape: int) -> Blob:
        blob = Blob()
        blob.reshape(*shape)
        self._blobs.append(blob)
        return blob

    def __len__(self) -> int:
        return len(self._blobs)

    def __getitem__(self, i: int) -> Blob:
        return self._blobs[i]

    def __iter__(self) -> Iterator[Blob]:
        return iter(self._blobs)


class PythonLayer:
    """A layer of type Python derives from this, as it would from `caffe.Layer`.

    `setup` is called once, `reshape` after it and before every `forward`. All get lists of blobs;
    `backward` fills the `diff` of the bottoms for which `propagate_down` is true, from those of
    the tops, and adds to the `diff` of `self.blobs`.
    """

    param_str: str = ""
    phase: Phase = Phase.TRAIN
    blobs: BlobVec

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Reads `self.param_str`, checks the number of blobs, adds learned ones."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Gives each top its shape."""
        raise NotImplementedError("the layer has no method 'reshape'")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Fills the `data` of the tops."""
        raise NotImplementedError("the layer has no method 'forward'")

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        """Fills the `diff` of the bottoms."""
        raise NotImplementedError("the layer has no method 'backward'")
