"""Tiles against a padded, swizzled copy; barriers against what the PTX ISA says of their phases."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.ptx import matrices, tiles
from tests.gpu.ptx.units import write_units
from tests.gpu.simulator import Misuse

ELEMENTS = {"f32": (0x7, 4), "bf16": (0xA, 2)}
WIDTHS = {32: 1, 64: 2, 128: 3}
BASE = 0x7F0000001000  # where the tensor lies
BLOCKS, SIZE = 2, 16384


def described(**changes):
    """A tensor map as a kernel makes it, in shared memory of two blocks."""
    fields = {
        "global_address": BASE, "rank": 1, "box_dim": (32, 4), "global_dim": (64, 8),
        "global_stride": 256, "element_stride": (1, 1), "elemtype": 0x7,
        "interleave_layout": 0, "swizzle_mode": 3, "fill_mode": 0,
    } | changes  # fmt: skip
    shared = np.full((BLOCKS, 512), 0xA5, np.uint8)
    shared[:, 128:256] = 0
    block, address = np.arange(BLOCKS), np.full(BLOCKS, 128, np.uint32)
    for field, values in fields.items():
        for ordinal, value in enumerate(values if isinstance(values, tuple) else (values,)):
            per_thread = np.full(BLOCKS, value, np.uint64)
            tiles.replace_field(shared, block, address, field, ordinal, per_thread)
    assert (shared[:, :128] == 0xA5).all() and (shared[:, 256:] == 0xA5).all()
    assert (shared[0] == shared[1]).all()
    return shared[1, 128:256]


class Tensor:
    """Rows of a tensor in global memory; what lies between them is not read."""

    def __init__(self, kind, rows, columns):
        self.elemtype, self.itemsize = ELEMENTS[kind]
        rng = np.random.default_rng(rows * columns)
        self.stride = (columns * self.itemsize + 31) // 16 * 16
        self.bytes = rng.integers(1, 256, (rows, self.stride), np.uint8)
        self.used = columns * self.itemsize
        self.rows, self.columns = rows, columns

    def read(self, addresses, nbytes):
        rows, start = np.divmod(addresses - BASE, self.stride)
        assert (0 <= rows).all() and (rows < self.rows).all()
        assert (0 <= start).all() and (start + nbytes <= self.used).all()
        return np.stack([self.bytes[r, s : s + nbytes] for r, s in zip(rows, start, strict=True)])

    def box(self, x, y, columns, rows):
        """Its bytes, element by element."""
        result = np.zeros((rows, columns, self.itemsize), np.uint8)
        for i in range(rows):
            for j in range(columns):
                if 0 <= y + i < self.rows and 0 <= x + j < self.columns:
                    at = (x + j) * self.itemsize
                    result[i, j] = self.bytes[y + i, at : at + self.itemsize]
        return result.reshape(rows, -1)

    def map(self, width, rows):
        return described(
            elemtype=self.elemtype,
            box_dim=(width // self.itemsize, rows),
            global_dim=(self.columns, self.rows),
            global_stride=self.stride,
            swizzle_mode=WIDTHS[width],
        )


@pytest.mark.parametrize("kind", ELEMENTS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("x, y", [(0, 0), (5, 3), (-3, -2), (32, 11), (1000, 0), (0, 1000)])
@pytest.mark.parametrize("rows, columns", [(13, 37), (1, 1), (64, 128)])
def test_a_tile_is_swizzled_and_zero_past_the_ends(kind, width, x, y, rows, columns):
    tensor, height = Tensor(kind, rows, columns), 24
    places, units = tiles.tile(tensor.map(width, height), 1024, (x, y), tensor.read)
    assert units.shape == (len(set(places)), 16) == (width * height // 16, 16)
    expected = tensor.box(x, y, width // tensor.itemsize, height)
    for r in range(height):
        for unit in range(width // 16):
            moved = unit ^ r * width // 128 % (width // 16)
            (at,) = np.flatnonzero(places == 1024 + r * width + moved * 16)
            assert (units[at] == expected[r, unit * 16 : unit * 16 + 16]).all()


def test_wgmma_reads_a_tile_as_the_copy_engine_wrote_it():
    """Rows of one tile by columns of another, both in bf16, the second transposed."""
    a, b = Tensor("bf16", 64, 64), Tensor("bf16", 16, 64)
    for tensor in (a, b):  # small whole numbers
        values = np.random.default_rng(tensor.rows).integers(-4, 5, (tensor.rows, 64))
        tensor.values = values.astype(np.float32)
        bits = (tensor.values.view(np.uint32) >> 16).astype(np.uint16)
        tensor.bytes[:, : tensor.used] = bits.view(np.uint8)
    shared = np.full((BLOCKS, SIZE), 0xFF, np.uint8)
    for tensor, address in ((a, 0), (b, 8192)):
        places, units = tiles.tile(tensor.map(128, tensor.rows), address, (0, 0), tensor.read)
        write_units(shared, np.array([1]), places[None], units[None])
    common = 1 << 62 | 1024 // 16 << 32
    descriptors = np.array([[common | 32 * 2 // 16], [common | 8192 // 16]], np.uint64)
    sums = matrices.multiply_group(
        "bf16", descriptors[0], descriptors[1], [np.zeros((1, 128), np.float32)] * 32,
        np.array([True]), False, True, shared, np.array([1]),
    )  # fmt: skip
    product = a.values[:, 32:48] @ b.values
    assert sums[0][0, 0] == product[0, 0]
    assert sums[3][0, 33] == product[16 + 8, 3]
    assert sums[4][0, 127] == product[48 + 7, 8 + 6]


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 2},
        {"elemtype": 0x6},
        {"swizzle_mode": 0},
        {"swizzle_mode": 2},
        {"interleave_layout": 1},
        {"fill_mode": 1},
        {"element_stride": (1, 2)},
    ],
)
def test_maps_that_triton_does_not_make(changes):
    tensor = Tensor("f32", 8, 64)
    with pytest.raises(NotImplementedError):
        tiles.tile(described(**changes), 0, (0, 0), tensor.read)


@pytest.mark.parametrize(
    "address, changes",
    [
        (64, {}),
        (0, {"global_address": BASE + 8}),
        (0, {"global_stride": 264}),
        (0, {"box_dim": (32, 257)}),
        (0, {"box_dim": (32, 0)}),
        (0, {"global_dim": (0, 8)}),
    ],
)
def test_what_the_copy_engine_refuses(address, changes):
    tensor = Tensor("f32", 8, 64)
    with pytest.raises(Misuse):
        tiles.tile(described(**changes), address, (0, 0), tensor.read)


# Barriers.


class Barriers:
    """Two barriers, one in each block."""

    def __init__(self):
        shared = np.full((BLOCKS, 64), 0xFF, np.uint8)
        self.where = shared, np.arange(BLOCKS), np.full(BLOCKS, 24, np.uint32)
        tiles.make_barriers(*self.where, 1)

    def complete(self, parity):
        return tiles.is_complete(*self.where, np.full(BLOCKS, parity)).tolist()


def test_a_phase_is_complete_with_the_arrival_and_all_bytes():
    barriers = Barriers()
    shared, block, address = barriers.where
    for parity in (0, 1, 0):
        assert barriers.complete(parity) == [False, False]
        assert barriers.complete(1 - parity) == [True, True]
        tiles.arrive_expecting(*barriers.where, 96)
        tiles.complete(*barriers.where, 64)
        assert barriers.complete(parity) == [False, False]
        tiles.complete(shared, block[:1], address[:1], 32)
        assert barriers.complete(parity) == [True, False]
        tiles.complete(shared, block[1:], address[1:], 32)
        assert barriers.complete(parity) == [True, True]
    assert (shared[:, :24] == 0xFF).all() and (shared[:, 32:] == 0xFF).all()


def test_bytes_may_come_before_they_are_expected():
    barriers = Barriers()
    tiles.complete(*barriers.where, 0)
    tiles.complete(*barriers.where, 96)
    assert barriers.complete(0) == [False, False]
    tiles.arrive_expecting(*barriers.where, 96)
    assert barriers.complete(0) == [True, True]


def test_what_a_barrier_refuses():
    barriers = Barriers()
    with pytest.raises(Misuse, match="made where one is"):
        tiles.make_barriers(*barriers.where, 1)
    with pytest.raises(NotImplementedError):
        tiles.make_barriers(*barriers.where, 2)
    tiles.arrive_expecting(*barriers.where, 16)
    with pytest.raises(Misuse, match="arrivals"):
        tiles.arrive_expecting(*barriers.where, 16)
    with pytest.raises(Misuse, match="to come"):
        tiles.drop_barriers(*barriers.where)
    tiles.complete(*barriers.where, 16)
    with pytest.raises(Misuse, match="count"):
        tiles.complete(*barriers.where, 2**20)
    shared, block, address = Barriers().where
    tiles.drop_barriers(shared, block, address)
    with pytest.raises(Misuse, match="no barrier"):
        tiles.complete(shared, block, address, 16)
    with pytest.raises(Misuse, match="aligned"):
        tiles.make_barriers(shared, block, address + 4, 1)
    tiles.make_barriers(shared, block, address, 1)
