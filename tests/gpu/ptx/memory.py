"""The memory that threads share: the device's, and that of a block."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from tests.gpu.ptx.lanes import Array
from tests.gpu.simulator import Allocation, Misuse

_POISON = 0xFF  # what memory holds before anybody wrote it, as numbers: none
_SEVERAL, _ENGINE = -2, -3  # who reads or writes, where it is not one warp


def aligned(address: Array, size: int) -> None:
    if np.any(address % address.dtype.type(size)):
        raise Misuse(f"an address is no multiple of {size} bytes")


class Outside(Protocol):
    """Memory of the device, as kernels see it."""

    def load(self, address: Array, size: int, many: int = 1) -> Array:
        """Returns neighbours from each address on: (addresses, many)."""

    def store(self, address: Array, values: Array) -> None:
        """Writes neighbours, (addresses, many)."""

    def add(self, address: Array, value: Array) -> Array:
        """Adds one lane after the other; returns what stood there before."""


class Global:
    """The device's memory, by its addresses. Whoever touches none of the blocks makes an error."""

    def __init__(self, blocks: Iterable[Allocation]) -> None:
        self._blocks = sorted(blocks, key=lambda b: b.address)
        self._starts = np.array([b.address for b in self._blocks], np.uint64)
        self._bytes = [
            np.ctypeslib.as_array((ctypes.c_uint8 * (b.nbytes + 16)).from_address(b.address))
            for b in self._blocks
        ]

    def _parts(
        self, address: Array, size: int, many: int = 1
    ) -> Iterable[tuple[Array, Array, Array]]:
        """Yields which lanes touch a block, the block as numbers of a size, and where."""
        aligned(address, size * many)
        which = np.searchsorted(self._starts, address, side="right") - 1
        for n in np.unique(which):
            if n < 0:
                raise Misuse("an address lies in no block of memory")
            block, lanes = self._blocks[n], np.flatnonzero(which == n)
            place = address[lanes] - np.uint64(block.address)
            if int(place.max()) + size * many > block.nbytes:
                raise Misuse(f"byte {int(place.max())} is behind the end of {block.name}")
            numbers = self._bytes[n]
            whole = numbers[: len(numbers) // size * size].view(np.dtype(f"u{size}"))
            first = (place // np.uint64(size)).astype(np.int64)
            yield lanes, whole, first[:, None] + np.arange(many)

    def load(self, address: Array, size: int, many: int = 1) -> Array:
        result = np.zeros((len(address), many), np.dtype(f"u{size}"))
        for lanes, numbers, place in self._parts(address, size, many):
            result[lanes] = numbers[place]
        return result

    def store(self, address: Array, values: Array) -> None:
        for lanes, numbers, place in self._parts(address, values.itemsize, values.shape[1]):
            numbers[place] = values[lanes]

    def add(self, address: Array, value: Array) -> Array:
        result = np.zeros_like(value)
        for lanes, numbers, place in self._parts(address, value.dtype.itemsize):
            for lane, (at,) in zip(lanes, place, strict=True):
                result[lane] = numbers[at]
                numbers[at] += value[lane]
        return result


class Shared:
    """Memory of blocks, a row each. Between two barriers, what a warp writes is its own.

    `cell`: bytes that are looked at as one, no more than the smallest access has.
    """

    def __init__(self, blocks: int, size: int, cell: int) -> None:
        self.size = size = -(-size // 16) * 16
        self.bytes = np.full((blocks, size), _POISON, np.uint8)
        self.epoch = np.ones(blocks, np.int32)  # barriers that a block went through
        self._cell = cell
        cells = blocks * size // cell
        self._writer, self._written = np.zeros(cells, np.int32), np.zeros(cells, np.int32)
        self._reader, self._read = np.zeros(cells, np.int32), np.zeros(cells, np.int32)
        self._unfenced = np.zeros(cells, bool)  # what tensor cores and copy engine may not see yet

    def places(self, block: Array, address: Array, size: int) -> Array:
        """Returns where numbers lie among all of this size; checks that they lie in the row."""
        if len(address) and (int(address.max()) + size > self.size or np.any(address % size)):
            raise Misuse(f"shared memory of {self.size} bytes is touched at {int(address.max())}")
        return (block.astype(np.int64) * self.size + address.astype(np.int64)) // size

    def numbers(self, size: int) -> Array:
        return self.bytes.reshape(-1).view(np.dtype(f"u{size}"))

    def load(self, block: Array, warp: Array, address: Array, size: int, many: int) -> Array:
        """Returns neighbours from each address on: (addresses, many)."""
        place = self.places(block, address, size)
        self.reads(self._cells(place, size, size * many), warp, self.epoch[block])
        return self.numbers(size)[place[:, None] + np.arange(many)]

    def store(self, block: Array, warp: Array, address: Array, values: Array) -> None:
        """Writes neighbours, (addresses, many)."""
        size, many = values.itemsize, values.shape[1]
        first, numbers = self.places(block, address, size), self.numbers(size)
        place = first[:, None] + np.arange(many)
        changes = np.any(numbers[place] != values, axis=1)
        numbers[place] = values
        self.writes(self._cells(first, size, size * many), warp, self.epoch[block], changes)
        if np.any(numbers[place] != values):
            raise Misuse("two threads write another number to the same place")

    def rows(
        self,
        block: Array,
        warp: Array,
        address: Array,
        size: int,
        write: bool,
        fenced: bool = False,
    ) -> None:
        """Takes note that rows of bytes are read or written, whatever they hold."""
        cells = self._cells(self.places(block, address, self._cell), self._cell, size)
        everything = np.ones(len(address), bool)
        if write:
            self.writes(cells, warp, self.epoch[block], everything, fenced)
        else:
            self.reads(cells, warp, self.epoch[block])

    def fence(self, block: Array, warp: Array) -> None:
        """fence.proxy.async: what warps see, tensor cores and copy engine see from now on."""
        cells = np.flatnonzero(self._unfenced)
        row = cells * self._cell // self.size
        own = np.isin(self._writer[cells], [*warp, _SEVERAL])
        seen = own | (self._written[cells] < self.epoch[row])
        self._unfenced[cells[seen & np.isin(row, block)]] = False

    def fetch(self, block: Array, address: Array) -> None:
        """Takes note that tensor cores read units of 16 bytes, for all warps of a group."""
        cells = self._cells(self.places(block, address, self._cell), self._cell, 16)
        epoch = self.epoch[block][:, None]
        if np.any(self._unfenced[cells]):
            raise Misuse("tensor cores read what was written, without fence.proxy.async between")
        if np.any(self._written[cells] == epoch):
            raise Misuse("tensor cores read what was written, without a barrier between")
        self._reader[cells], self._read[cells] = _SEVERAL, epoch

    def fill(self, block: Array, warp: Array, address: Array) -> Array:
        """Takes note that the copy engine writes units of 16 bytes; returns what `filled` takes."""
        cells = self._cells(self.places(block, address, self._cell), self._cell, 16)
        if np.any(self._unfenced[cells]):
            raise Misuse("the copy engine writes to what was written, without fence.proxy.async")
        self.rows(block, warp, address, 16, write=True, fenced=True)
        self._writer[cells] = _ENGINE
        return cells

    def filled(self, cells: Array) -> None:
        """What the copy engine wrote is there for whoever waited for its barrier."""
        self._written[cells] = 0

    def _cells(self, place: Array, size: int, row: int) -> Array:
        """Returns the cells of rows of bytes that begin at places of numbers of a size."""
        many = max(row, self._cell) // self._cell
        first = place * size // self._cell
        return first[:, None] + np.arange(many)

    def reads(self, cells: Array, warp: Array, epoch: Array) -> None:
        warp, epoch = warp[:, None], epoch[:, None]
        writer = self._writer[cells]
        if np.any((self._written[cells] == epoch) & (writer != warp) & (writer != _SEVERAL)):
            raise Misuse("shared memory is read that another warp wrote, without a barrier between")
        several = (self._read[cells] == epoch) & (self._reader[cells] != warp)
        self._reader[cells] = warp
        several |= self._reader[cells] != warp  # in this very instruction
        self._reader[cells[several]] = _SEVERAL
        self._read[cells] = epoch

    def writes(
        self, cells: Array, warp: Array, epoch: Array, changes: Array, fenced: bool = False
    ) -> None:
        """Several warps may write the same number."""
        warp, epoch, changes = warp[:, None], epoch[:, None], changes[:, None]
        other = (self._read[cells] == epoch) & (self._reader[cells] != warp)
        again = (self._written[cells] == epoch) & (self._writer[cells] != warp)
        if np.any((other | again) & changes):
            done = "read" if np.any(other & changes) else "wrote"
            raise Misuse(f"shared memory is written that another warp {done}, without a barrier")
        self._writer[cells] = warp
        again |= self._writer[cells] != warp
        self._writer[cells[again]] = _SEVERAL
        self._written[cells] = epoch
        self._unfenced[cells] = not fenced
