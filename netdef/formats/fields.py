"""Reads typed fields from Values, and the fields that every layer has.

A `Reader` never raises: it puts what is wrong into Diagnostics and returns a harmless value, so
that one run finds every mistake of a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from schemas.errors import Diagnostics, SpecError, UnknownField, did_you_mean, near
from schemas.net import Name, NetState, ParamSpec, Rule, Value
from schemas.span import Span

PHASES = ("TRAIN", "TEST")
SHARE_MODES = ("STRICT", "PERMISSIVE")


class Reader:
    """Turns Values into typed data; `who` begins each message ("layer 'x' (ReLU): ")."""

    def __init__(self, diag: Diagnostics, who: str = "") -> None:
        self.diag = diag
        self.who = who

    def error(self, message: str, span: Span, hint: str | None = None) -> None:
        self.diag.error(SpecError(self.who + message, span, hint))

    def mismatch(self, value: Value, what: str, want: str, hint: str | None = None) -> None:
        self.error(f"'{what}' must be {want}, not {describe(value)}", value.span, hint)

    def unknown(self, name: str, key: Span, known: Collection[str], place: str = "") -> None:
        message = f"{self.who}unknown field '{name}'{place}"
        self.diag.error(UnknownField(message, key, did_you_mean(name, known)))

    def text(self, value: Value, what: str) -> str:
        if isinstance(value.data, str):
            return value.data
        scalar = value.data is not None and not isinstance(value.data, (tuple, Mapping))
        hint = f"quote it: '{_word(value.data)}'" if scalar else None
        self.mismatch(value, what, "a string", hint)
        return ""

    def integer(self, value: Value, what: str, low: int | None = None) -> int:
        data = value.data
        if isinstance(data, float) and data.is_integer() and abs(data) < 2**63:
            data = int(data)  # 1e5 is a float to YAML and a count to whoever writes max_iter
        if not isinstance(data, int) or isinstance(data, bool):
            self.mismatch(value, what, "an integer", _unquote(value))
        elif abs(data) >= 2**63:
            self.error(f"'{what}' does not fit 64 bits", value.span)
        elif low is not None and data < low:
            self.mismatch(value, what, f"{low} or more")
        else:
            return data
        return low or 0

    def number(self, value: Value, what: str) -> float:
        data = value.data
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            self.mismatch(value, what, "a number", _unquote(value))
        elif not math.isfinite(data):
            self.mismatch(value, what, "a finite number", "nan and inf are no settings")
        else:
            return float(data)
        return 0.0

    def flag(self, value: Value, what: str) -> bool:
        if isinstance(value.data, (bool, int)) and value.data in (0, 1):
            return bool(value.data)
        yes = isinstance(value.data, str) and value.data.lower() in ("yes", "on", "y")
        no = isinstance(value.data, str) and value.data.lower() in ("no", "off", "n")
        hint = f"write {'true' if yes else 'false'}" if yes or no else None
        self.mismatch(value, what, "true or false", hint)
        return False

    def choice(self, value: Value, what: str, allowed: Collection[str]) -> str:
        """Reads one of the allowed words; also in another case, where that is unambiguous."""
        words = list(allowed)
        if isinstance(value.data, str):
            if value.data in words:
                return value.data
            folded = [w for w in words if w.casefold() == value.data.casefold()]
            if len(folded) == 1:
                return folded[0]
        listed = ", ".join(words[:-1]) + f" or {words[-1]}"
        match = near(value.data, words) if isinstance(value.data, str) else None
        self.mismatch(value, what, listed, f"did you mean '{match}'?" if match else None)
        return words[0]

    def one(self, value: Value, what: str) -> Value:
        """Returns the value; the first, with an error, where the field is written twice."""
        if isinstance(value.data, tuple) and value.data:
            first: Value = value.data[0]
            second: Value = value.data[min(1, len(value.data) - 1)]
            if second.key_span is not None:
                hint = f"it is first given at {first.key.line}:{first.key.column}"
                self.error(f"'{what}' is given twice", second.key, hint)
            else:
                self.mismatch(value, what, "one value")
            return first
        return value

    def mapping(self, value: Value, what: str, known: Collection[str]) -> dict[str, Value]:
        """Returns the fields of a mapping, after an error for each that is not known."""
        if not isinstance(value.data, Mapping):
            self.mismatch(value, what, "a mapping of fields")
            return {}
        for name, field in value.data.items():
            if name not in known:
                self.unknown(name, field.key, known, f" in '{what}'")
        return {name: field for name, field in value.data.items() if name in known}


def items(value: Value) -> tuple[Value, ...]:
    """Returns the values of a list; a single value counts as a list of one, None as none."""
    if isinstance(value.data, tuple):
        return value.data
    return () if value.data is None else (value,)


def describe(value: Value) -> str:
    data = value.data
    if data is None:
        return "nothing"
    if isinstance(data, tuple):
        return f"a list of {len(data)}" if data else "an empty list"
    if isinstance(data, Mapping):
        return "a mapping"
    if isinstance(data, str):
        return f"'{data}'" if len(data) <= 40 else f"'{data[:37]}...'"
    return _word(data)


def _word(data: Any) -> str:
    return str(data).lower() if isinstance(data, bool) else str(data)


def _unquote(value: Value) -> str | None:
    if not isinstance(value.data, str):
        return None
    try:
        number = float(value.data)
    except ValueError:
        return None
    return "leave the quotes out" if math.isfinite(number) else "nan and inf are no settings"


def by_number(value: Value, words: Sequence[str]) -> Value:
    """Returns the word of an enum of Caffe's that is written as its number."""
    if isinstance(value.data, int) and not isinstance(value.data, bool):
        if 0 <= value.data < len(words):
            return Value(words[value.data], value.span, value.key_span)
    return value


