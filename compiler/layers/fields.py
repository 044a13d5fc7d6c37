"""Turns the fields a layer is written with into its dataclass, checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from schemas.errors import Diagnostics, SpecError, UnknownField, did_you_mean, near
from schemas.net import LayerSpec, Value
from schemas.params import Filler
from schemas.span import Span

FILLERS = ("constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear")
VARIANCE_NORMS = ("FAN_IN", "FAN_OUT", "AVERAGE")
MAX_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Which numbers a field takes: low <= x, above < x < below, odd only."""

    low: float | None = None
    above: float | None = None
    below: float | None = None
    odd: bool = False

    def broken(self, x: float) -> str | None:
        """Returns what x should be, where it is not."""
        if self.low is not None and x < self.low:
            return f"{self.low} or more"
        if self.above is not None and x <= self.above:
            return f"more than {self.above}"
        if self.below is not None and x >= self.below:
            return f"less than {self.below}"
        return "odd" if self.odd and x % 2 == 0 else None


def option(
    doc: str,
    default: Any = MISSING,
    *,
    low: float | None = None,
    above: float | None = None,
    below: float | None = None,
    odd: bool = False,
    first: int = 0,
) -> Any:
    """Returns a dataclass field with its line of documentation; no default: it must be given.

    `first` is the number of the first word in Caffe's enum.
    """
    limits = Limits(low, above, below, odd)
    return field(default=default, metadata={"doc": doc, "limits": limits, "first": first})


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a field: what one value is, and whether a list of them may stand there."""

    base: Literal["int", "float", "bool", "str", "word", "filler", "shape"]
    words: tuple[str, ...] = ()
    many: bool = False

    def __str__(self) -> str:
        names = {"int": "integer", "float": "number", "bool": "true or false", "str": "string"}
        if self.base == "shape":
            return "shape or list of shapes"
        text = " | ".join(self.words) if self.base == "word" else names.get(self.base, self.base)
        return f"{text} or list" if self.many else text


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of a layer type."""

    name: str
    kind: Kind
    doc: str
    limits: Limits
    default: Any  # MISSING: the field is required
    first: int = 0  # the number of its first word in Caffe's enum

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def default_text(self) -> str:
        if self.required:
            return "required"
        if self.default is None or self.default == ():
            return ""
        if isinstance(self.default, Filler):
            same = self.default.type == "constant"
            return f"constant {self.default.value:g}" if same else self.default.type
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


def _kind(hint: Any) -> Kind:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (a for a in get_args(hint) if a is not type(None))
    many = get_origin(hint) is tuple
    inner = get_args(hint)[0] if many else hint
    if get_origin(inner) is tuple:
        return Kind("shape", many=True)
    if get_origin(inner) is Literal:
        return Kind("word", get_args(inner), many)
    assert inner in (int, float, bool, str, Filler), f"a field cannot be of type {hint}"
    return Kind("filler" if inner is Filler else inner.__name__, (), many)


_known: dict[type[Any], dict[str, FieldInfo]] = {}


def fields_of(cls: type[Any]) -> dict[str, FieldInfo]:
    """Returns the fields of a layer class by name, in the order in which they are written."""
    if cls in _known:
        return _known[cls]
    hints = get_type_hints(cls)
    _known[cls] = {
        f.name: FieldInfo(
            f.name,
            _kind(hints[f.name]),
            f.metadata.get("doc", ""),
            f.metadata.get("limits", Limits()),
            f.default,
            f.metadata.get("first", 0),
        )
        for f in fields(cls)
    }
    return _known[cls]


def describe(cls: type[Any]) -> list[tuple[str, str, str, str]]:
    """Returns (name, type, default, one line of documentation) of each field, as text."""
    return [(f.name, str(f.kind), f.default_text, f.doc) for f in fields_of(cls).values()]


def read_fields(cls: type[Any], spec: LayerSpec, diag: Diagnostics) -> Any | None:
    """Returns the layer that `spec` describes, or None after an error for each wrong field."""
    reader = _Reader(f"layer '{spec.name}' ({spec.type}): ", diag)
    known = fields_of(cls)
    before = len(diag.errors)
    given: dict[str, Any] = {}
    for name, value in spec.params.items():
        if name not in known:
            hint = did_you_mean(name, known) if known else "this layer type has no fields"
            reader.unknown(f"unknown field '{name}'", value.key, hint)
        elif value.data is not None:  # `kernel_size:` with nothing after it: not given
            given[name] = reader.read(value, known[name])
    for name, info in known.items():
        if info.required and name not in given:
            hint = f"{name}: {info.doc} ({info.kind})"
            reader.error(f"'{name}' is missing", spec.type.span, hint)
    return cls(**given) if len(diag.errors) == before else None


