"""Reads the native YAML form of a net: layers, default bottoms, blocks.

What may be left out:

- `top` is the layer's name (none for Silence and HDF5Output).
- `bottom` is the first top of the layer before, in each phase where the layer takes part: layers
  of another phase are skipped, and so are losses, Accuracy, Silence and HDF5Output, whose tops
  lead nowhere. If the phases disagree, the bottom has to be written. Data sources have none.

`phase: TRAIN` is short for an `include` of that phase. What Caffe calls a layer's `phase`, which
chooses no layers, is `layer_phase` here; only converted files have it.

A block is a group of layers with parameters (`substitute.py` fills them in):

    blocks:
      residual:
        params: {channels: , stride: 1}        # empty: has to be given
        out: sum                               # left out: the last layer's top
        layers:
        - {name: conv, type: Convolution, num_output: $channels, stride: $stride, ...}
        - {name: sum, type: Eltwise, bottom: [conv, in]}
    layers:
    - {block: residual, name: res2a, channels: 64, repeat: 3}

Layers and blobs of a use are called `res2a/conv` (`res2a_1/conv` where `repeat` is written), and a
layer without a name is called `res2a` itself; outside, `res2a` stands for the output blob. Inside,
`in` (`in2`, ...) is the use's bottom, `$name` the use's name and `$index` the number of the
repetition from 1; a blob that no layer of the block makes is one of outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from netdef.formats.blocks import Uses, read_blocks
from netdef.formats.fields import (
    LAYER_FIELDS,
    Reader,
    describe,
    layer_label,
    read_phase,
    read_state,
)
from netdef.formats.previous import SOURCES, leads_on, tops_before
from schemas.errors import Diagnostics, SpecError
from schemas.net import LayerSpec, Name, NetSpec, Rule, Value

_NET_FIELDS = (
    "name",
    "layers",
    "blocks",
    "force_backward",
    "debug_info",
    "state",
    "carry_state",
    "unroll",
)
_NO_TOP = ("HDF5Output", "Silence")
_DELAYED = re.compile(r"(.+?)(\[ *t *[-+] *\d+ *\])")


@dataclass
class Scope:
    """Where a layer stands: at the top of the file, or in one use of a block."""

    prefix: str = ""
    blobs: dict[str, str] = field(default_factory=dict)  # name here -> name in the net
    outer: Scope | None = None
    chain: list[LayerSpec] = field(default_factory=list)  # what "the layer before" can be
    open: tuple[str, ...] = ()  # blocks being filled in
    use: Name | None = None  # the use of a block that this is

    def inside(self, use: Name, block: str) -> Scope:
        return Scope(use.text + "/", {}, self, [], (*self.open, block), use)

    def blob(self, name: str) -> str:
        """Returns the net's name for a blob that is called `name` here."""
        delayed = _DELAYED.fullmatch(name)
        name, delay = delayed.groups() if delayed else (name, "")
        scope: Scope | None = self
        while scope is not None:
            if name in scope.blobs:
                return scope.blobs[name] + delay
            scope = scope.outer
        return name + delay


def read_native_net(root: Value, file: str, diag: Diagnostics) -> NetSpec:
    """Returns the net that a YAML document describes; what is wrong goes to `diag`."""
    reader = Reader(diag)
    warned = len(diag.warnings)
    if not isinstance(root.data, Mapping):
        hint = "begin with 'name: ...' and 'layers:'"
        message = f"a net is a mapping with 'layers', not {describe(root)}"
        diag.error(SpecError(message, root.span, hint))
        return NetSpec("", (), span=root.span, file=file)
    for key, value in root.data.items():
        if key not in _NET_FIELDS:
            reader.unknown(key, value.key, _NET_FIELDS)
    fields = {key: value for key, value in root.data.items() if key in _NET_FIELDS}
    got: dict[str, Any] = {}
    for key in ("force_backward", "debug_info", "carry_state"):
        if key in fields:
            got[key] = reader.flag(fields[key], key)
    if "unroll" in fields:
        got["unroll"] = reader.integer(fields["unroll"], "unroll", 0)
    if "state" in fields:
        got["state"] = read_state(reader, fields["state"], "state")
    name = reader.text(fields["name"], "name") if "name" in fields else ""
    builder = Builder(diag, read_blocks(reader, fields.get("blocks")))
    if "layers" not in fields:
        if not diag.errors:
            reader.error("the net has no 'layers'", root.span)
    else:
        builder.layer_list(fields["layers"], Scope())
        if not builder.layers and not diag.errors:
            reader.error("the net has no layers", fields["layers"].span)
    where: dict[str, Any] = {"span": root.span, "file": file, "lenient": diag.lenient}
    warnings = tuple(diag.warnings[warned:])
    return NetSpec(name, tuple(builder.layers), warnings=warnings, **where, **got)


