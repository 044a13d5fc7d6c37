"""Writes a NetSpec as native YAML: blocks filled in, nothing left out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from netdef.formats.previous import SOURCES
from schemas.net import LayerSpec, Name, NetSpec, NetState, ParamSpec, Rule

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = frozenset("true false null yes no on off y n".split())  # other readers' booleans too


def net_yaml(spec: NetSpec) -> str:
    """Returns the net as a file that reads back as the same net, one layer a line."""
    lines = [f"name: {_scalar(spec.name)}"] if spec.name else []
    lines += [f"{f}: true" for f in ("force_backward", "debug_info") if getattr(spec, f)]
    if spec.state != NetState():
        lines.append(f"state: {_flow(_state(spec.state))}")
    lines.append("layers:")
    lines += [f"- {_flow(layer_fields(layer))}" for layer in spec.layers]
    return "\n".join(lines) + "\n"


def layer_fields(layer: LayerSpec) -> dict[str, Any]:
    """Returns a layer as plain data, under the names that a net.yaml has for it."""
    fields: dict[str, Any] = {"name": layer.name.text, "type": layer.type.text}
    if layer.bottoms or layer.type.text not in SOURCES:
        fields["bottom"] = _names(layer.bottoms)
    if [top.text for top in layer.tops] != [layer.name.text]:
        fields["top"] = _names(layer.tops)
    fields.update({key: value.plain() for key, value in layer.params.items()})
    if layer.param:
        fields["param"] = [_param(one) for one in layer.param]
    for name, rules in (("include", layer.include), ("exclude", layer.exclude)):
        if rules:
            fields[name] = [_rule(rule) for rule in rules]
    for name, values in (
        ("loss_weight", layer.loss_weight),
        ("propagate_down", layer.propagate_down),
    ):
        if values:
            fields[name] = list(values)
    return fields


def _names(names: tuple[Name, ...]) -> str | list[str]:
    texts = [name.text for name in names]
    return texts[0] if len(texts) == 1 else texts


def _param(param: ParamSpec) -> dict[str, Any]:
    fields = {
        "name": (param.name, None),
        "lr_mult": (param.lr_mult, 1.0),
        "decay_mult": (param.decay_mult, 1.0),
        "share_mode": (param.share_mode, "STRICT"),
    }
    return {key: value for key, (value, default) in fields.items() if value != default}


def _rule(rule: Rule) -> dict[str, Any]:
    fields = {
        "phase": rule.phase,
        "min_level": rule.min_level,
        "max_level": rule.max_level,
        "stage": list(rule.stages) or None,
        "not_stage": list(rule.not_stages) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _state(state: NetState) -> dict[str, Any]:
    fields = {"phase": state.phase, "level": state.level, "stage": list(state.stages)}
    return {key: value for key, value in fields.items() if value}


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(k))}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isfinite(value):
            return f"{value:g}" if float(f"{value:g}") == value else repr(value)
        return ".nan" if math.isnan(value) else (".inf" if value > 0 else "-.inf")
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)
