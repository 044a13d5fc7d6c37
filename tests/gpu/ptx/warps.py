"""Instructions that the threads of a warp run together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.gpu.ptx.lanes import WARP, Array, Step, reader
from tests.gpu.ptx.text import Instruction, Unknown
from tests.gpu.simulator import Misuse

if TYPE_CHECKING:
    from tests.gpu.ptx.machine import Machine


def together(i: Instruction) -> Step | None:
    """Returns what runs an instruction, None if it is of another kind."""
    made = {"shfl": _shuffle, "redux": _reduce, "elect": _elect}.get(i.parts[0])
    return None if made is None else made(i)


def warps(m: Machine, active: Array | None, size: int = WARP) -> Array:
    """Returns the numbers of the warps that are active, all of whose threads must be."""
    if active is None:
        return np.arange(m.count // size)
    rows = active.reshape(-1, size)
    if np.any(rows.any(axis=1) != rows.all(axis=1)):
        raise Misuse("a part of a warp runs what all of it should")
    return np.flatnonzero(rows[:, 0])


def _shuffle(i: Instruction) -> Step:
    to, source, by, clamp, mask = i.operands
    if (clamp, mask) != (31, -1):
        raise Unknown(i.text)
    value, lane = reader(source, "b32"), reader(by, "u32")
    across = i.parts[2] == "bfly"

    def run(m: Machine, active: Array | None) -> None:
        warps(m, active)
        bits = np.broadcast_to(value(m), m.count).reshape(-1, WARP)
        other = np.broadcast_to(lane(m), m.count).reshape(-1, WARP).astype(np.int64)
        wanted = np.arange(WARP) ^ other if across else other % WARP
        m.put(to, np.take_along_axis(bits, wanted, axis=1).reshape(-1), active)

    return run


def _reduce(i: Instruction) -> Step:
    to, source, _ = i.operands
    value = reader(source, i.parts[3])
    function = {"min": np.min, "max": np.max}[i.parts[2]]

    def run(m: Machine, active: Array | None) -> None:
        warps(m, active)
        rows = np.broadcast_to(value(m), m.count).reshape(-1, WARP)
        m.put(to, np.repeat(function(rows, axis=1), WARP), active)

    return run


def _elect(i: Instruction) -> Step:
    """The first thread is elected."""
    number, chosen, _ = i.operands

    def run(m: Machine, active: Array | None) -> None:
        warps(m, active)
        m.put(number, np.zeros(m.count, np.uint32), active)
        m.put(chosen, m.lane == 0, active)

    return run
