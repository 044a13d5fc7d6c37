"""The matrix instructions of PTX: ldmatrix, stmatrix, mma.sync and wgmma.mma_async.

A warp's registers are arrays (warps, 32), a warpgroup's (groups, 128). Just what Triton makes of
this project's kernels for sm_80 and sm_90a is here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.gpu.ptx.units import UNIT, Bytes, Integers, read_units, swizzled, write_units
from tests.gpu.simulator import Misuse

Words = NDArray[np.uint32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Descriptors = NDArray[np.uint64]

_SWIZZLES = {1: 128, 2: 64, 3: 32}  # bytes of a row, by a descriptor's bits 62 and 63
_BASE_OFFSET = 0b111 << 49
_UNUSED = 0b11 << 14 | 0b11 << 30 | 0b111 << 46 | 0x3FF << 52


def load_matrices(
    shared: Bytes, block: Integers, address: Integers, count: int, transposed: bool
) -> list[Words]:
    """ldmatrix.sync.aligned.m8n8.x{count}[.trans].shared.b16 (PTX ISA, ldmatrix).

    Lane 8 m + r says where row r of matrix m lies; each lane gets two neighbours of each matrix,
    the first four those of row 0.
    """
    rows = read_units(shared, block, address[:, : 8 * count].astype(np.int64))
    tiles = rows.view(np.uint16).reshape(-1, count, 8, 8)
    if transposed:
        tiles = tiles.swapaxes(2, 3)
    words = np.ascontiguousarray(tiles).view(np.uint32).reshape(-1, count, 32)
    return list(words.swapaxes(0, 1))


def store_matrices(
    shared: Bytes, block: Integers, address: Integers, values: Sequence[Words], transposed: bool
) -> None:
    """stmatrix.sync.aligned.m8n8.x{len(values)}[.trans].shared.b16 (PTX ISA, stmatrix)."""
    tiles = np.stack(values, 1).view(np.uint16).reshape(-1, len(values), 8, 8)
    if transposed:
        tiles = tiles.swapaxes(2, 3)
    rows = np.ascontiguousarray(tiles).view(np.uint8).reshape(-1, 8 * len(values), UNIT)
    write_units(shared, block, address[:, : 8 * len(values)].astype(np.int64), rows)


def multiply_warp(
    kind: str, a: Sequence[Words], b: Sequence[Words], c: Sequence[Floats]
) -> list[Floats]:
    """mma.sync.aligned, m16n8k16 of bf16 or m16n8k8 of tf32, .row.col, sums in f32.

    PTX ISA, Matrix Fragments for mma.m16n8k16 and mma.m16n8k8.
    """
    halves = np.stack([_numbers(kind, words) for words in b])
    halves = halves.reshape(2, -1, 8, 4, halves.shape[-1])  # half of k, warp, n, word, part of it
    columns = halves.transpose(1, 2, 0, 3, 4).reshape(halves.shape[1], 8, -1)
    return _sums(_rows(kind, a), columns, _matrix(c))


def multiply_group(
    kind: str,
    a: Sequence[Words] | Descriptors,
    b: Descriptors,
    d: Sequence[Floats],
    accumulate: NDArray[np.bool_],
    a_transposed: bool,
    b_transposed: bool,
    shared: Bytes,
    block: Integers,
) -> list[Floats]:
    """wgmma.mma_async.sync.aligned, m64nNk16 of bf16 or m64nNk8 of tf32, sums in f32.

    PTX ISA, Register Fragments for wgmma.mma_async.m64nNk16 and .m64nNk8. `a` is four registers or
    descriptors; N columns are two for each register of `d`, which do not count without
    `accumulate`.
    """
    if isinstance(a, np.ndarray):
        rows = _operand(kind, a, 64, a_transposed, shared, block)
    else:
        rows = _rows(kind, a)
    before = np.where(accumulate[:, None, None], _matrix(d), np.float32(0))
    return _sums(rows, _operand(kind, b, 2 * len(d), b_transposed, shared, block), before)


def operand_units(kind: str, descriptors: Descriptors, extent: int, transposed: bool) -> Integers:
    """Returns the addresses of the units that wgmma reads of an operand.

    They are (groups, extent, 2), along k, or transposed (groups, 16, extent / 8), along m or n.
    PTX ISA, Asynchronous Warpgroup Level Matrix Shared Memory Layout: Matrix Descriptor Format,
    Strides; CUTLASS's mma_traits_sm90_gmma.hpp writes the same layouts as shapes and strides. Eight
    rows of swizzled units lie together, and the next eight a stride byte offset further; what does
    not fit into a transposed row goes on a leading byte offset further.
    """
    modes = {int(mode) for mode in descriptors >> np.uint64(62)}
    if not modes <= _SWIZZLES.keys() or len(modes) != 1 or (transposed and kind != "bf16"):
        raise NotImplementedError(f"wgmma of {kind}, transposed={transposed}, of swizzles {modes}")
    if (descriptors & np.uint64(_BASE_OFFSET)).any():
        raise NotImplementedError("wgmma with a base offset")
    if (descriptors & np.uint64(_UNUSED)).any():
        raise Misuse("a wgmma descriptor sets bits that are not used")
    width = _SWIZZLES[modes.pop()]
    fields = descriptors[:, None, None]
    start, leading, stride = (
        (fields >> np.uint64(low) & np.uint64(0x3FFF)).astype(np.int64) * 16 for low in (0, 16, 32)
    )
    row, unit = np.ogrid[: 16 if transposed else extent, : extent // 8 if transposed else 2]
    across, within = np.divmod(unit * UNIT, width)
    return swizzled(start + row // 8 * stride + row % 8 * width + across * leading + within, width)


def _operand(
    kind: str,
    descriptors: Descriptors,
    extent: int,
    transposed: bool,
    shared: Bytes,
    block: Integers,
) -> Doubles:
    """Returns an operand as (groups, extent, k)."""
    units = read_units(shared, block, operand_units(kind, descriptors, extent, transposed))
    if transposed:
        numbers = _numbers(kind, units.view(np.uint32)).reshape(len(units), 16, extent)
        return numbers.swapaxes(1, 2)
    return _numbers(kind, units.view(np.uint32)).reshape(len(units), extent, -1)


def _numbers(kind: str, words: Words) -> Doubles:
    """Returns what is in each word, along a new last axis: two bf16, or one tf32.

    Of the f32 whose bits a tf32 comes as the tensor cores do not look at the last 13.
    """
    if kind == "bf16":
        bits = np.stack([words << 16, words & np.uint32(0xFFFF0000)], -1)
    elif kind == "tf32":
        bits = words[..., None] & np.uint32(0xFFFFE000)
    else:
        raise NotImplementedError(f"products of {kind}")
    return bits.view(np.float32).astype(np.float64)


def _rows(kind: str, registers: Sequence[Words]) -> Doubles:
    """Returns the first factor, in four registers, as (warps or groups, rows, k)."""
    numbers = np.stack([_numbers(kind, words) for words in registers])
    count, lanes, parts = numbers.shape[1:]
    # Half of k, half of a warp's rows, (count), warp, row of the half, word, part of it.
    fragments = numbers.reshape(2, 2, count, lanes // 32, 8, 4, parts)
    return fragments.transpose(2, 3, 1, 4, 0, 5, 6).reshape(count, lanes // 2, -1)


def _matrix(registers: Sequence[Floats]) -> Floats:
    """Returns sums as (warps or groups, rows, columns)."""
    stacked = np.stack(registers)
    count, lanes = stacked.shape[1:]
    # Eight columns, half of a warp's rows, odd columns, (count), warp, row of the half, pair.
    fragments = stacked.reshape(-1, 2, 2, count, lanes // 32, 8, 4)
    return fragments.transpose(3, 4, 1, 5, 0, 6, 2).reshape(count, lanes // 2, -1)


def _registers(matrix: Floats) -> list[Floats]:
    """Returns sums as registers: the inverse of `_matrix`."""
    count, rows, columns = matrix.shape
    fragments = matrix.reshape(count, rows // 16, 2, 8, columns // 8, 4, 2)
    return list(fragments.transpose(4, 2, 6, 0, 1, 3, 5).reshape(columns // 2, count, rows * 2))


def _sums(rows: Doubles, columns: Doubles, before: Floats) -> list[Floats]:
    """Returns registers of rows * columns + before, rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _registers((rows @ columns.swapaxes(1, 2) + before).astype(np.float32))
