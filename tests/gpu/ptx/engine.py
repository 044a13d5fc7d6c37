"""Instructions of the copy engine (TMA), with what it is told by and what it reports to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tests.gpu.ptx import tiles
from tests.gpu.ptx.lanes import Array, Step, reader
from tests.gpu.ptx.tensors import Forms, of_form
from tests.gpu.ptx.text import Instruction, Tile, Unknown
from tests.gpu.ptx.transfers import address_of, chosen
from tests.gpu.ptx.units import write_units
from tests.gpu.ptx.warps import warps
from tests.gpu.simulator import Misuse

if TYPE_CHECKING:
    from tests.gpu.ptx.machine import Machine

_POISON = 0xFF
_SIZE = tiles.MAP.itemsize


def engine(i: Instruction) -> Step | None:
    """Returns what runs an instruction, None if it is of another kind."""
    return of_form(i, _FORMS)


class _Filling(NamedTuple):
    """Units of a block that are on their way, and the cells of shared memory that they fill."""

    block: Array
    places: Array
    units: Array
    cells: Array


class Engine:
    """Tensor maps that it may read, by their addresses, and what it copies, by block and barrier.

    Nothing arrives before a thread asks the barrier.
    """

    def __init__(self) -> None:
        self.maps: dict[int, Array] = {}
        self._filling: dict[tuple[int, int], list[_Filling]] = defaultdict(list)

    def start(self, m: Machine, lane: int, places: Array, units: Array, barrier: int) -> None:
        block, warp = m.block[lane], m.warp[lane]
        many = np.full(len(places), block), np.full(len(places), warp)
        cells = m.shared.fill(*many, places)
        filling = _Filling(np.array([block]), places[None], units[None], cells)
        write_units(m.shared.bytes, filling.block, places[None], np.full_like(units, _POISON)[None])
        self._filling[int(block), barrier].append(filling)

    def arrive(self, m: Machine, blocks: Array, barriers: Array) -> None:
        """Fills what these barriers are to hear of."""
        for block, barrier in {*zip(blocks.tolist(), barriers.tolist(), strict=True)}:
            for filling in self._filling.pop((block, barrier), ()):
                write_units(m.shared.bytes, filling.block, filling.places, filling.units)
                m.shared.filled(filling.cells)
                where = filling.block, np.array([barrier])
                tiles.complete(m.shared.bytes, *where, filling.units.size)


# Tensor maps.


def _replace(i: Instruction, field: str, bits: str) -> Step:
    to, *ordinal, source = i.operands
    where, value = address_of(to, "b64"), reader(source, f"b{bits}")
    number = ordinal[0] if ordinal else 0
    assert isinstance(number, int)

    def run(m: Machine, active: Array | None) -> None:
        lanes = chosen(m, active)
        block, address = m.block[lanes], where(m)[lanes].astype(np.int64)
        m.shared.rows(block, m.warp[lanes], address, _SIZE, write=True)
        given = np.broadcast_to(value(m), m.count)[lanes]
        tiles.replace_field(m.shared.bytes, block, address, field, number, given)

    return run


def _publish(i: Instruction) -> Step:
    """Warps copy the tensor map that each made to global memory."""
    to, source, size = i.operands
    outer, inner = address_of(to, "b64"), address_of(source, "b64")
    if size != _SIZE:
        raise Unknown(i.text)

    def run(m: Machine, active: Array | None) -> None:
        first = warps(m, active) * 32
        block, address = m.block[first], inner(m)[first].astype(np.int64)
        m.shared.rows(block, m.warp[first], address, _SIZE, write=False)
        made = m.shared.bytes[block[:, None], address[:, None] + np.arange(_SIZE)].view(np.uint64)
        for n in range(_SIZE // 8):
            m.memory.store(outer(m)[first] + np.uint64(8 * n), made[:, n : n + 1])

    return run


def _acquire(i: Instruction) -> Step:
    """From now on the engine knows a tensor map, as it is now."""
    where, size = i.operands
    address = address_of(where, "b64")
    if size != _SIZE:
        raise Unknown(i.text)

    def run(m: Machine, active: Array | None) -> None:
        for at in np.unique(address(m)[chosen(m, active)]):
            m.engine.maps[int(at)] = _global(m)(np.array([at]), _SIZE).reshape(-1)

    return run


def _global(m: Machine) -> tiles.Reader:
    """Returns what reads global memory: lines of bytes."""

    def read(address: Array, nbytes: int) -> Array:
        size = 8 if not (np.bitwise_or.reduce(address) | nbytes) % 8 else 2
        steps = np.arange(0, nbytes, size)
        each = address.astype(np.uint64)[:, None] + steps.astype(np.uint64)
        return m.memory.load(each.reshape(-1), size).reshape(each.shape).view(np.uint8)

    return read


# Tiles.


def _copy(i: Instruction) -> Step:
    to, source, reports = i.operands
    assert isinstance(source, Tile)
    where, barrier = address_of(to, "b32"), address_of(reports, "b32")
    descriptor = reader(source.descriptor, "b64")
    columns, rows = (reader(o, "s32") for o in source.start)

    def run(m: Machine, active: Array | None) -> None:
        operands = (descriptor, columns, rows, where, barrier)
        values = [np.broadcast_to(read(m).astype(np.int64), m.count) for read in operands]
        for lane in chosen(m, active).tolist():
            known, column, row, to, reported = (int(value[lane]) for value in values)
            tensor_map = m.engine.maps.get(known)
            if tensor_map is None:
                raise Misuse("the copy engine does not know the tensor map: nobody acquired it")
            places, units = tiles.tile(tensor_map, to, (column, row), _global(m))
            m.engine.start(m, lane, places, units, reported)

    return run


# Barriers.


def _make(i: Instruction) -> Step:
    where, count = i.operands
    address = address_of(where, "b32")
    assert isinstance(count, int)
    return lambda m, active: tiles.make_barriers(*_barriers(m, active, address), count)


def _drop(i: Instruction) -> Step:
    (where,) = i.operands
    address = address_of(where, "b32")
    return lambda m, active: tiles.drop_barriers(*_barriers(m, active, address))


def _expect(i: Instruction) -> Step:
    to, where, nbytes = i.operands
    address = address_of(where, "b32")
    if to != "_" or not isinstance(nbytes, int):
        raise Unknown(i.text)
    return lambda m, active: tiles.arrive_expecting(*_barriers(m, active, address), nbytes)


def _ask(i: Instruction) -> Step:
    to, where, phase = i.operands
    address, parity = address_of(where, "b32"), reader(phase, "u32")

    def run(m: Machine, active: Array | None) -> None:
        lanes = chosen(m, active)
        shared, block, at = _barriers(m, active, address)
        m.engine.arrive(m, block, at)
        complete = np.zeros(m.count, bool)
        wanted = np.broadcast_to(parity(m), m.count)[lanes]
        complete[lanes] = tiles.is_complete(shared, block, at, wanted)
        m.put(to, complete, active)

    return run


def _barriers(
    m: Machine, active: Array | None, address: Callable[[Machine], Array]
) -> tuple[Array, Array, Array]:
    lanes = chosen(m, active)
    return m.shared.bytes, m.block[lanes], address(m)[lanes].astype(np.int64)


def _fence(i: Instruction) -> Step:
    """fence.proxy.async (PTX ISA, membar / fence)."""

    def run(m: Machine, active: Array | None) -> None:
        lanes = chosen(m, active)
        m.shared.fence(m.block[lanes], m.warp[lanes])

    return run


_SHARED = r"\.shared(?:::cta)?\.b64"
_FORMS: Forms = {
    r"fence\.proxy\.async\.shared::cta": _fence,
    r"tensormap\.replace\.tile\.(\w+)\.shared::cta\.b1024\.b(32|64)": _replace,
    r"tensormap\.cp_fenceproxy\.global\.shared::cta\.tensormap::generic\.release\.gpu"
    r"\.sync\.aligned": _publish,
    r"fence\.proxy\.tensormap::generic\.acquire\.gpu": _acquire,
    r"cp\.async\.bulk\.tensor\.2d\.shared::(?:cta|cluster)\.global\.mbarrier::complete_tx"
    r"::bytes": _copy,
    rf"mbarrier\.init{_SHARED}": _make,
    rf"mbarrier\.inval{_SHARED}": _drop,
    rf"mbarrier\.arrive\.expect_tx{_SHARED}": _expect,
    rf"mbarrier\.try_wait\.parity{_SHARED}": _ask,
}
