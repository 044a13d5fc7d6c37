"""Shared memory in units of 16 bytes: what matrices and tiles are made of, and swizzles exchange.

The memory of all blocks of a launch is one array of bytes (blocks, size). An address is an offset
into the row of a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.gpu.simulator import Misuse

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
UNIT = 16
_UNIT = np.dtype((np.void, UNIT))


def swizzled(address: Integers, width: int) -> Integers:
    """Returns where what belongs to an address lies, in rows of 32, 64 or 128 bytes.

    The number of a unit of a row is xored with that of the 128 bytes it lies in (PTX ISA, Tensors:
    Swizzling Modes; Asynchronous Warpgroup Level Matrix Shared Memory Layout).
    """
    return address ^ (address >> 3 & width - UNIT)


def read_units(shared: Bytes, block: Integers, address: Integers) -> Bytes:
    """Returns the 16 bytes at each of a block's addresses, along a new last axis."""
    units = shared.view(_UNIT)[_places(shared, block, address)]
    return np.ascontiguousarray(units)[..., None].view(np.uint8)


def write_units(shared: Bytes, block: Integers, address: Integers, values: Bytes) -> None:
    shared.view(_UNIT)[_places(shared, block, address)] = values.view(_UNIT)[..., 0]


def _places(shared: Bytes, block: Integers, address: Integers) -> tuple[Integers, Integers]:
    if (address % UNIT).any() or (address >= shared.shape[1]).any():
        raise Misuse("addresses of shared memory that are not aligned, or past its end")
    return block.reshape(-1, *[1] * (address.ndim - 1)), address // UNIT
