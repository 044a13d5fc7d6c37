"""The copy engine (TMA) and what it reports to: tensormap.replace, cp.async.bulk.tensor, mbarrier.

A tensor map and a barrier hold bytes that nobody but these functions knows; so their layout is our
own. Memory of zeros is a tensor map whose fields are all 0. Just what Triton makes of this
project's kernels for sm_90a is here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.gpu.ptx.units import UNIT, Bytes, Integers, swizzled
from tests.gpu.simulator import Misuse

# Gives so many bytes of global memory from each address on: (addresses, bytes).
Reader = Callable[[Integers, int], Bytes]

MAP = np.dtype(
    {
        "names": [
            "global_address", "global_stride", "global_dim", "box_dim", "element_stride",
            "rank", "elemtype", "interleave_layout", "swizzle_mode", "fill_mode",
        ],
        "formats": ["u8", "u8", "2u4", "2u4", "2u4", "u4", "u4", "u4", "u4", "u4"],
        "itemsize": 128,
    }
)  # fmt: skip
_ITEMSIZE = {0x7: 4, 0xA: 2}  # of f32 and bf16
_WIDTHS = {1: 32, 2: 64, 3: 128}  # bytes of a swizzled row
_MOST = 256  # elements of a box along a dimension

BARRIER = np.dtype(
    {"names": ["bytes", "pending", "phase", "mark"], "formats": ["i4", "u1", "u1", "u2"]}
)
_MARK = 0xBA44  # what tells a barrier from other memory
_MOST_BYTES = 2**20 - 1
_MISSING = "there is no barrier here"


def replace_field(
    shared: Bytes,
    block: Integers,
    address: Integers,
    field: str,
    ordinal: int,
    value: NDArray[np.unsignedinteger],
) -> None:
    """tensormap.replace.tile.{field}.shared::cta.b1024.b32 or b64 (PTX ISA, tensormap.replace).

    The three arrays have an element for each thread. `ordinal` counts dimensions, the innermost
    first; what has no dimensions has 0.
    """
    if (address % MAP.itemsize).any():
        raise Misuse("a tensor map that is not aligned")
    assert MAP.fields is not None
    kind, start = MAP.fields[field][:2]
    size = kind.base.itemsize
    places = address[:, None].astype(np.int64) + start + ordinal * size + np.arange(size)
    shared[block[:, None], places] = value.astype(kind.base)[:, None].view(np.uint8)


def tile(
    tensor_map: Bytes, address: int, start: tuple[int, int], read: Reader
) -> tuple[Integers, Bytes]:
    """cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes (PTX ISA, the same).

    Returns the box of a tensor map (its 128 bytes) from `start` (x, y) on, as units of shared
    memory: where they lie, and their bytes, all of which the barrier hears of. What lies outside
    of the tensor is 0. PTX ISA, Tensors: Tiled Mode, Out of Boundary Access, Swizzling Modes.
    """
    (about,) = tensor_map.view(MAP)
    itemsize, width = _checked(about)
    if address % 128:
        raise Misuse("a tile whose place in shared memory is not aligned")
    columns, rows = (int(n) for n in about["box_dim"])
    across, along = [  # the part of the box that lies in the tensor
        slice(min(max(0, -at), box), max(0, min(box, int(size) - at)))
        for at, box, size in zip(start, (columns, rows), about["global_dim"], strict=True)
    ]
    box = np.zeros((rows, columns * itemsize), np.uint8)
    if across.start < across.stop and along.start < along.stop:
        first = int(about["global_address"]) + (start[0] + across.start) * itemsize
        lines = np.arange(start[1] + along.start, start[1] + along.stop, dtype=np.int64)
        nbytes = (across.stop - across.start) * itemsize
        source = read(first + lines * int(about["global_stride"]), nbytes)
        box[along, across.start * itemsize : across.stop * itemsize] = source
    places = address + np.arange(0, box.size, UNIT, dtype=np.int64)
    return swizzled(places, width), box.reshape(-1, UNIT)


def _checked(about: np.void) -> tuple[int, int]:
    """Returns the bytes of an element and of a swizzled row."""
    known = {"rank": 1, "interleave_layout": 0, "fill_mode": 0}
    itemsize = _ITEMSIZE.get(int(about["elemtype"]))
    width = _WIDTHS.get(int(about["swizzle_mode"]))
    if (
        any(about[field] != value for field, value in known.items())
        or (about["element_stride"] != 1).any()
        or itemsize is None
        or width is None
        or about["box_dim"][0] * itemsize != width
    ):
        raise NotImplementedError(f"a tensor map of {MAP.names}: {about}")
    if about["global_address"] % UNIT or about["global_stride"] % UNIT:
        raise Misuse("a tensor map of a tensor that is not aligned")
    if not about["global_dim"].all() or not 0 < about["box_dim"][1] <= _MOST:
        raise Misuse("a tensor map of an empty tensor, or of a box that is empty or too large")
    return itemsize, width


# Barriers. `block` and `address` have an element for each thread that executes the instruction.


def make_barriers(shared: Bytes, block: Integers, address: Integers, count: int) -> None:
    """mbarrier.init.shared::cta.b64 (PTX ISA, mbarrier.init), of one arrival in each phase."""
    if count != 1:
        raise NotImplementedError(f"a barrier of {count} arrivals")
    for place in _barriers(shared, block, address):
        if place["mark"] == _MARK:
            raise Misuse("a barrier is made where one is")
        place[()] = (0, 1, 0, _MARK)


def drop_barriers(shared: Bytes, block: Integers, address: Integers) -> None:
    """mbarrier.inval.shared::cta.b64 (PTX ISA, mbarrier.inval)."""
    for barrier in _alive(shared, block, address):
        if barrier["pending"] != 1 or barrier["bytes"]:
            raise Misuse("a barrier is dropped while something is to come")
        barrier["mark"] = 0


def arrive_expecting(shared: Bytes, block: Integers, address: Integers, nbytes: int) -> None:
    """mbarrier.arrive.expect_tx.shared::cta.b64 _ (PTX ISA, mbarrier.arrive)."""
    for barrier in _alive(shared, block, address):
        if not barrier["pending"]:
            raise Misuse("more arrivals than a phase of a barrier has")
        _count(barrier, nbytes)
        barrier["pending"] -= 1
        _advance(barrier)


def complete(shared: Bytes, block: Integers, address: Integers, nbytes: int) -> None:
    """.mbarrier::complete_tx::bytes: so many bytes are there (PTX ISA, complete-tx operation)."""
    for barrier in _alive(shared, block, address):
        _count(barrier, -nbytes)
        _advance(barrier)


def is_complete(
    shared: Bytes, block: Integers, address: Integers, parity: Integers
) -> NDArray[np.bool_]:
    """mbarrier.try_wait.parity.shared::cta.b64 (PTX ISA, mbarrier.test_wait, mbarrier.try_wait).

    Tells whether the phase of that parity, this one or the one before, is complete.
    """
    _check(address)
    found = shared.view(BARRIER)[block, address // BARRIER.itemsize]
    if np.any(found["mark"] != _MARK):
        raise Misuse(_MISSING)
    complete: NDArray[np.bool_] = np.not_equal(found["phase"], parity)
    return complete


def _barriers(shared: Bytes, block: Integers, address: Integers) -> list[NDArray[np.void]]:
    """Returns views of barriers."""
    _check(address)
    every = shared.view(BARRIER)
    places = zip(block.tolist(), (address // BARRIER.itemsize).tolist(), strict=True)
    return [every[row, at : at + 1].reshape(()) for row, at in places]


def _alive(shared: Bytes, block: Integers, address: Integers) -> list[NDArray[np.void]]:
    found = _barriers(shared, block, address)
    if any(barrier["mark"] != _MARK for barrier in found):
        raise Misuse(_MISSING)
    return found


def _check(address: Integers) -> None:
    if (address % BARRIER.itemsize).any():
        raise Misuse("a barrier that is not aligned")


def _count(barrier: NDArray[np.void], nbytes: int) -> None:
    barrier["bytes"] += nbytes
    if abs(int(barrier["bytes"])) > _MOST_BYTES:
        raise Misuse("a barrier waits for more bytes than it can count")


def _advance(barrier: NDArray[np.void]) -> None:
    """Begins the next phase when all of this one is there."""
    if not barrier["pending"] and not barrier["bytes"]:
        barrier["pending"], barrier["phase"] = 1, 1 - barrier["phase"]
