"""The JSON Schema of the native net format, made of the layer dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, asdict
from typing import Any

from compiler.layers import layer_types
from compiler.layers.fields import FILLERS, VARIANCE_NORMS, FieldInfo, fields_of
from schemas.params import Filler

Schema = dict[str, Any]

NAMES: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
PHASE: Schema = {"enum": ["TRAIN", "TEST"]}


def json_schema() -> Schema:
    """Returns the schema (draft 2020-12) that editors check and complete a net.yaml with."""
    types = layer_types()
    one = {
        "type": "object",
        "properties": {"type": {"enum": list(types)}},
        "if": {"required": ["block"]},
        "then": {"$ref": "#/$defs/use"},
        "else": {"required": ["type"], "allOf": [_when(name) for name in types]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netdef network",
        "type": "object",
        "required": ["layers"],
        "additionalProperties": False,
        "properties": {
            "name": _doc({"type": "string"}, "name of the net"),
            "layers": {
                "type": "array",
                "items": {"$ref": "#/$defs/layer", "required": ["name"]},
            },
            "blocks": {"type": "object", "additionalProperties": {"$ref": "#/$defs/block"}},
            "state": _doc(_closed(_state()), "which rules of include and exclude are met"),
            "force_backward": _doc({"type": "boolean"}, "compute gradients of the inputs too"),
            "debug_info": {"type": "boolean"},
            "carry_state": _doc({"type": "boolean"}, "hidden states go on to the next batch"),
            "unroll": _doc(
                {"type": "integer", "minimum": 0}, "steps that a gradient goes back, 0: all"
            ),
        },
        "$defs": {
            "layer": one,
            **_shared(),
            **{f"type.{name}": _layer(cls) for name, cls in types.items()},
        },
    }


def _shared() -> dict[str, Schema]:
    block = {
        "params": _doc({"type": "object"}, "parameters and their defaults; empty: must be given"),
        "out": _doc({"type": "string"}, "the blob that stands for a use outside"),
        "layers": {"type": "array", "items": {"$ref": "#/$defs/layer"}, "minItems": 1},
    }
    use = {
        "block": {"type": "string"},
        "name": {"type": "string"},
        "bottom": NAMES,
        "repeat": _in_block({"type": "integer", "minimum": 0}),
    }
    rule = {
        **_state(),
        "min_level": {"type": "integer"},
        "max_level": {"type": "integer"},
        "not_stage": NAMES,
    }
    rule.pop("level")
    param = {
        "name": _doc({"type": "string"}, "layers that give the same name share the blob"),
        "lr_mult": _in_block({"type": "number"}),
        "decay_mult": _in_block({"type": "number"}),
        "share_mode": {"enum": ["STRICT", "PERMISSIVE"]},
    }
    return {
        "parameter": _doc({"type": "string", "pattern": "\\$"}, "a block's parameter"),
        "filler": _filler(),
        "shape": _shape(),
        "rule": _closed(rule),
        "param": _closed(param),
        "block": _closed(block, "layers"),
        "use": {"type": "object", "required": ["block", "name"], "properties": use},
    }


def _layer(cls: type[Any]) -> Schema:
    own = {name: _field(info) for name, info in fields_of(cls).items()}
    common = {
        "name": _doc({"type": "string"}, "name of the layer, and of its top"),
        "type": {"type": "string"},
        "bottom": _doc(NAMES, "blobs that the layer reads (the one before)"),
        "top": _doc(NAMES, "blobs that the layer makes (its name)"),
        "param": _list_of({"$ref": "#/$defs/param"}),
        "phase": _doc(PHASE, "the only phase in which the layer takes part"),
        "layer_phase": _doc(PHASE, "Caffe's phase of one layer, over the net's"),
        "include": _list_of({"$ref": "#/$defs/rule"}),
        "exclude": _list_of({"$ref": "#/$defs/rule"}),
        "loss_weight": _list_of(_in_block({"type": "number"})),
        "propagate_down": _list_of({"type": "boolean"}),
        "initial": _doc(
            {"anyOf": [{"type": "number"}, {"type": "string"}]},
            "of a blob read as name[t-1], before the first step: a number, learned, or a blob",
        ),
    }
    required = [name for name, info in fields_of(cls).items() if info.required]
    schema = _closed({**common, **own}, *required)
    return _doc(schema, (inspect.getdoc(cls) or "").split("\n")[0])


def _field(info: FieldInfo) -> Schema:
    kind, limits = info.kind, info.limits
    refs = {"filler": "#/$defs/filler", "shape": "#/$defs/shape"}
    if kind.base == "shape" and limits.low is not None:
        return _doc(_shape(int(limits.low)), info.doc)
    if kind.base in refs:
        schema: Schema = {"$ref": refs[kind.base]}
    elif kind.base == "word":
        schema = {"enum": list(kind.words)}
    else:
        names = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}
        schema = {"type": names[kind.base]}
    bounds = (limits.low, limits.above, limits.below)
    keys = ("minimum", "exclusiveMinimum", "exclusiveMaximum")
    schema.update({k: b for k, b in zip(keys, bounds, strict=True) if b is not None})
    schema = _in_block(schema)
    if kind.many and kind.base != "shape":
        schema = _list_of(schema)
    default = info.default
    if default is not None and default != () and default is not MISSING:
        plain = default.type if isinstance(default, Filler) else default
        schema = {**schema, "default": plain}
    return _doc(schema, info.doc)


def _filler() -> Schema:
    plain = {bool: "boolean", int: "integer", float: "number", str: "string"}
    parts: dict[str, Schema] = {
        name: _in_block({"type": plain[type(value)], "default": value})
        for name, value in asdict(Filler()).items()
    }
    parts["type"] = _in_block({"enum": list(FILLERS)})
    parts["variance_norm"] = {"enum": list(VARIANCE_NORMS)}
    return {"anyOf": [{"enum": list(FILLERS)}, {"type": "number"}, _closed(parts)]}


def _shape(low: int = 1) -> Schema:
    dims = _list_of(_in_block({"type": "integer", "minimum": low}))
    one = {"anyOf": [dims, _closed({"dim": dims}, "dim")]}
    return {"anyOf": [one, {"type": "array", "items": one}]}


def _state() -> dict[str, Schema]:
    return {"phase": PHASE, "level": {"type": "integer"}, "stage": NAMES}


def _when(name: str) -> Schema:
    test = {"required": ["type"], "properties": {"type": {"const": name}}}
    return {"if": test, "then": {"$ref": f"#/$defs/type.{name}"}}


def _closed(properties: dict[str, Any], *required: str) -> Schema:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _list_of(schema: Schema) -> Schema:
    """One value, or a list of them."""
    return {"anyOf": [schema, {"type": "array", "items": schema}]}


def _in_block(schema: Schema) -> Schema:
    """Inside of a block, `$name` may stand for the value."""
    return {"anyOf": [schema, {"$ref": "#/$defs/parameter"}]}


def _doc(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text}
