"""Applies `--set key=value`: one field of a layer or of the solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netdef.formats.fields import LAYER_FIELDS, Reader
from netdef.formats.solver import FIELDS, with_field
from netdef.formats.solver_rules import check_solver
from netdef.formats.yaml_text import parse_yaml
from schemas.errors import Diagnostics, NetErrors, SpecError, UsageError, did_you_mean
from schemas.net import NetSpec, Value
from schemas.solver import SolverSpec
from schemas.span import Span


def apply_set(
    net: NetSpec | None, solver: SolverSpec | None, settings: str | Sequence[str]
) -> tuple[NetSpec | None, SolverSpec | None]:
    """Returns net and solver with `LAYER.FIELD=VALUE` and `FIELD=VALUE` applied, in order.

    A layer's field is set in every layer of that name; a field without a layer is the solver's.
    The value is YAML (`conv1.weight_filler={type: xavier}`). Raises UsageError, or NetErrors.
    """
    diag = Diagnostics()
    touched = False
    for setting in [settings] if isinstance(settings, str) else settings:
        try:
            key, value = _split(setting)
            layer = _layer_of(net, key)
            if net is not None and layer is not None:
                net = _set_layer(net, layer, key[len(layer) + 1 :], value, diag)
            elif solver is not None and key in FIELDS:
                solver = with_field(solver, Reader(diag), key, value)
                touched = True
            else:
                raise _unknown(net, solver, key, value)
        except (SpecError, UsageError) as error:
            diag.error(error)
    if touched and solver is not None and not diag.errors:
        check_solver(solver, diag)
    errors = [UsageError(e.message, e.span, e.hint) for e in diag.errors]
    if errors:
        raise errors[0] if len(errors) == 1 else NetErrors(errors)
    return net, solver


def _split(setting: str) -> tuple[str, Value]:
    key, equals, _ = setting.partition("=")
    span = Span("--set", 1, 1, max(len(key), 1), setting)
    if not equals or not key.strip():
        hint = "write --set field=value or --set layer.field=value"
        raise UsageError(f"'{setting}' is not of the form key=value", span, hint)
    # Blanks in place of the key keep the columns of errors right.
    padded = " " * (len(key) + 1) + setting[len(key) + 1 :]
    if not padded.strip():
        return key.strip(), Value("", span, span)
    value = parse_yaml(padded, "--set", shown=setting)
    return key.strip(), Value(value.data, value.span, span)


def _layer_of(net: NetSpec | None, key: str) -> str | None:
    """Returns the longest layer name that begins the key (names may hold dots)."""
    names = {layer.name.text for layer in net.layers} if net is not None else set()
    parts = key.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        if name in names and key[len(name) + 1 :]:
            return name
    return None


def _set_layer(net: NetSpec, name: str, field: str, value: Value, diag: Diagnostics) -> NetSpec:
    if field in ("name", "type", "phase"):
        hint = "change it in the file"
        raise UsageError(f"'{field}' of a layer cannot be set here", value.key, hint)
    if field not in LAYER_FIELDS:
        return net.with_param(name, field, value)
    attribute, read = LAYER_FIELDS[field]
    data = read(Reader(diag, f"layer '{name}': "), value, field)
    layers = tuple(
        replace(one, **{attribute: data}) if one.name.text == name else one for one in net.layers
    )
    return replace(net, layers=layers)


def _unknown(net: NetSpec | None, solver: SolverSpec | None, key: str, value: Value) -> UsageError:
    layer, dot, field = key.rpartition(".")
    if dot and net is not None:
        hint = did_you_mean(layer, {one.name.text for one in net.layers})
        return UsageError(f"the net has no layer '{layer}'", value.key, hint)
    if solver is not None:
        return UsageError(f"the solver has no field '{key}'", value.key, did_you_mean(key, FIELDS))
    hint = "write layer.field=value"
    return UsageError(f"'{key}' names no layer, and there is no solver", value.key, hint)
