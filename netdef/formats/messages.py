"""Messages of schemas/netdef.proto as plain data: to and from bytes and text.

In plain data a message is a dict of what is set, a repeated field a list, a word of an enum a
string, and a map a list of {key, value}, as on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from netdef.formats.fields import describe, items
from runtime.protobuf import (
    FIXED64,
    Field,
    Message,
    WireError,
    float32,
    float64,
    integer,
    nested,
    text,
)
from schemas.errors import SpecError, UsageError, did_you_mean
from schemas.net import Value

Data = dict[str, Any]
MAX_DEPTH = 100
PHASES = ("PHASE_UNSET", "TRAIN", "TEST")
SHARE_MODES = ("STRICT", "PERMISSIVE")


@dataclass(frozen=True)
class Slot:
    """One field of a message: `kind` is a scalar's name, a message's name, or words of an enum."""

    number: int
    kind: str | tuple[str, ...]
    many: bool = False


SCHEMA: dict[str, dict[str, Slot]] = {
    "List": {"item": Slot(1, "Value", True)},
    "Map": {"field": Slot(1, "Entry", True)},
    "Entry": {"key": Slot(1, "string"), "value": Slot(2, "Value")},
    "Value": {
        "integer": Slot(1, "int64"),
        "number": Slot(2, "double"),
        "text": Slot(3, "string"),
        "flag": Slot(4, "bool"),
        "list": Slot(5, "List"),
        "map": Slot(6, "Map"),
    },
    "Param": {
        "name": Slot(1, "string"),
        "lr_mult": Slot(2, "float"),
        "decay_mult": Slot(3, "float"),
        "share_mode": Slot(4, SHARE_MODES),
    },
    "Rule": {
        "phase": Slot(1, PHASES),
        "min_level": Slot(2, "int64"),
        "max_level": Slot(3, "int64"),
        "stage": Slot(4, "string", True),
        "not_stage": Slot(5, "string", True),
    },
    "State": {
        "phase": Slot(1, PHASES),
        "level": Slot(2, "int64"),
        "stage": Slot(3, "string", True),
    },
    "LayerParameter": {
        "name": Slot(1, "string"),
        "type": Slot(2, "string"),
        "bottom": Slot(3, "string", True),
        "top": Slot(4, "string", True),
        "phase": Slot(5, PHASES),
        "param": Slot(6, "Param", True),
        "include": Slot(7, "Rule", True),
        "exclude": Slot(8, "Rule", True),
        "loss_weight": Slot(9, "float", True),
        "propagate_down": Slot(10, "bool", True),
        "params": Slot(11, "Entry", True),
    },
    "NetParameter": {
        "name": Slot(1, "string"),
        "layer": Slot(2, "LayerParameter", True),
        "force_backward": Slot(3, "bool"),
        "debug_info": Slot(4, "bool"),
        "state": Slot(5, "State"),
        "carry_state": Slot(6, "bool"),
        "unroll": Slot(7, "int64"),
    },
    "SolverParameter": {
        "fields": Slot(1, "Entry", True),
        "net_param": Slot(2, "NetParameter"),
        "train_net_param": Slot(3, "NetParameter"),
        "test_net_param": Slot(4, "NetParameter", True),
    },
}


def encode(kind: str, data: Mapping[str, Any]) -> bytes:
    """Returns a message as bytes. Raises UsageError for an integer of more than 64 bits."""
    parts: list[bytes | memoryview] = []
    for name, slot in SCHEMA[kind].items():
        if name in data:
            for one in data[name] if slot.many else (data[name],):
                parts += _encoded(slot, one)
    return b"".join(parts)


def _encoded(slot: Slot, one: Any) -> list[bytes | memoryview]:
    number, kind = slot.number, slot.kind
    if isinstance(kind, tuple):
        return [integer(number, kind.index(one))]
    if kind in SCHEMA:
        return nested(number, [encode(kind, one)])
    if kind == "string":
        return [text(number, one)]
    if kind == "double":
        return [float64(number, one)]
    if kind == "float":
        return [float32(number, one)]
    if not -(2**63) <= int(one) < 2**63:
        raise UsageError(f"{one} does not fit 64 bits, which protobuf integers have")
    return [integer(number, int(one))]


def decode(kind: str, message: Message, depth: int = 0) -> Data:
    """Returns the data of a message; unknown fields are passed over. Raises WireError."""
    if depth > MAX_DEPTH:
        raise WireError("messages nested too deeply", message.start)
    names = {slot.number: (name, slot) for name, slot in SCHEMA[kind].items()}
    found: Data = {}
    for field in message:
        if field.number in names:
            name, slot = names[field.number]
            values = list(_decoded(slot, field, depth))
            if slot.many:
                found.setdefault(name, []).extend(values)
            else:
                found[name] = values[-1]
    return found


def _decoded(slot: Slot, field: Field, depth: int) -> Iterator[Any]:
    kind = slot.kind
    if isinstance(kind, tuple):
        word = field.integer()
        if not 0 <= word < len(kind):
            raise WireError(f"{word} is no word of its enum", field.at)
        yield kind[word]
    elif kind in SCHEMA:
        yield decode(kind, field.message(), depth + 1)
    elif kind == "string":
        yield field.text()
    elif kind == "double":
        yield from map(float, field.numbers(FIXED64))
    elif kind == "float":
        yield from (short(float(x)) for x in field.numbers())
    elif kind == "bool":
        yield from map(bool, field.integers())
    else:
        yield from field.integers()


def short(value: float) -> float:
    """Returns the number with the fewest digits that is the same as a 32-bit float: 0.1."""
    return float(f"{value:.6g}") if _single(float(f"{value:.6g}")) == value else value


def _single(value: float) -> float:
    import struct

    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return value


def shaped(kind: str, value: Value) -> Data:
    """Returns the data of a message in text form. Raises SpecError where it is none."""
    if not isinstance(value.data, Mapping):
        raise SpecError(f"a {kind} is a message in braces, not {describe(value)}", value.span)
    found: Data = {}
    for name, field in value.data.items():
        slot = SCHEMA[kind].get(name)
        if slot is None:
            hint = did_you_mean(name, SCHEMA[kind])
            raise SpecError(f"unknown field '{name}' in a {kind}", field.key, hint)
        values = [_shaped(name, slot, one) for one in items(field)]
        if not slot.many and len(values) != 1:
            raise SpecError(f"'{name}' is given {len(values)} times", field.key)
        found[name] = values if slot.many else values[0]
    return found


_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int,),
    "bool": (bool,),
    "double": (int, float),
    "float": (int, float),
}


def _shaped(name: str, slot: Slot, one: Value) -> Any:
    kind, data = slot.kind, one.data
    if isinstance(kind, tuple):
        if data not in kind:
            raise SpecError(f"'{name}' is {describe(one)}", one.span, did_you_mean(str(data), kind))
        return data
    if kind in SCHEMA:
        return shaped(kind, one)
    fits = isinstance(data, _SCALARS[kind]) and (kind == "bool" or not isinstance(data, bool))
    if not fits:
        raise SpecError(f"'{name}' must be of type {kind}, not {describe(one)}", one.span)
    return float(data) if kind in ("double", "float") else data
