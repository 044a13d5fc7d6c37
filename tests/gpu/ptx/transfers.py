"""Instructions that read and write memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.gpu.ptx.lanes import Array, Step, reader
from tests.gpu.ptx.memory import aligned
from tests.gpu.ptx.text import Address, Instruction, Operand, Unknown

if TYPE_CHECKING:
    from tests.gpu.ptx.machine import Machine

_POISON = 0xFF


def transfer(i: Instruction) -> Step | None:
    """Returns what runs an instruction, None if it is of another kind."""
    name = i.name
    if name.startswith("ld.param"):
        return _parameter(i)
    if name.startswith(("ld.global", "ld.shared", "st.global", "st.shared")):
        return _load(i) if name.startswith("ld") else _store(i)
    if name == "atom.global.gpu.acq_rel.add.u32":
        return _add(i)
    if name.startswith(("cp.async.ca.shared.global", "cp.async.cg.shared.global")):
        return _copy(i)
    if name == "cp.async.commit_group":
        return lambda m, active: m.copies.commit(active)
    if name == "cp.async.wait_group":
        (left,) = i.operands
        assert isinstance(left, int)
        return lambda m, active: m.copies.wait(m, active, left)
    return None


def chosen(m: Machine, active: Array | None) -> Array:
    """Returns the numbers of the active lanes."""
    return np.arange(m.count) if active is None else np.flatnonzero(active)


def address_of(operand: Operand, kind: str) -> Callable[[Machine], Array]:
    assert isinstance(operand, Address)
    base, offset = reader(operand.base, kind), operand.offset
    return lambda m: base(m) + base(m).dtype.type(offset) if offset else base(m)


def registers(operand: Operand) -> tuple[Operand, ...]:
    return operand if isinstance(operand, tuple) else (operand,)


def _parameter(i: Instruction) -> Step:
    to, source = i.operands
    where = address_of(source, "b32")
    return lambda m, active: m.put(to, m.parameters[where(m) // 8], active)


def _load(i: Instruction) -> Step:
    to, source = i.operands
    size = int(i.parts[-1][1:]) // 8
    outside = "global" in i.parts
    where = address_of(source, "b64" if outside else "b32")
    many = registers(to)

    def run(m: Machine, active: Array | None) -> None:
        lanes = chosen(m, active)
        at = where(m)[lanes]
        aligned(at, size * len(many))
        if outside:
            values = m.memory.load(at, size, len(many))
        else:
            values = m.shared.load(m.block[lanes], m.warp[lanes], at, size, len(many))
        for register, value in zip(many, values.T, strict=True):
            whole = np.zeros(m.count, value.dtype)
            whole[lanes] = value
            m.put(register, whole, active)

    return run


def _store(i: Instruction) -> Step:
    to, source = i.operands
    size = int(i.parts[-1][1:]) // 8
    outside = "global" in i.parts
    where = address_of(to, "b64" if outside else "b32")
    many = [reader(o, f"b{8 * size}") for o in registers(source)]

    def run(m: Machine, active: Array | None) -> None:
        lanes = chosen(m, active)
        at = where(m)[lanes]
        aligned(at, size * len(many))
        values = np.stack([np.broadcast_to(read(m), m.count)[lanes] for read in many], axis=1)
        if outside:
            m.memory.store(at, values)
        else:
            m.shared.store(m.block[lanes], m.warp[lanes], at, values)

    return run


def _add(i: Instruction) -> Step:
    to, where, source = i.operands
    address, value = address_of(where, "b64"), reader(source, "u32")

    def run(m: Machine, active: Array | None) -> None:
        lanes = chosen(m, active)
        before = np.zeros(m.count, np.uint32)
        added = np.broadcast_to(value(m), m.count)[lanes]
        before[lanes] = m.memory.add(address(m)[lanes], added)
        m.put(to, before, active)

    return run


@dataclass(frozen=True)
class _Copy:
    """What lanes copy; `group`: after how many commits of a lane it is on its way."""

    lanes: Array
    address: Array
    data: Array
    group: Array

    def of(self, which: Array) -> _Copy:
        return _Copy(self.lanes[which], self.address[which], self.data[which], self.group[which])


class Copies:
    """Copies to shared memory that are on their way: they arrive as late as they may."""

    def __init__(self, lanes: int) -> None:
        self._committed = np.zeros(lanes, np.int64)
        self._waiting: list[_Copy] = []

    def start(self, m: Machine, lanes: Array, address: Array, data: Array) -> None:
        """Until they arrive, no number stands where they go."""
        _write(m, lanes, address, np.full_like(data, _POISON))
        self._waiting.append(_Copy(lanes, address, data, self._committed[lanes]))

    def commit(self, active: Array | None) -> None:
        self._committed[slice(None) if active is None else active] += 1

    def wait(self, m: Machine, active: Array | None, left: int) -> None:
        """Waits for all groups of the active lanes but the last `left`."""
        here = np.ones(m.count, bool) if active is None else active
        waiting = []
        for copy in self._waiting:
            done = here[copy.lanes] & (copy.group < self._committed[copy.lanes] - left)
            _write(m, copy.lanes[done], copy.address[done], copy.data[done])
            if not done.all():
                rest = ~done
                waiting.append(
                    _Copy(copy.lanes[rest], copy.address[rest], copy.data[rest], copy.group[rest])
                )
        self._waiting = waiting


def _write(m: Machine, lanes: Array, address: Array, data: Array) -> None:
    size = data.shape[1]
    block = m.block[lanes]
    # Neither Triton nor CUTLASS has a fence between such a copy and tensor cores.
    m.shared.rows(block, m.warp[lanes], address, size, write=True, fenced=True)
    first = m.shared.places(block, address, 1)
    m.shared.bytes.reshape(-1)[first[:, None] + np.arange(size)] = data


def _copy(i: Instruction) -> Step:
    """Copies a number of bytes, of which the last may be zeros and are not read."""
    to, source, size, *given = i.operands
    assert isinstance(size, int)
    where, address = address_of(to, "b32"), address_of(source, "b64")
    read = reader(given[0], "u32") if given else None

    def run(m: Machine, active: Array | None) -> None:
        lanes = chosen(m, active)
        data = np.zeros((len(lanes), size), np.uint8)
        taken = np.full(len(lanes), size) if read is None else read(m)[lanes]
        if np.any((taken != 0) & (taken != size)):
            raise Unknown(i.text)
        full = np.flatnonzero(taken)
        at = address(m)[lanes][full]
        aligned(at, size)
        data[full] = m.memory.load(at, 4, size // 4).view(np.uint8)
        m.copies.start(m, lanes, where(m)[lanes], data)

    return run
