"""Instructions of the tensor cores, with their ways to shared memory. What they make is late."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tests.gpu.ptx import matrices
from tests.gpu.ptx.lanes import WARP, Array, Reader, Step, reader
from tests.gpu.ptx.text import Instruction, Operand, Register, Unknown
from tests.gpu.ptx.transfers import address_of, registers
from tests.gpu.ptx.units import read_units
from tests.gpu.ptx.warps import warps
from tests.gpu.simulator import Misuse

if TYPE_CHECKING:
    from tests.gpu.ptx.machine import Machine

_GROUP = 128


# What makes a step of an instruction and of the groups of the pattern that its name matches.
Forms = dict[str, Callable[..., Step]]


def tensor(i: Instruction) -> Step | None:
    """Returns what runs an instruction, None if it is of another kind."""
    return of_form(i, _FORMS)


def of_form(i: Instruction, forms: Forms) -> Step | None:
    for pattern, make in forms.items():
        if found := re.fullmatch(pattern, i.name):
            return make(i, *found.groups(""))
    return None


def _rows(m: Machine, value: Array, which: Array, size: int = WARP) -> Array:
    """Returns what the lanes of some warps hold, a row each."""
    return np.broadcast_to(value, m.count).reshape(-1, size)[which]


def _put(m: Machine, register: Operand, rows: Array, which: Array, active: Array | None) -> None:
    whole = np.zeros((m.count // rows.shape[1], rows.shape[1]), rows.dtype)
    whole[which] = rows
    m.put(register, whole.reshape(-1), active)


# Warps.


def _load_matrices(i: Instruction, count: str, transposed: str) -> Step:
    to, source = i.operands
    where, used = address_of(source, "b32"), 8 * int(count)

    def run(m: Machine, active: Array | None) -> None:
        which = warps(m, active)
        block, address = m.block[which * WARP], _rows(m, where(m), which)[:, :used]
        note = np.repeat(block, used), np.repeat(which, used), address.reshape(-1)
        m.shared.rows(*note, 16, write=False)
        found = matrices.load_matrices(m.shared.bytes, block, address, int(count), bool(transposed))
        for register, value in zip(registers(to), found, strict=True):
            _put(m, register, value, which, active)

    return run


def _store_matrices(i: Instruction, count: str, transposed: str) -> Step:
    to, source = i.operands
    where, used = address_of(to, "b32"), 8 * int(count)
    values = [reader(o, "b32") for o in registers(source)]

    def run(m: Machine, active: Array | None) -> None:
        which = warps(m, active)
        block, address = m.block[which * WARP], _rows(m, where(m), which)[:, :used]
        note = np.repeat(block, used), np.repeat(which, used), address.reshape(-1)
        m.shared.rows(*note, 16, write=True)
        rows = [_rows(m, read(m), which) for read in values]
        matrices.store_matrices(m.shared.bytes, block, address, rows, bool(transposed))

    return run


def _multiply_warp(i: Instruction, depth: str, kind: str) -> Step:
    if _DEPTHS[kind] != depth:
        raise Unknown(i.text)
    to, *factors, sums = i.operands
    a, b = ([reader(o, "b32") for o in registers(factor)] for factor in factors)
    c = [reader(o, "f32") for o in registers(sums)]

    def run(m: Machine, active: Array | None) -> None:
        which = warps(m, active)
        given = ([_rows(m, read(m), which) for read in factor] for factor in (a, b, c))
        found = matrices.multiply_warp(kind, *given)
        for register, value in zip(registers(to), found, strict=True):
            _put(m, register, value, which, active)

    return run


# Groups of four warps.


class _Operand(NamedTuple):
    """What tensor cores read of shared memory: units of groups, and what they held."""

    groups: Array
    units: Array
    held: Array
    committed: Array  # after how many commits of a group


class Products:
    """Products on their way. Who reads a sum before it waited for it finds no number."""

    def __init__(self, lanes: int) -> None:
        self._committed = np.zeros(lanes // _GROUP, np.int64)
        self._operands: list[_Operand] = []
        self._sums: dict[Register, Array] = {}
        self._last: dict[Register, Array] = {}  # after how many commits, of each group; or _DONE

    def sums(self, m: Machine, register: Register, groups: Array) -> Array:
        """Returns what an accumulator holds, or will hold."""
        bits = m.bits(register).view(np.float32).reshape(-1, _GROUP)[groups]
        if register not in self._sums:
            return bits
        ahead = self._last[register][groups] != _DONE
        return np.where(ahead[:, None], self._sums[register][groups], bits)

    def start(self, m: Machine, register: Register, groups: Array, sums: Array) -> None:
        shape = len(self._committed), _GROUP
        self._sums.setdefault(register, np.zeros(shape, np.float32))[groups] = sums
        last = self._last.setdefault(register, np.full(shape[0], _DONE))
        last[groups] = self._committed[groups]
        unknown = np.full(sums.shape, np.nan, np.float32)
        _put(m, register, unknown, groups, _lanes(m, groups))

    def read(self, m: Machine, groups: Array, units: Array) -> None:
        held = read_units(m.shared.bytes, m.block[groups * _GROUP], units)
        self._operands.append(_Operand(groups, units, held, self._committed[groups]))
        _fetch(m, groups, units)

    def commit(self, groups: Array) -> None:
        self._committed[groups] += 1

    def wait(self, m: Machine, groups: Array, left: int) -> None:
        """Waits for all that groups committed but the last `left`."""
        limit = np.zeros_like(self._committed)
        limit[groups] = np.maximum(self._committed[groups] - left, 0)
        waiting = []
        for operand in self._operands:
            done = operand.committed < limit[operand.groups]
            if done.any():
                _check_unchanged(m, _Operand(*(part[done] for part in operand)))
            if not done.all():
                waiting.append(_Operand(*(part[~done] for part in operand)))
        self._operands = waiting
        for register, last in self._last.items():
            ready = np.flatnonzero((last != _DONE) & (last < limit))
            if len(ready):
                _put(m, register, self._sums[register][ready], ready, _lanes(m, ready))
                last[ready] = _DONE


_DONE = -1


def _lanes(m: Machine, groups: Array) -> Array:
    lanes = np.zeros((m.count // _GROUP, _GROUP), bool)
    lanes[groups] = True
    return lanes.reshape(-1)


def _fetch(m: Machine, groups: Array, units: Array) -> None:
    address = units.reshape(len(units), -1)
    m.shared.fetch(np.repeat(m.block[groups * _GROUP], address.shape[1]), address.reshape(-1))


def _check_unchanged(m: Machine, operand: _Operand) -> None:
    """Until it is waited for, tensor cores may read at any time."""
    now = read_units(m.shared.bytes, m.block[operand.groups * _GROUP], operand.units)
    if np.any(now != operand.held):
        raise Misuse("what tensor cores read was written before they were waited for")
    _fetch(m, operand.groups, operand.units)


def _multiply_group(i: Instruction, n: str, depth: str, kind: str) -> Step:
    to, first, second, accumulate, *flags = i.operands
    sums = [str(o) for o in registers(to)]
    if flags[:2] != [1, 1] or _DEPTHS[kind] != depth or 2 * len(sums) != int(n):
        raise Unknown(i.text)
    holds = reader(accumulate, "pred")
    turned_a, turned_b = len(flags) == 4 and flags[2] == 1, len(flags) > 2 and flags[-1] == 1
    in_registers = isinstance(first, tuple)
    a = [reader(o, "b32" if in_registers else "b64") for o in registers(first)]
    b = reader(second, "b64")

    def descriptors(m: Machine, groups: Array, read: Reader, extent: int, turned: bool) -> Array:
        """Takes note of an operand in shared memory."""
        given = _rows(m, read(m), groups, _GROUP)
        if np.any(given != given[:, :1]):
            raise Misuse("threads of a group give different descriptors")
        units = matrices.operand_units(kind, given[:, 0], extent, turned)
        m.products.read(m, groups, units)
        return given[:, 0]

    def run(m: Machine, active: Array | None) -> None:
        groups = warps(m, active, _GROUP)
        found = matrices.multiply_group(
            kind,
            [_rows(m, read(m), groups, _GROUP) for read in a]
            if in_registers
            else descriptors(m, groups, a[0], 64, turned_a),
            descriptors(m, groups, b, int(n), turned_b),
            [m.products.sums(m, register, groups) for register in sums],
            _rows(m, holds(m), groups, _GROUP)[:, 0],
            turned_a,
            turned_b,
            m.shared.bytes,
            m.block[groups * _GROUP],
        )
        for register, value in zip(sums, found, strict=True):
            m.products.start(m, register, groups, value)

    return run


def _commit(i: Instruction) -> Step:
    return lambda m, active: m.products.commit(warps(m, active, _GROUP))


def _wait(i: Instruction) -> Step:
    (left,) = i.operands
    assert isinstance(left, int)
    return lambda m, active: m.products.wait(m, warps(m, active, _GROUP), left)


_DEPTHS = {"bf16": "16", "tf32": "8"}
_FORMS: Forms = {
    r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16": _load_matrices,
    r"stmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16": _store_matrices,
    r"mma\.sync\.aligned\.m16n8k(\d+)\.row\.col\.f32\.(bf16|tf32)\.\2\.f32": _multiply_warp,
    r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k(\d+)\.f32\.(bf16|tf32)\.\3": _multiply_group,
    r"wgmma\.commit_group\.sync\.aligned": _commit,
    r"wgmma\.wait_group\.sync\.aligned": _wait,
}
