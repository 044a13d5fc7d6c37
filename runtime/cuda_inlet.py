"""The way to the GPU of what a step reads that is new each time."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby

from runtime.cuda_driver import Driver, Pinned
from runtime.executable import Array
from runtime.tensor_bytes import dense, fill, span, strided
from schemas.program import INPUTS, Program

_ALIGNMENT = 256  # of the slots, bytes


@dataclass(frozen=True)
class _Part:
    """An input, or a slot: which bytes of a side it is."""

    begin: int
    end: int


class Inlet:
    """The slots of inputs and of scalars, twice: on one side a step reads them where they lie.

    What is written goes to the other side, from pinned memory over the bus in one copy, on the
    stream of copies, while that step still runs; then the next step reads there. What is written
    only now and then is copied from side to side once, between two steps.
    """

    def __init__(self, driver: Driver, program: Program) -> None:
        self._driver = driver
        self._slots, self._nbytes = _slots(program)
        # An output may lie where an input does.
        tensors = program.tensors.items()
        self._tensors = {n: t for n, t in tensors if t.slot == INPUTS and t.role == "input"}
        parts = {name: part for name, part in self._slots.items() if name != INPUTS}
        for name, tensor in self._tensors.items():
            assert dense(tensor), name  # no bytes of others lie within its span
            at = self._slots[INPUTS].begin + tensor.offset
            parts[name] = _Part(at, at + span(tensor))
        self._parts = dict(sorted(parts.items(), key=lambda item: item[1].begin))
        with ExitStack() as made:
            self._sides: list[int] = []
            self._staging: list[Pinned] = []
            for _ in range(2):
                self._sides.append(int(driver.call("cuMemAlloc", max(1, self._nbytes))))
                made.callback(driver.call, "cuMemFree", self._sides[-1])
                self._staging.append(Pinned(driver, self._nbytes))
                made.callback(self._staging[-1].release)
            self._copied = [driver.event() for _ in range(2)]
            self._left = [driver.event() for _ in range(2)]  # by all that reads a side
            for event in (*self._copied, *self._left):
                made.callback(driver.call, "cuEventDestroy", event)
            self.release = made.pop_all().close
        for side in self._sides:
            driver.call("cuMemsetD8Async", side, 0, max(1, self._nbytes), driver.stream)
        for event in self._left:
            driver.record(event)
        self._views = [self._views_of(buffer.bytes) for buffer in self._staging]
        self._filled: set[str] = set()
        self._missed: set[str] = set()  # what the side that is filled next does not have
        self.side = 0  # the one that the next step reads, if nothing is written before it

    def _views_of(self, raw: Array) -> dict[str, Array]:
        """Returns a staging buffer's parts: inputs as their elements, slots of scalars as bytes."""
        bytes_of = {n: raw[p.begin : p.end] for n, p in self._parts.items()}
        return bytes_of | {n: strided(t, bytes_of[n]) for n, t in self._tensors.items()}

    def __contains__(self, slot: str) -> bool:
        return slot in self._slots

    def address(self, slot: str) -> int:
        """Returns where a slot lies for the next step."""
        return self._sides[self.side] + self._slots[slot].begin

    def _view(self, name: str) -> Array:
        """Returns a part of the staging buffer, which then counts as filled."""
        side = 1 - self.side
        if not self._filled:  # the first of a step waits until the last copy from here is done
            self._driver.use()
            self._driver.call("cuEventSynchronize", self._copied[side])
        return self._views[side][name]

    def write(self, name: str, value: Array | float | int) -> None:
        """Takes the next value of an input."""
        fill(self._tensors[name], value, self._view(name))
        self._filled.add(name)

    def write_slot(self, slot: str, raw: Array) -> None:
        """Takes the next bytes of a slot of scalars."""
        self._view(slot)[...] = raw
        self._filled.add(slot)

    def send(self) -> None:
        """Enqueues the way of all that was written since the last time: the sides change."""
        if not self._filled:
            return
        driver, old, new = self._driver, self.side, 1 - self.side
        there, here = self._sides[new], self._sides[old]
        driver.wait(driver.copies, self._left[new])
        for written, names in groupby(self._parts, key=self._filled.__contains__):
            parts = [self._parts[name] for name in names]
            begin, end = parts[0].begin, parts[-1].end
            if written:
                host = self._staging[new].address + begin
                driver.upload(there + begin, host, end - begin, driver.copies)
        if moved := sorted(self._missed - self._filled):
            for part in (self._parts[name] for name in moved):
                driver.move(there + part.begin, here + part.begin, part.end - part.begin)
            driver.record(self._left[old])  # which was read once more
        driver.record(self._copied[new], driver.copies)
        driver.wait(driver.stream, self._copied[new])
        self.side = new
        self._missed, self._filled = self._filled, set()

    def leave(self) -> None:
        """Says that all that reads this side has been enqueued."""
        self._driver.record(self._left[self.side])


def _slots(program: Program) -> tuple[dict[str, _Part], int]:
    """Returns where the slots lie on a side, and the bytes of a side."""
    scalars = {t.slot for t in program.tensors.values() if t.role == "scalar"}
    found, end = dict[str, _Part](), 0
    for slot in program.slots:
        if slot.name == INPUTS or slot.name in scalars:
            found[slot.name] = _Part(end, end + slot.nbytes)
            end += -(-slot.nbytes // _ALIGNMENT) * _ALIGNMENT
    return found, end