class Builder:
    """Collects the layers of a net, in order, blocks filled in."""

    def __init__(self, diag: Diagnostics, blocks: dict[str, dict[str, Value]]) -> None:
        self.diag = diag
        self.layers: list[LayerSpec] = []
        self.uses = Uses(self, blocks)

    def layer_list(self, value: Value, scope: Scope) -> None:
        if not isinstance(value.data, tuple):
            hint = "begin each layer with '- '"
            Reader(self.diag).mismatch(value, "layers", "a list", hint)
            return
        for one in value.data:
            if not isinstance(one.data, Mapping):
                hint = "write '- {name: ..., type: ..., ...}'"
                message = f"a layer must be a mapping of fields, not {describe(one)}"
                self.diag.error(SpecError(message, one.span, hint))
            elif "block" in one.data:
                self.uses.use(one, scope)
            else:
                self.layer(one, scope)

    def layer(self, value: Value, scope: Scope) -> None:
        label = layer_label(value.data)
        reader = Reader(self.diag, label + ": ")
        name = self.layer_name(value, label, scope)
        kind = self.required(value, label, "type")
        if name is None or kind is None:
            return
        got, params = self.split_fields(reader, value)
        spec = LayerSpec(name, kind, params=params, span=value.span, **got)
        if "bottom" not in value.data and kind.text not in SOURCES:
            bottoms = self.default_bottom(reader, spec, value, scope)
        else:
            bottoms = tuple(Name(scope.blob(b.text), b.span) for b in spec.bottoms)
        # `in` as a top works in place on the block's bottom; every other top is the block's own.
        own = {t.text: scope.blobs.get(t.text, scope.prefix + t.text) for t in spec.tops}
        if "top" not in value.data and kind.text not in _NO_TOP:
            short = name.text.removeprefix(scope.prefix)
            own = {short: name.text if name is scope.use else scope.blobs.get(short, name.text)}
            spec = replace(spec, tops=(name,))
        scope.blobs.update(own)
        tops = tuple(Name(own.get(t.text, t.text), t.span) for t in spec.tops)
        spec = replace(spec, bottoms=bottoms, tops=tops)
        self.layers.append(spec)
        if leads_on(spec):
            scope.chain.append(spec)

    def default_bottom(
        self, reader: Reader, spec: LayerSpec, value: Value, scope: Scope
    ) -> tuple[Name, ...]:
        found = tops_before(spec, scope.chain)
        if len(found) > 1:
            listed = " or ".join(f"'{top}'" for top in found)
            message = f"no 'bottom' is written, and the layer before may be {listed}"
            reader.error(message, value.span, "write the bottom")
        return tuple(Name(top, value.span) for top in found[:1])

    def layer_name(self, value: Value, label: str, scope: Scope) -> Name | None:
        """Returns a layer's name in the net; inside a block, that of the use if it has none."""
        if scope.use is not None and "name" not in value.data:
            return scope.use
        name = self.required(value, label, "name")
        return name and Name(scope.prefix + name.text, name.span)

    def required(
        self, value: Value, label: str, key: str, hint: str = "a layer needs a name and a type"
    ) -> Name | None:
        """Returns a text that must be there."""
        if key not in value.data:
            self.diag.error(SpecError(f"{label} has no '{key}'", value.span, hint))
            return None
        found = value.data[key]
        text = Reader(self.diag, f"{label}: ").text(found, key)
        if found.data == "":
            self.diag.error(SpecError(f"{label}: '{key}' is empty", found.span))
        return Name(text, found.span) if text else None

    def split_fields(self, reader: Reader, value: Value) -> tuple[dict[str, Any], dict[str, Value]]:
        """Returns the fields that every layer has, read, and the type's own, as they are."""
        got: dict[str, Any] = {}
        params: dict[str, Value] = {}
        for key, one in value.data.items():
            if key in LAYER_FIELDS:
                attribute, read = LAYER_FIELDS[key]
                got[attribute] = read(reader, one, key)
            elif key == "phase":
                rule = Rule(phase=read_phase(reader, one), span=one.key)
                if "include" in value.data:
                    hint = "write the phase into 'include'"
                    reader.error("'phase' is short for 'include': give one of them", one.key, hint)
                got.setdefault("include", (rule,))
            elif key == "layer_phase":
                got["phase"] = read_phase(reader, one, key)
            elif key not in ("name", "type"):
                params[key] = one
        return got, params