def read_phase(reader: Reader, value: Value, what: str = "phase") -> str:
    return reader.choice(by_number(value, PHASES), what, PHASES)


def read_names(reader: Reader, value: Value, what: str) -> tuple[Name, ...]:
    names = tuple(Name(reader.text(v, what), v.span) for v in items(value))
    for name, v in zip(names, items(value), strict=True):
        if not name.text and v.data == "":
            reader.error(f"'{what}' has an empty name", name.span)
    return tuple(name for name in names if name.text)


_RULE = ("phase", "min_level", "max_level", "stage", "not_stage")


def _rule(reader: Reader, value: Value, what: str) -> Rule:
    fields = reader.mapping(value, what, _RULE)
    got: dict[str, Any] = {}
    for name, field in fields.items():
        if name == "phase":
            got["phase"] = read_phase(reader, reader.one(field, name))
        elif name.endswith("level"):
            got[name] = reader.integer(reader.one(field, name), name)
        else:
            got[name + "s"] = tuple(reader.text(v, name) for v in items(field))
    return Rule(**got, span=value.key)


def read_rules(reader: Reader, value: Value, what: str) -> tuple[Rule, ...]:
    return tuple(_rule(reader, v, what) for v in items(value))


def read_state(reader: Reader, value: Value, what: str) -> NetState:
    fields = reader.mapping(value, what, ("phase", "level", "stage"))
    got: dict[str, Any] = {}
    if "phase" in fields:
        got["phase"] = read_phase(reader, reader.one(fields["phase"], "phase"))
    if "level" in fields:
        got["level"] = reader.integer(reader.one(fields["level"], "level"), "level")
    if "stage" in fields:
        got["stages"] = tuple(reader.text(v, "stage") for v in items(fields["stage"]))
    return NetState(**got)


_PARAM = ("name", "lr_mult", "decay_mult", "share_mode")


def _param_spec(reader: Reader, value: Value, what: str) -> ParamSpec:
    fields = reader.mapping(value, what, _PARAM)
    got: dict[str, Any] = {}
    for name, field in fields.items():
        one = reader.one(field, name)
        if name == "name":
            got["name"] = reader.text(one, name) or None
        elif name == "share_mode":
            got["share_mode"] = reader.choice(by_number(one, SHARE_MODES), name, SHARE_MODES)
        else:
            got[name] = reader.number(one, name)
    given = frozenset(got) & {"lr_mult", "decay_mult"}
    return ParamSpec(**got, given=given, span=value.key)


def read_param(reader: Reader, value: Value, what: str) -> tuple[ParamSpec, ...]:
    return tuple(_param_spec(reader, v, what) for v in items(value))


def _numbers(reader: Reader, value: Value, what: str) -> tuple[float, ...]:
    return tuple(reader.number(v, what) for v in items(value))


def _flags(reader: Reader, value: Value, what: str) -> tuple[bool, ...]:
    return tuple(reader.flag(v, what) for v in items(value))


def _initial(reader: Reader, value: Value, what: str) -> Value:
    """The state of a cycle before its first step."""
    if isinstance(value.data, bool) or not isinstance(value.data, int | float | str):
        reader.error(f"'{what}' is a number, 'learned' or the name of a blob", value.span)
    return value


# The fields that every layer has: name in the file -> (attribute of LayerSpec, how to read it).
LAYER_FIELDS: dict[str, tuple[str, Callable[[Reader, Value, str], Any]]] = {
    "bottom": ("bottoms", read_names),
    "top": ("tops", read_names),
    "param": ("param", read_param),
    "include": ("include", read_rules),
    "exclude": ("exclude", read_rules),
    "loss_weight": ("loss_weight", _numbers),
    "propagate_down": ("propagate_down", _flags),
    "initial": ("initial", _initial),
}


def layer_label(fields: Mapping[str, Value]) -> str:
    """Returns "layer 'conv1' (Convolution)" as far as the fields say so."""
    name, kind = (fields[k].data if k in fields else None for k in ("name", "type"))
    label = f"layer '{name}'" if isinstance(name, str) else "layer"
    return f"{label} ({kind})" if isinstance(kind, str) else label
