"""Nets and solvers in the form of schemas/netdef.proto, to and from what a YAML file says.

The plain data on the one side is that of a net.yaml or solver.yaml with everything written out
(`spec_text.layer_fields`), so that both forms have one reader and one set of checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netdef.formats.messages import Data, decode, shaped
from netdef.formats.prototxt import parse_prototxt
from runtime.protobuf import Message, WireError
from schemas.errors import SpecError
from schemas.net import Value, value_of
from schemas.span import Span

BINARY, TEXT = ".netdef.pb", ".netdef.pbtxt"
_NETS = ("net_param", "train_net_param", "test_net_param")
_HEAD = ("name", "force_backward", "debug_info", "carry_state", "unroll")
_COMMON = ("name", "type", "param", "include", "exclude", "loss_weight", "propagate_down")


def is_proto(file: str) -> bool:
    """Returns whether a file's name says that it has this form."""
    return file.lower().endswith((BINARY, TEXT))


def read_proto(content: bytes, file: str) -> Value:
    """Returns what a YAML file with the same content would be read as. Raises SpecError."""
    span = Span(file, 1, 1)
    if file.lower().endswith(TEXT):
        try:
            root = parse_prototxt(content.decode(), file)
        except UnicodeDecodeError:
            raise SpecError("the file is not UTF-8 text", span, "is it binary (.pb)?") from None
        kind = "SolverParameter" if "fields" in (root.data or {}) else "NetParameter"
        data = shaped(kind, root)
    else:
        try:
            kind = _kind(content)
            data = decode(kind, Message(memoryview(content)))
        except WireError as error:
            raise SpecError(f"the file is damaged: {error}", span) from None
    return value_of(from_message(kind, data), span)


def _kind(content: bytes) -> str:
    """Tells a solver, whose first field is a map's entry with a key, from a net."""
    for field in Message(memoryview(content)):
        if field.number == 1 and field.message().bytes()[:1] == b"\n":
            return "SolverParameter"
        return "NetParameter" if field.number < 3 else "SolverParameter"
    return "NetParameter"


def from_message(kind: str, data: Data) -> Data:
    """Returns a message as the fields of a net.yaml or solver.yaml."""
    if kind == "NetParameter":
        fields = {k: v for k, v in data.items() if k in _HEAD}
        if "state" in data:
            fields["state"] = _without_phase(data["state"])
        return {**fields, "layers": [_layer(layer) for layer in data.get("layer", ())]}
    fields = _from_entries(data.get("fields", ()))
    for name in _NETS:
        if name in data:
            nets = data[name] if name == "test_net_param" else [data[name]]
            made = [from_message("NetParameter", net) for net in nets]
            fields[name] = made if name == "test_net_param" else made[0]
    return fields


def _layer(data: Data) -> Data:
    fields = {key: data[key] for key in _COMMON if key in data}
    for key in ("include", "exclude"):
        if key in data:
            fields[key] = [_without_phase(rule) for rule in data[key]]
    phase = data.get("phase", "PHASE_UNSET")
    fields |= {"layer_phase": phase} if phase != "PHASE_UNSET" else {}
    fields |= {"bottom": data.get("bottom", []), "top": data.get("top", [])}
    return _from_entries(data.get("params", ())) | fields


def _without_phase(data: Data) -> Data:
    return {k: v for k, v in data.items() if v != "PHASE_UNSET"}


def _from_entries(entries: Any) -> Data:
    return {one.get("key", ""): _from_value(one.get("value", {})) for one in entries}


def _from_value(data: Data) -> Any:
    if "list" in data:
        return [_from_value(one) for one in data["list"].get("item", ())]
    if "map" in data:
        return _from_entries(data["map"].get("field", ()))
    return next(iter(data.values()), None)


def net_message(fields: Data) -> Data:
    """Returns the message for the fields of a net: everything that `net_data` writes out."""
    data = {k: v for k, v in fields.items() if k not in ("layers", "net")}
    return {**data, "layer": [_layer_message(layer) for layer in fields["layers"]]}


def _layer_message(fields: Data) -> Data:
    data = {key: fields[key] for key in (*_COMMON, "bottom", "top") if key in fields}
    if "layer_phase" in fields:
        data["phase"] = fields["layer_phase"]
    own = {k: v for k, v in fields.items() if k not in data and k != "layer_phase"}
    return data | ({"params": _entries(own)} if own else {})


def solver_message(fields: Data) -> Data:
    """Returns the message for the fields of a solver; nets in it are fields of nets."""
    data: Data = {"fields": _entries({k: v for k, v in fields.items() if k not in _NETS})}
    for name in _NETS:
        if name in fields:
            many = name == "test_net_param"
            made = [net_message(net) for net in (fields[name] if many else [fields[name]])]
            data[name] = made if many else made[0]
    return data


def _entries(fields: Mapping[str, Any]) -> list[Data]:
    return [{"key": key, "value": _value(value)} for key, value in fields.items()]


def _value(value: Any) -> Data:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"flag": value}
    if isinstance(value, int):
        return {"integer": value}
    if isinstance(value, float):
        return {"number": value}
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, Mapping):
        return {"map": {"field": _entries(value)}}
    return {"list": {"item": [_value(one) for one in value]}}
