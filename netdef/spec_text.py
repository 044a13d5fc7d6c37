"""Writes nets and solvers as native YAML: blocks filled in, nothing left out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from netdef.formats.previous import SOURCES
from schemas.net import LayerSpec, Name, NetSpec, NetState, ParamSpec, Rule
from schemas.solver import SolverSpec

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = frozenset("true false null yes no on off y n".split())  # other readers' booleans too


def net_yaml(spec: NetSpec) -> str:
    """Returns the net as a file that reads back as the same net, one layer a line."""
    return "\n".join(_net_lines(spec)) + "\n"


def _net_lines(spec: NetSpec) -> list[str]:
    lines = [f"{name}: {_flow(value)}" for name, value in head_fields(spec).items()]
    return [*lines, "layers:", *(f"- {_flow(layer_fields(layer))}" for layer in spec.layers)]


def solver_yaml(spec: SolverSpec) -> str:
    """Returns the solver as a file that reads back as the same solver; inner nets stand in it."""
    lines = []
    for name, value in spec.raw.items():
        nets = inner_nets(spec, name)
        if nets is None:
            lines.append(f"{name}: {_flow(value.plain())}")
            continue
        lines.append(f"{name}:")
        for net in nets:
            first = "- " if name.startswith("test") else "  "
            lines += [(first if not i else "  ") + one for i, one in enumerate(_net_lines(net))]
    return "\n".join(lines) + "\n"


def inner_nets(spec: SolverSpec, field: str) -> list[NetSpec] | None:
    """Returns the nets that stand in a field of a solver, None for any other field."""
    if field == "test_net_param":
        return list(spec.test_net_params)
    if field not in ("net_param", "train_net_param"):
        return None
    net = spec.net_param if field == "net_param" else spec.train_net_param
    return [net] if net is not None else []


def net_data(spec: NetSpec) -> dict[str, Any]:
    """Returns a net as the fields of a net.yaml in which bottoms and tops are written out."""
    layers = []
    for layer in spec.layers:
        names = {"bottom": layer.bottoms, "top": layer.tops}
        written = {key: [name.text for name in found] for key, found in names.items()}
        layers.append(layer_fields(layer) | written)
    return {**head_fields(spec), "layers": layers}


def solver_data(spec: SolverSpec) -> dict[str, Any]:
    """Returns a solver as the fields of a solver.yaml."""
    fields: dict[str, Any] = {}
    for name, value in spec.raw.items():
        nets = inner_nets(spec, name)
        if nets is None:
            fields[name] = value.plain()
        else:
            made = [net_data(net) for net in nets]
            fields[name] = made if name.startswith("test") else made[0]
    return fields


def head_fields(spec: NetSpec) -> dict[str, Any]:
    """Returns what a net says beside its layers."""
    fields: dict[str, Any] = {"name": spec.name} if spec.name else {}
    fields |= {name: True for name in ("force_backward", "debug_info") if getattr(spec, name)}
    fields |= {} if spec.carry_state else {"carry_state": False}
    fields |= {"unroll": spec.unroll} if spec.unroll else {}
    return fields | ({"state": state_fields(spec.state)} if spec.state != NetState() else {})


def layer_fields(layer: LayerSpec) -> dict[str, Any]:
    """Returns a layer as plain data, under the names that a net.yaml has for it."""
    fields: dict[str, Any] = {"name": layer.name.text, "type": layer.type.text}
    if layer.bottoms or layer.type.text not in SOURCES:
        fields["bottom"] = _names(layer.bottoms)
    if [top.text for top in layer.tops] != [layer.name.text]:
        fields["top"] = _names(layer.tops)
    if layer.phase:
        fields["layer_phase"] = layer.phase
    fields.update({key: value.plain() for key, value in layer.params.items()})
    return fields | common_fields(layer)


def common_fields(layer: LayerSpec) -> dict[str, Any]:
    """Returns the fields that layers of all types have, beside names, as they are written."""
    fields: dict[str, Any] = {}
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
    if layer.initial is not None:
        fields["initial"] = layer.initial.plain()
    return fields


def _names(names: tuple[Name, ...]) -> str | list[str]:
    texts = [name.text for name in names]
    return texts[0] if len(texts) == 1 else texts


def _param(param: ParamSpec) -> dict[str, Any]:
    fields = {
        "name": param.name,
        "lr_mult": param.lr_mult if "lr_mult" in param.given else None,
        "decay_mult": param.decay_mult if "decay_mult" in param.given else None,
        "share_mode": param.share_mode if param.share_mode != "STRICT" else None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _rule(rule: Rule) -> dict[str, Any]:
    fields = {
        "phase": rule.phase,
        "min_level": rule.min_level,
        "max_level": rule.max_level,
        "stage": list(rule.stages) or None,
        "not_stage": list(rule.not_stages) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def state_fields(state: NetState) -> dict[str, Any]:
    fields = {"phase": state.phase, "level": state.level, "stage": list(state.stages)}
    return {key: value for key, value in fields.items() if value not in (None, [])}


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