class _Reader:
    """Reads values of one layer; never raises, but notes errors and returns something harmless."""

    def __init__(self, who: str, diag: Diagnostics) -> None:
        self.who = who
        self.diag = diag

    def error(self, message: str, span: Span, hint: str | None = None) -> None:
        self.diag.error(SpecError(self.who + message, span, hint))

    def unknown(self, message: str, span: Span, hint: str | None) -> None:
        self.diag.error(UnknownField(self.who + message, span, hint))

    def mismatch(self, value: Value, name: str, want: str, hint: str | None = None) -> None:
        self.error(f"'{name}' must be {want}, not {_shown(value)}", value.span, hint)

    def read(self, value: Value, info: FieldInfo) -> Any:
        if info.kind.base == "shape":
            return self.shapes(value, info.name, 1 if info.limits.low is None else info.limits.low)
        if info.kind.many:
            items = value.data if isinstance(value.data, tuple) else (value,)
            return tuple(self.one(item, info) for item in items)
        return self.one(value, info)

    def one(self, value: Value, info: FieldInfo) -> Any:
        name, kind = info.name, info.kind
        if kind.base == "word":
            return self.word(value, name, kind.words, info.first)
        if kind.base == "filler":
            return self.filler(value, name)
        if kind.base == "bool":
            return self.flag(value, name)
        if kind.base == "str":
            return self.text(value, name)
        number = self.number(value, name, kind.base == "int")
        if number is not None and (want := info.limits.broken(number)):
            self.mismatch(value, name, want)
        return number

    def text(self, value: Value, name: str) -> str:
        if isinstance(value.data, str):
            return value.data
        scalar = not isinstance(value.data, (tuple, Mapping, type(None)))
        self.mismatch(value, name, "a string", f"quote it: '{_shown(value)}'" if scalar else None)
        return ""

    def flag(self, value: Value, name: str) -> bool:
        if isinstance(value.data, (bool, int)) and value.data in (0, 1):
            return bool(value.data)
        word = value.data.lower() if isinstance(value.data, str) else ""
        hint = {"yes": "write true", "on": "write true", "no": "write false", "off": "write false"}
        self.mismatch(value, name, "true or false", hint.get(word))
        return False

    def number(self, value: Value, name: str, whole: bool) -> float | None:
        data = value.data
        want = "an integer" if whole else "a number"
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            self.mismatch(value, name, want)
        elif not abs(data) <= sys.float_info.max:  # too large an int, infinite, not a number
            self.mismatch(value, name, "a finite number")
        elif whole and data != int(data):
            self.mismatch(value, name, want)
        elif whole and abs(data) > MAX_INT:
            self.mismatch(value, name, f"at most {MAX_INT}")
        else:
            return int(data) if whole else float(data)
        return None

    def word(self, value: Value, name: str, words: tuple[str, ...], first: int = 0) -> str:
        """Reads one of the words, in any case, or its number in Caffe's enum: their order."""
        data = value.data
        if isinstance(data, str):
            for word in words:
                if word.casefold() == data.casefold():
                    return word
        elif isinstance(data, int) and not isinstance(data, bool):
            if 0 <= data - first < len(words):
                return words[data - first]
        listed = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
        match = near(data, words) if isinstance(data, str) else None
        self.mismatch(value, name, listed, f"did you mean '{match}'?" if match else None)
        return words[0]

    def filler(self, value: Value, name: str) -> Filler:
        """Reads `xavier`, `0.1` (that constant) or a mapping of Caffe's FillerParameter."""
        data = value.data
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            return Filler(value=self.number(value, name, False) or 0.0)
        if isinstance(data, str):
            return Filler(type=self.word(value, name, FILLERS))
        if not isinstance(data, Mapping):
            self.mismatch(value, name, "a filler such as xavier, or a mapping")
            return Filler()
        given: dict[str, Any] = {}
        known = {f.name: f.default for f in fields(Filler)}
        words = {"type": FILLERS, "variance_norm": VARIANCE_NORMS}
        for key, item in data.items():
            if key not in known:
                hint = did_you_mean(key, known)
                self.unknown(f"unknown field '{key}' in '{name}'", item.key, hint)
            elif key in words:
                given[key] = self.word(item, f"{name}.{key}", words[key])
            else:
                given[key] = self.number(item, f"{name}.{key}", isinstance(known[key], int))
        return Filler(**given)

    def shapes(self, value: Value, name: str, low: float) -> tuple[tuple[int, ...], ...]:
        """Reads [1, 3], [[1, 3], [1]] or Caffe's {dim: [1, 3]}, once or in a list."""
        data = value.data
        nested = isinstance(data, tuple) and any(isinstance(v.data, (tuple, Mapping)) for v in data)
        return tuple(self.shape(v, name, low) for v in (data if nested else (value,)))

    def shape(self, value: Value, name: str, low: float) -> tuple[int, ...]:
        if isinstance(value.data, Mapping):
            for key, item in value.data.items():
                if key != "dim":
                    self.unknown(f"unknown field '{key}' in '{name}'", item.key, "known: dim")
            value = value.data.get("dim", Value((), value.span))
        items = value.data if isinstance(value.data, tuple) else (value,)
        sizes = [(item, self.number(item, name, True)) for item in items]
        for item, size in sizes:
            if size is not None and size < low:
                self.mismatch(item, name, f"{low} or more along each axis")
        return tuple(int(1 if size is None else size) for _, size in sizes)


def _shown(value: Value) -> str:
    data = value.data
    if isinstance(data, tuple):
        return f"a list of {len(data)}" if data else "an empty list"
    if isinstance(data, Mapping):
        return "a mapping"
    if isinstance(data, str):
        return f"'{data}'" if len(data) <= 40 else f"'{data[:37]}...'"
    if data is None:
        return "nothing"
    text = str(data).lower() if isinstance(data, bool) else str(data)
    return text if len(text) <= 40 else f"{text[:37]}..."
