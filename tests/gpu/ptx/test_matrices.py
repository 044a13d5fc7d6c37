"""Each instruction on matrices laid out element by element, as the tables of the PTX ISA say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.ptx import matrices
from tests.gpu.simulator import Misuse

BLOCKS, SIZE = 3, 96 * 1024
LANES = [(lane // 4, lane % 4) for lane in range(32)]
WIDTHS = {128: 1, 64: 2, 32: 3}  # bytes of a swizzled row: the number in a descriptor
DEPTH = {"bf16": 16, "tf32": 8}
ITEMSIZE = {"bf16": 2, "tf32": 4}


def rounded(kind, array):
    """Numbers that the kind can hold."""
    bits = np.asarray(array, np.float32).view(np.uint32)
    return (bits & np.uint32({"bf16": 0xFFFF0000, "tf32": 0xFFFFE000}[kind])).view(np.float32)


def encoded(kind, matrix):
    """The elements of a matrix as memory holds them."""
    bits = np.ascontiguousarray(matrix, np.float32).view(np.uint32)
    return (bits >> 16).astype(np.uint16) if kind == "bf16" else bits


def random(kind, *shape, seed=0):
    return rounded(kind, np.random.default_rng(seed).normal(size=shape))


def close(found, expected):
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def shared_memory():
    return np.full((BLOCKS, SIZE), 0xFF, np.uint8)  # what was not written is not a number


def fragment(kind, matrix, place):
    """The register of each lane whose elements lie at `place(lane's row, lane's word, part)`."""
    parts = 2 if kind == "bf16" else 1
    elements = encoded(kind, matrix).astype(np.uint32)
    words = np.zeros((len(matrix), 32), np.uint32)
    for lane, (g, t) in enumerate(LANES):
        for part in range(parts):
            row, column = place(g, t * parts + part)
            words[:, lane] |= elements[:, row, column] << np.uint32(16 * part)
    return words


def rows_of(kind, a):
    """mma's first factor (warps, 16, k)."""
    half = DEPTH[kind] // 2
    places = [
        lambda g, i: (g, i),
        lambda g, i: (g + 8, i),
        lambda g, i: (g, i + half),
        lambda g, i: (g + 8, i + half),
    ]
    return [fragment(kind, a, place) for place in places]


def columns_of(kind, b):
    """mma's second factor (warps, k, 8)."""
    half = DEPTH[kind] // 2
    return [fragment(kind, b, lambda g, i, h=h: (i + h, g)) for h in (0, half)]


def sums_of(c):
    """Sums (warps, 16, 8 j) as registers."""
    registers = []
    for column in range(0, c.shape[2], 8):
        for row in (0, 8):
            for odd in (0, 1):
                at = [(row + g, column + 2 * t + odd) for g, t in LANES]
                registers.append(np.stack([c[:, i, j] for i, j in at], 1))
    return registers


def group_sums_of(d):
    """Sums (groups, 64, n) as registers of 128 lanes: each warp has 16 rows."""
    warps = [sums_of(d[:, 16 * w : 16 * w + 16]) for w in range(4)]
    return [np.concatenate(parts, 1) for parts in zip(*warps, strict=True)]


