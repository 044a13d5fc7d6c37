"""The wire format of protocol buffers: fields of a message, read and written."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}
_TYPES: dict[int, np.dtype[Any]] = {FIXED64: np.dtype("<f8"), FIXED32: np.dtype("<f4")}


class WireError(ValueError):
    """The bytes are no message; `at` counts from the start of the whole file."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(f"{message} at byte {at:,}")
        self.at = at


class Field(NamedTuple):
    """One field of a message, at its place in the file.

    `value` is an int for a varint, a Message for bytes, and for numbers of fixed width an array of
    all that follow each other under that number, so that millions of floats that are not packed
    cost no more than packed ones.
    """

    number: int
    wire: int
    value: Any
    at: int

    def message(self) -> Message:
        self._expect(BYTES)
        found: Message = self.value
        return found

    def text(self) -> str:
        return self.message().text()

    def integer(self) -> int:
        """Returns an int32 or int64 as it was written: negative ones take ten bytes."""
        self._expect(VARINT)
        value: int = self.value
        return value - 2**64 if value >= 2**63 else value

    def integers(self) -> list[int]:
        """Returns the integers of a repeated field, packed or not."""
        if self.wire == BYTES:
            packed: list[int] = self.value.varints()
            return [value - 2**64 if value >= 2**63 else value for value in packed]
        return [self.integer()]

    def numbers(self, kind: int = FIXED32) -> Array:
        """Returns the floats (FIXED64: doubles) of a repeated field, packed or not."""
        if self.wire != BYTES:
            self._expect(kind)
        found: Array = self.value.numbers(kind) if self.wire == BYTES else self.value
        return found

    def _expect(self, wire: int) -> None:
        if self.wire != wire:
            message = f"field {self.number} has wire type {self.wire}, not {wire},"
            raise WireError(message, self.at)


class Message:
    """The bytes from `start` to `end` of a file, read as fields. Nothing is copied."""

    def __init__(self, data: memoryview, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.start = start
        self.end = len(data) if end is None else end

    def __iter__(self) -> Iterator[Field]:
        at = self.start
        while at < self.end:
            tag_at = at
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise WireError(f"there is no field {number}", tag_at)
            if wire == VARINT:
                value, at = self._varint(at)
                yield Field(number, wire, value, tag_at)
            elif wire == BYTES:
                length, at = self._varint(at)
                if length > self.end - at:
                    message = f"field {number} has {length:,} bytes, but {self.end - at:,} are left"
                    raise WireError(message, tag_at)
                yield Field(number, wire, Message(self.data, at, at + length), tag_at)
                at += length
            elif wire in _WIDTH:
                found, at = self._run(tag_at, at, wire)
                yield Field(number, wire, found, tag_at)
            else:
                raise WireError(f"unknown wire type {wire}", tag_at)

    def _varint(self, at: int) -> tuple[int, int]:
        """Returns the number at a place and the place behind it."""
        value, begun = 0, at
        for shift in range(0, 70, 7):
            if at >= self.end:
                raise WireError("the file ends within a number", begun)
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
        raise WireError("a number of more than 10 bytes", begun)

    def _run(self, tag_at: int, at: int, wire: int) -> tuple[Array, int]:
        """Returns the numbers of fixed width that follow each other with the same tag."""
        head, width = at - tag_at, _WIDTH[wire]
        step = head + width
        count = (self.end - tag_at) // step
        if count == 0:
            raise WireError("the file ends within a number", tag_at)
        # Every record begins with the same bytes as the first, as far as the run goes.
        rows = np.frombuffer(self.data, np.uint8, count * step, tag_at).reshape(count, step)
        other = (rows[:, :head] != rows[0, :head]).any(axis=1)
        if other.any():
            rows = rows[: int(other.argmax())]
        values = np.ascontiguousarray(rows[:, head:]).view(_TYPES[wire]).reshape(-1)
        return values, tag_at + len(rows) * step

    def bytes(self) -> bytes:
        return bytes(self.data[self.start : self.end])

    def text(self) -> str:
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise WireError("a text that is not UTF-8", self.start) from None

    def numbers(self, wire: int) -> Array:
        """Returns packed numbers of a fixed width as a view of the file."""
        width = _WIDTH[wire]
        count, rest = divmod(self.end - self.start, width)
        if rest:
            raise WireError(f"packed numbers of {width} bytes end within one", self.start)
        return np.frombuffer(self.data, _TYPES[wire], count, self.start)

    def varints(self) -> list[int]:
        """Returns packed varints."""
        found, at = [], self.start
        while at < self.end:
            value, at = self._varint(at)
            found.append(value)
        return found


def varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """Returns a field that holds an integer, a flag or a word of an enum."""
    return varint(number << 3 | VARINT) + varint(value)


def float32(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def float64(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED64) + struct.pack("<d", value)


def chunk(number: int, content: bytes | memoryview) -> list[bytes | memoryview]:
    """Returns a field of bytes, its head apart, so that large contents are copied once."""
    return [varint(number << 3 | BYTES) + varint(len(content)), content]


def nested(number: int, parts: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
    """Returns a field that holds a message made of parts."""
    parts = list(parts)
    return [varint(number << 3 | BYTES) + varint(sum(map(len, parts))), *parts]


def text(number: int, value: str) -> bytes:
    return b"".join(chunk(number, value.encode()))
