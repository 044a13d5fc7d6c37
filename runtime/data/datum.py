"""Caffe's Datum: one item and its label, as a record of a database holds them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from runtime.data.pictures import decode
from runtime.data.records import Array
from runtime.protobuf import Message, WireError, chunk, integer, varint

# Field numbers of caffe.proto's Datum.
_CHANNELS, _HEIGHT, _WIDTH, _DATA, _LABEL, _FLOATS, _ENCODED = range(1, 8)


class Item(NamedTuple):
    """One item (C, H, W), uint8 or float32, and its label."""

    data: Array
    label: int


def read_datum(record: bytes | memoryview, color: bool | None = None) -> Item:
    """Returns what a record holds; `color` says how many channels an encoded picture gets.

    Raises ValueError for a record that is no whole Datum.
    """
    numbers = {_CHANNELS: 0, _HEIGHT: 0, _WIDTH: 0, _LABEL: 0, _ENCODED: 0}
    content: Message | None = None
    floats: list[Array] = []
    try:
        for field in Message(memoryview(record)):
            if field.number in numbers:
                numbers[field.number] = field.integer()
            elif field.number == _DATA:
                content = field.message()
            elif field.number == _FLOATS:
                floats.append(field.numbers())
    except WireError as error:
        raise ValueError(f"it is no Datum: {error}") from None
    label = numbers[_LABEL]
    if numbers[_ENCODED]:
        if content is None:
            raise ValueError("it says that it is encoded, but holds no picture")
        return Item(decode(content.bytes(), color), label)
    shape = (numbers[_CHANNELS], numbers[_HEIGHT], numbers[_WIDTH])
    if content is not None and content.end > content.start:
        values = np.frombuffer(content.bytes(), np.uint8)
    else:
        values = np.concatenate(floats) if floats else np.empty(0, np.float32)
    if min(shape) < 1 or values.size != np.prod(shape):
        size = "x".join(map(str, shape))
        raise ValueError(f"it holds {values.size:,} values for {size} pixels")
    return Item(values.reshape(shape), label)


def datum(data: Array | bytes, label: int = 0) -> bytes:
    """Returns a Datum of an item (C, H, W), channels blue first, or of an encoded picture.

    uint8 values are stored as bytes, all others as float32. Raises ValueError for another shape.
    """
    if isinstance(data, bytes):
        parts = [*chunk(_DATA, data), integer(_LABEL, label), integer(_ENCODED, 1)]
        return b"".join(parts)
    array = np.asarray(data)
    if array.ndim != 3:
        raise ValueError(f"an item is (channels, height, width); this one is {array.shape}")
    sizes = zip((_CHANNELS, _HEIGHT, _WIDTH), array.shape, strict=True)
    head = b"".join(integer(number, size) for number, size in sizes)
    if array.dtype == np.uint8:
        return b"".join([head, *chunk(_DATA, array.tobytes()), integer(_LABEL, label)])
    values = np.ascontiguousarray(array, "<f4").reshape(-1)
    # Written one by one, as Caffe's own (unpacked) field is: tag and value, five bytes each.
    rows = np.empty((values.size, 5), np.uint8)
    rows[:, 0] = varint(_FLOATS << 3 | 5)[0]
    rows[:, 1:] = values.view(np.uint8).reshape(-1, 4)
    return head + integer(_LABEL, label) + rows.tobytes()
