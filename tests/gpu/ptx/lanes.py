"""The registers of all threads that run at a time, a vector each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tests.gpu.ptx.text import Operand, Register, Unknown

Array = np.ndarray[Any, Any]
# Runs an instruction on a machine, for the lanes that are active (None: all).
Step = Callable[[Any, Array | None], None]
WARP = 32

_FLOATS = {"f32": np.float32, "f64": np.float64}
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_UNWRITTEN = 0xA5A5A5A5A5A5A5A5  # what stands in a register before it is written


def dtype(kind: str) -> np.dtype[Any]:
    """Returns NumPy's type of `s32`, `b16`, `f32`, `pred`; bf16 stays bits."""
    if kind == "pred":
        return np.dtype(bool)
    if kind in _FLOATS:
        return np.dtype(_FLOATS[kind])
    if kind in ("bf16", "bf16x2", "s16x2"):
        return np.dtype(np.uint32 if kind.endswith("x2") else np.uint16)
    return np.dtype((_SIGNED if kind[0] == "s" else _UNSIGNED)[int(kind[1:]) // 8])


@cache
def width(register: Register) -> np.dtype[Any]:
    """Returns how a register is kept: as bits, by what LLVM calls those of a width."""
    letters = register.lstrip("%").rstrip("0123456789")
    if letters in ("r", "rs", "rd"):
        return np.dtype({"rs": np.uint16, "r": np.uint32, "rd": np.uint64}[letters])
    if letters != "p" and "@" not in register:  # else a predicate, or one of inline assembly
        raise Unknown(register)
    return np.dtype(bool)


class Lanes:
    """Threads of several blocks of a grid; `blocks` are the numbers that they have."""

    def __init__(self, blocks: Array, threads: int, grid: int) -> None:
        self.blocks, self.threads = blocks, threads
        self.count = len(blocks) * threads
        index = np.arange(self.count)
        self.block = index // threads  # which of the resident blocks
        self.warp = index // WARP
        self.lane = index % WARP
        thread = (index % threads).astype(np.uint32)
        zero = np.zeros(self.count, np.uint32)
        self.registers: dict[Register, Array] = {
            "%tid.x": thread,
            "%ctaid.x": blocks.astype(np.uint32)[self.block],
            "%nctaid.x": np.full_like(thread, grid),
            "%nctaid.y": np.ones_like(thread),
            "%ctaid.y": zero,
            "%ctaid.z": zero,
            "global_smem": zero,
        }

    def bits(self, register: Register) -> Array:
        found = self.registers.get(register)
        if found is None:
            kind = width(register)
            value = np.array(_UNWRITTEN, np.uint64).astype(kind)
            found = self.registers[register] = np.full(self.count, value)
        return found

    def put(self, register: Operand, value: Array, active: Array | None) -> None:
        """Writes a register of the active lanes (None: of all)."""
        if register == "_":
            return
        assert isinstance(register, str), register
        bits = widened(value, width(register))
        if bits.ndim == 0:
            bits = np.full(self.count, bits)
        if active is not None:
            bits = np.where(active, bits, self.bits(register))
        self.registers[register] = bits


def widened(value: Array, kind: np.dtype[Any]) -> Array:
    """Returns bits of another width: a signed number keeps its sign, others get zeros."""
    if value.dtype.kind == "f":
        value = value.view(_UNSIGNED[value.dtype.itemsize])
    return value.astype(kind, copy=False)


Reader = Callable[[Lanes], Array]


def reader(operand: Operand, kind: str) -> Reader:
    """Returns what reads an operand as a type: the low bits of a wider register."""
    type_ = dtype(kind)
    bits = np.dtype(bool) if kind == "pred" else np.dtype(_UNSIGNED[type_.itemsize])
    if isinstance(operand, int):
        size = 8 * type_.itemsize
        constant = np.array(operand & ((1 << size) - 1), np.uint64).astype(bits).view(type_)
        return lambda lanes: constant
    assert isinstance(operand, str), operand
    name = operand

    def read(lanes: Lanes) -> Array:
        found = lanes.bits(name)
        return (found if found.dtype == bits else found.astype(bits)).view(type_)

    return read
