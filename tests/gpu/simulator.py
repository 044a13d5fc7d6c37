"""Memory, streams and order of a device made of Python, which does everything as late as it may.

An operation runs only when the host waits for it or for what comes after it, so that whoever forgot
to wait sees what was there before. Two operations that touch the same memory must be ordered by a
stream, an event or the host.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

GUARD = 256  # bytes before and behind each allocation, and its alignment
_UNTOUCHED, _UNKNOWN = 0xA5, 0xFF  # bytes of guards; bytes of memory that nobody has written
Span = tuple[int, int]  # addresses from the first byte to behind the last


class Misuse(AssertionError):
    """What a real driver would not notice, but what would be wrong, now and then."""


class Allocation:
    """A block of memory between guards; `name` is said in errors."""

    def __init__(self, name: str, nbytes: int) -> None:
        self.name, self.nbytes = name, nbytes
        self._memory = (ctypes.c_uint8 * (nbytes + 3 * GUARD))()
        first = ctypes.addressof(self._memory)
        self.address = first + 2 * GUARD - first % GUARD
        ctypes.memset(first, _UNTOUCHED, len(self._memory))
        ctypes.memset(self.address, _UNKNOWN, nbytes)

    @property
    def span(self) -> Span:
        return self.address, self.address + self.nbytes

    def check_guards(self) -> None:
        for start in (self.address - GUARD, self.address + self.nbytes):
            if set(ctypes.string_at(start, GUARD)) != {_UNTOUCHED}:
                raise Misuse(f"something was written beside {self.name}")


class Memory:
    """All allocations of one kind (`device`, `pinned`)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.blocks: dict[int, Allocation] = {}
        self._made = 0

    def allocate(self, nbytes: int) -> int:
        self._made += 1
        block = Allocation(f"{self.kind} memory {self._made} ({nbytes} bytes)", nbytes)
        self.blocks[block.address] = block
        return block.address

    def holding(self, address: int) -> Allocation | None:
        """Returns the allocation that an address lies in."""
        inside = (b for b in self.blocks.values() if b.span[0] <= address < b.span[1])
        return next(inside, None)

    def span(self, address: int, nbytes: int) -> Span:
        block = self.holding(address)
        if block is None or address + nbytes > block.span[1]:
            raise Misuse(f"{nbytes} bytes at {address:#x} are not in {self.kind} memory")
        return address, address + nbytes


@dataclass(eq=False)
class Operation:
    """Something that a stream is to do. `before` has the bits of all that it comes after."""

    name: str
    bit: int
    before: int
    reads: Sequence[Span]
    writes: Sequence[Span]
    act: Callable[[], object]

    def conflict(self, other: Operation) -> bool:
        pairs = (
            *product(self.writes, (*other.reads, *other.writes)),
            *product(self.reads, other.writes),
        )
        return any(a[0] < b[1] and b[0] < a[1] for a, b in pairs)


@dataclass(eq=False)
class Order:
    """What was asked of the device and is not known to be done yet, by bit."""

    waiting: dict[int, Operation] = field(default_factory=dict)
    done: int = 0  # bits of what the host knows to be done
    made: int = 0

    def enqueue(
        self,
        name: str,
        after: int,
        act: Callable[[], object],
        reads: Sequence[Span] = (),
        writes: Sequence[Span] = (),
    ) -> Operation:
        """Adds what comes after the bits `after`; raises Misuse for a race with another."""
        one = Operation(name, 1 << self.made, after & ~self.done, reads, writes, act)
        loose = (one.bit - 1) & ~self.done & ~one.before
        while loose:
            other = self.waiting[loose & -loose]
            loose ^= other.bit
            if one.conflict(other):
                raise Misuse(f"{name} and {other.name} touch the same memory, in any order")
        self.waiting[one.bit] = one
        self.made += 1
        return one

    def finish(self, bits: int) -> None:
        """Lets the host wait for operations, and with them for all before them."""
        for one in [o for o in self.waiting.values() if o.bit & bits]:
            bits |= one.before
        for one in self.among(bits):
            one.act()
            del self.waiting[one.bit]
            self.done |= one.bit

    def among(self, bits: int) -> list[Operation]:
        return [one for one in self.waiting.values() if one.bit & bits]

    def touching(self, span: Span) -> Iterator[Operation]:
        """Yields what is not known to be done and reads or writes some of these bytes."""
        probe = Operation("", 0, 0, (), (span,), lambda: None)
        return (one for one in self.waiting.values() if probe.conflict(one))