def lay(kind, shared, block, start, matrix, width, transposed):
    """Writes rows of a matrix, swizzled, from `start` on; returns a descriptor of them.

    A row (transposed: a column) longer than `width` goes on where the last row ended.
    """
    line = matrix.T if transposed else matrix
    data = encoded(kind, line)
    per = 128 // width
    leading = len(line) * width
    for r, row in enumerate(data):
        for c, unit in enumerate(row.view(np.uint8).reshape(-1, 16)):
            part, place = divmod(c, width // 16)
            place ^= r // per % (width // 16)
            at = start + part * leading + r * width + place * 16
            shared[block, at : at + 16] = unit
    return WIDTHS[width] << 62 | 8 * width // 16 << 32 | leading // 16 << 16 | start // 16


def step(kind, width, transposed, k):
    """By how much the address of the k-th 16 (tf32: 8) of a matrix is larger."""
    return (k * 16 * width if transposed else k * 32) // 16


def words(array):
    return np.array(array, np.uint64)


# ldmatrix and stmatrix.


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(count, transposed):
    rng = np.random.default_rng(count)
    shared = rng.integers(0, 256, (BLOCKS, 4096), np.uint8)
    block = np.array([2, 0])
    address = rng.permutation(4096 // 16)[:64].reshape(2, 32).astype(np.uint32) * 16
    address[:, 8 * count :] = 0xFFFFFFF1  # what nobody looks at
    found = matrices.load_matrices(shared, block, address, count, transposed)
    assert len(found) == count
    for w in range(2):
        for m in range(count):
            matrix = np.stack(
                [shared[block[w], address[w, 8 * m + r] :][:16].view(np.uint16) for r in range(8)]
            )
            for lane, (g, t) in enumerate(LANES):
                low, high = (
                    (matrix[2 * t, g], matrix[2 * t + 1, g])
                    if transposed
                    else (matrix[g, 2 * t], matrix[g, 2 * t + 1])
                )
                assert found[m][w, lane] == int(low) | int(high) << 16


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_stmatrix_wrote_ldmatrix_reads(count, transposed):
    rng = np.random.default_rng(count)
    shared, block = shared_memory(), np.array([1, 2, 0])
    address = np.stack([rng.permutation(64)[:32] for _ in block]).astype(np.uint32) * 16
    values = [rng.integers(0, 2**32, (3, 32), np.uint32) for _ in range(count)]
    matrices.store_matrices(shared, block, address, values, transposed)
    found = matrices.load_matrices(shared, block, address, count, transposed)
    np.testing.assert_array_equal(found, values)
    assert (shared == 0xFF).sum() >= shared.size - 3 * count * 128


def test_addresses_must_be_aligned_and_inside():
    for wrong in (8, SIZE):
        address = np.full((1, 32), wrong, np.uint32)
        with pytest.raises(Misuse):
            matrices.load_matrices(shared_memory(), np.array([0]), address, 1, False)


# mma.sync.


@pytest.mark.parametrize("kind", ["bf16", "tf32"])
def test_mma(kind):
    k = DEPTH[kind]
    a, b, c = random(kind, 5, 16, k), random(kind, 5, k, 8, seed=1), random("tf32", 5, 16, 8)
    found = matrices.multiply_warp(kind, rows_of(kind, a), columns_of(kind, b), sums_of(c))
    exact = a.astype(np.float64) @ b + c
    for register, expected in zip(found, sums_of(exact), strict=True):
        close(register, expected)


def test_mma_of_what_ldmatrix_read():
    """The usual way: rows of both factors lie one after another, and b is read transposed."""
    a, b = random("bf16", 1, 16, 16), random("bf16", 1, 16, 8, seed=1)
    shared, block = shared_memory(), np.array([1])
    shared[1, :512] = encoded("bf16", a).view(np.uint8).ravel()
    shared[1, 512:768] = encoded("bf16", b).view(np.uint8).ravel()
    lane = np.arange(32)[None]
    rows = matrices.load_matrices(shared, block, lane % 16 * 32 + lane // 16 * 16, 4, False)
    columns = matrices.load_matrices(shared, block, 512 + lane % 16 * 16, 2, True)
    found = matrices.multiply_warp("bf16", rows, columns, [full(0)] * 4)
    for register, expected in zip(found, sums_of(a.astype(np.float64) @ b), strict=True):
        close(register, expected)


def test_tf32_loses_bits_that_the_tensor_cores_do_not_see():
    one, zero = full(1).view(np.uint32), [full(0)] * 4
    seen = matrices.multiply_warp("tf32", [one | 0x1FFF] * 4, [one] * 2, zero)
    assert all((register == 8).all() for register in seen)
    seen = matrices.multiply_warp("tf32", [one | 0x2000] * 4, [one] * 2, zero)
    assert all((register > 8).all() for register in seen)


def full(number, lanes=32):
    return np.full((1, lanes), number, np.float32)


def test_sums_are_rounded_once_and_silent_when_infinite():
    one, small, large = (
        np.full((1, 32), word, np.uint32) for word in (0x3F803F80, 0x33803380, 0x7F007F00)
    )
    found = matrices.multiply_warp("bf16", [one] * 4, [small] * 2, [full(1)] * 4)
    assert (found[0] == 1 + 16 * 2.0**-24).all()  # one by one, each would be lost
    found = matrices.multiply_warp("bf16", [large] * 4, [large] * 2, [full(-np.inf)] * 4)
    assert np.isneginf(found[0]).all()
    found = matrices.multiply_warp("bf16", [large] * 4, [large] * 2, [full(0)] * 4)
    assert np.isposinf(found[0]).all()


# wgmma.

CASES = [
    (kind, n, width, turned_a, turned_b)
    for kind in ("bf16", "tf32")
    for n in (8, 16, 32, 64, 128, 256)
    for width in WIDTHS
    for turned_a, turned_b in ([(0, 0), (0, 1), (1, 0), (1, 1)] if kind == "bf16" else [(0, 0)])
]


@pytest.mark.parametrize("kind, n, width, turned_a, turned_b", CASES)
def test_wgmma(kind, n, width, turned_a, turned_b):
    """Each step along k of a tile, for two groups of two blocks at once."""
    steps = width // 32
    depth = DEPTH[kind] * steps
    shared, block = shared_memory(), np.array([2, 0])
    a, b = random(kind, 2, 64, depth), random(kind, 2, n, depth, seed=1)
    held = random("tf32", 2, 64, n, seed=2)
    descriptors = np.array(
        [
            (
                lay(kind, shared, block[g], 1024 * (1 + g), a[g], width, turned_a),
                lay(
                    kind,
                    shared,
                    block[g],
                    1024 * (20 + g),
                    padded(b[g], width, turned_b),
                    width,
                    turned_b,
                ),
            )
            for g in range(2)
        ],
        np.uint64,
    )
    sums, exact = group_sums_of(held), held.astype(np.float64)
    for k in range(steps):
        moved = descriptors + words(
            [step(kind, width, turned_a, k), step(kind, width, turned_b, k)]
        )
        sums = matrices.multiply_group(
            kind, moved[:, 0], moved[:, 1], sums, np.array([True, k > 0]),
            bool(turned_a), bool(turned_b), shared, block,
        )  # fmt: skip
        part = slice(k * DEPTH[kind], (k + 1) * DEPTH[kind])
        product = a[:, :, part].astype(np.float64) @ b[:, :, part].swapaxes(1, 2)
        exact = (product + exact * [[[1]], [[k > 0]]]).astype(np.float32).astype(np.float64)
    for register, expected in zip(sums, group_sums_of(exact), strict=True):
        close(register, expected)


def padded(b, width, turned):
    """A transposed tile has whole rows: what is narrower is a part of a wider one."""
    missing = -len(b) % (width // 2) if turned else 0
    return np.pad(b, [(0, missing), (0, 0)], constant_values=np.float32(7))


@pytest.mark.parametrize("kind", ["bf16", "tf32"])
def test_wgmma_of_rows_in_registers(kind):
    k, n = DEPTH[kind], 24
    shared, block = shared_memory(), np.array([1])
    a, b = random(kind, 1, 64, k), random(kind, 1, n, k, seed=1)
    warps = [rows_of(kind, a[:, 16 * w : 16 * w + 16]) for w in range(4)]
    rows = [np.concatenate(parts, 1) for parts in zip(*warps, strict=True)]
    descriptor = words([lay(kind, shared, 1, 2048, b[0], 32, False)])
    unknown = [full(np.nan, 128)] * (n // 2)
    found = matrices.multiply_group(
        kind, rows, descriptor, unknown, np.array([False]), False, False, shared, block
    )
    exact = a.astype(np.float64) @ b.swapaxes(1, 2)
    for register, expected in zip(found, group_sums_of(exact), strict=True):
        close(register, expected)


@pytest.mark.parametrize("turned", [False, True])
def test_the_units_of_an_operand_are_those_that_it_was_laid_in(turned):
    shared = np.full((1, 227 * 1024), 0xFF, np.uint8)
    descriptor = words([lay("bf16", shared, 0, 200 * 1024, np.ones((64, 16)), 32, turned)])
    units = matrices.operand_units("bf16", descriptor, 64, turned)
    assert set(units.ravel()) == set(np.flatnonzero(shared[0, ::16] != 0xFF) * 16)
    assert units.size == 64 * 16 * 2 // 16


@pytest.mark.parametrize("bits", [0, 1 << 62 | 1 << 49, 1 << 62 | 1 << 51])
def test_descriptors_that_triton_does_not_make(bits):
    with pytest.raises(NotImplementedError):
        matrices.operand_units("bf16", words([bits]), 64, False)
    with pytest.raises(Misuse):
        matrices.operand_units("bf16", words([1 << 62 | 1 << 14]), 64, False)


def test_tf32_is_never_transposed():
    with pytest.raises(NotImplementedError):
        matrices.operand_units("tf32", words([1 << 62]), 64, True)
