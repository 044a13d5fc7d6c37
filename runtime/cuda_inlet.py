"""The way to the GPU of what a step reads that is new each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.cuda_driver import DeviceBlock, Driver, Pinned
from runtime.executable import Array
from runtime.tensor_bytes import dense, fill, span, strided
from schemas.program import Program, Tensor

_ALIGNMENT = 256  # of the parts, bytes: both sides copy whole lines


def has_inlet(tensor: Tensor) -> bool:
    """Whether a tensor is an input, and no bytes of others lie within its span."""
    return tensor.role == "input" and dense(tensor)


@dataclass(frozen=True)
class _Part:
    """An input, or a slot of scalars: where it begins in a staging buffer, and on the GPU."""

    begin: int
    nbytes: int
    address: int


class Inlet:
    """What is written before a step: all of it goes over in one copy, by one chain of events.

    The memory of inputs is in use until the step before is done. So the slow copy, over the bus,
    goes to a block beside it, on the stream of copies, while that step still runs; the fast ones
    from there stand between the two steps. There are two staging buffers: filling one does not wait
    for the copy from the other.
    """

    def __init__(self, driver: Driver, program: Program, blocks: Mapping[str, DeviceBlock]) -> None:
        self._driver = driver
        self._tensors = {n: t for n, t in program.tensors.items() if has_inlet(t)}
        scalars = {t.slot for t in program.tensors.values() if t.role == "scalar"}
        sizes = {n: (span(t), t.slot, t.offset) for n, t in self._tensors.items()}
        sizes |= {slot: (blocks[slot].nbytes, slot, 0) for slot in sorted(scalars)}
        self._parts: dict[str, _Part] = {}
        end = 0
        for name, (nbytes, slot, offset) in sizes.items():
            self._parts[name] = _Part(end, nbytes, blocks[slot].address + offset)
            end += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        self._landing = int(driver.call("cuMemAlloc", max(end, _ALIGNMENT)))
        self._taken = driver.event()  # the landing may be written again
        self._staging = [Pinned(driver, end) for _ in range(2)]
        self._copied = [driver.event() for _ in range(2)]
        self._views = [self._views_of(buffer.bytes) for buffer in self._staging]
        self._next = 0  # the staging buffer that is filled
        self._filled: dict[str, _Part] = {}

    def _views_of(self, raw: Array) -> dict[str, Array]:
        """Returns a staging buffer's parts: inputs as their elements, slots of scalars as bytes."""
        bytes_of = {n: raw[p.begin : p.begin + p.nbytes] for n, p in self._parts.items()}
        return bytes_of | {n: strided(t, bytes_of[n]) for n, t in self._tensors.items()}

    def _view(self, name: str) -> Array:
        if not self._filled:  # the first of a step waits until the last copy from here is done
            self._driver.use()
            self._driver.call("cuEventSynchronize", self._copied[self._next])
        return self._views[self._next][name]

    def write(self, name: str, value: Array | float | int) -> None:
        """Takes the next value of an input."""
        fill(self._tensors[name], value, self._view(name))
        self._filled[name] = self._parts[name]

    def write_slot(self, slot: str, raw: Array) -> None:
        """Takes the next bytes of a slot of scalars."""
        self._view(slot)[...] = raw
        self._filled[slot] = self._parts[slot]

    def send(self) -> None:
        """Enqueues the way of all that was written since the last time."""
        if not self._filled:
            return
        driver, parts = self._driver, self._filled.values()
        begin, end = min(p.begin for p in parts), max(p.begin + p.nbytes for p in parts)
        host, copied = self._staging[self._next].address, self._copied[self._next]
        driver.wait(driver.copies, self._taken)
        driver.upload(self._landing + begin, host + begin, end - begin, driver.copies)
        driver.record(copied, driver.copies)
        driver.wait(driver.stream, copied)
        for part in parts:
            driver.move(part.address, self._landing + part.begin, part.nbytes)
        driver.record(self._taken)
        self._next = 1 - self._next
        self._filled = {}

    def release(self) -> None:
        for event in (*self._copied, self._taken):
            self._driver.call("cuEventDestroy", event)
        for buffer in self._staging:
            buffer.release()
        self._driver.call("cuMemFree", self._landing)
