"""Turns a parsed Caffe prototxt into a NetSpec: V2, V1, V0, legacy inputs.

The fields of a layer's own blocks (`convolution_param`, `transform_param`, ...) end flat in
`LayerSpec.params`, as in the native form. A block of Caffe's that the type does not read is left
out with a warning, as Caffe itself passes it over; a block that Caffe does not have stays, under
its own name for a type of Caffe's, flat for any other type, so that the compiler can say which
type or field it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netdef.formats.caffe_names import (
    BLOCKS,
    FIELDS,
    LAYER_FIELDS,
    NET_FIELDS,
    REPEATED,
    TYPES,
    reads,
)
from netdef.formats.caffe_old import upgrade_layers
from netdef.formats.fields import LAYER_FIELDS as READERS
from netdef.formats.fields import (
    Reader,
    describe,
    items,
    layer_label,
    read_names,
    read_phase,
    read_state,
)
from schemas.errors import Diagnostics, NetError, SpecError
from schemas.net import LayerSpec, Name, NetSpec, Value

_ONCE = ("name", "type", "phase")
_V1_ONLY = {
    "blobs_lr": "write param { lr_mult: ... } for each blob",
    "weight_decay": "write param { decay_mult: ... } for each blob",
    "blob_share_mode": "write param { share_mode: ... } for each blob",
}


def read_caffe_net(root: Value, file: str, diag: Diagnostics) -> NetSpec:
    """Returns the net that a prototxt describes; what is wrong goes to `diag`."""
    reader = Reader(diag)
    warned = len(diag.warnings)
    if not isinstance(root.data, Mapping):
        diag.error(SpecError(f"a net is a message, not {describe(root)}", root.span))
        return NetSpec("", (), span=root.span, file=file)
    fields: Mapping[str, Value] = root.data
    for key, value in fields.items():
        if key not in NET_FIELDS:
            reader.unknown(key, value.key, NET_FIELDS)
    got: dict[str, Any] = {}
    for key in ("force_backward", "debug_info"):
        if key in fields:
            got[key] = reader.flag(reader.one(fields[key], key), key)
    if "state" in fields:
        got["state"] = read_state(reader, reader.one(fields["state"], "state"), "state")
    name = reader.text(reader.one(fields["name"], "name"), "name") if "name" in fields else ""
    layers = _layers(reader, fields)
    layers = [*_inputs(reader, fields, layers), *layers]
    if not layers and not diag.errors:
        reader.error("the net has no layers", root.span)
    warnings = tuple(diag.warnings[warned:])
    where: dict[str, Any] = {"span": root.span, "file": file, "lenient": diag.lenient}
    return NetSpec(name, tuple(layers), warnings=warnings, **where, **got)


def _layers(reader: Reader, fields: Mapping[str, Value]) -> list[LayerSpec]:
    current = items(fields["layer"]) if "layer" in fields else ()
    old = items(fields["layers"]) if "layers" in fields else ()
    if current and old:
        few, many = ("layer", "layers") if len(current) <= len(old) else ("layers", "layer")
        hint = f"write the net in one form; Caffe refuses this too ({many} is used more)"
        reader.error(f"the net mixes 'layer' and 'layers': '{few}' here", fields[few].key, hint)
        return []
    layers: Sequence[Value] = current or upgrade_layers(reader, old)
    found = (_layer(reader.diag, layer) for layer in layers)
    return [layer for layer in found if layer is not None]


def _inputs(
    reader: Reader, fields: Mapping[str, Value], layers: Sequence[LayerSpec]
) -> list[LayerSpec]:
    """Returns the Input layer that stands for `input`, `input_dim` and `input_shape`."""
    tops = read_names(reader, fields["input"], "input") if "input" in fields else ()
    dims = items(fields["input_dim"]) if "input_dim" in fields else ()
    shapes = items(fields["input_shape"]) if "input_shape" in fields else ()
    if not tops:
        for key in ("input_dim", "input_shape"):
            if key in fields:
                hint = "write input: 'data' before it"
                reader.error(f"'{key}' without an 'input'", fields[key].key, hint)
        return []
    span = fields["input"].key
    if dims and shapes:
        reader.error("'input_dim' and 'input_shape' cannot stand together", fields["input_dim"].key)
    elif dims and len(dims) != 4 * len(tops):
        message = f"{len(tops)} inputs need {4 * len(tops)} 'input_dim', not {len(dims)}"
        hint = "write input_shape { dim: ... } for shapes of another rank"
        reader.error(message.replace("1 inputs need", "1 input needs"), dims[-1].key, hint)
    elif shapes and len(shapes) not in (1, len(tops)):
        message = f"{len(tops)} inputs need {len(tops)} 'input_shape', not {len(shapes)}"
        reader.error(message, shapes[-1].key)
    if dims:
        groups = [dims[i : i + 4] for i in range(0, len(dims), 4)]
        shapes = tuple(Value({"dim": Value(g, g[0].span)}, g[0].span, g[0].key) for g in groups)
    else:  # Caffe passes over an input without a shape; here it stands for a blob nobody makes
        made = {top.text for layer in layers for top in layer.tops}
        for top in tops:
            if not shapes and top.text in made:
                warning = f"input '{top}' has no shape; a layer makes that blob"
                reader.diag.warn(NetError(warning, top.span, "leave 'input' out"))
        tops = tuple(top for top in tops if shapes or top.text not in made)
    if not tops:
        return []
    params = {"shape": Value(shapes, shapes[0].span, shapes[0].key)} if shapes else {}
    return [LayerSpec(Name("input", span), Name("Input", span), (), tops, params, span=span)]


def _layer(diag: Diagnostics, value: Value) -> LayerSpec | None:
    if not isinstance(value.data, Mapping):
        message = f"a layer must be a message in braces, not {describe(value)}"
        diag.error(SpecError(message, value.span))
        return None
    fields = dict(value.data)
    label = layer_label(fields)
    reader = Reader(diag, f"{label}: ")
    for key in _ONCE:
        if key in fields:
            fields[key] = reader.one(fields[key], key)
    if "type" not in fields:
        diag.error(SpecError(f"{label} has no 'type'", value.key, 'write type: "..."'))
        return None
    kind = Name(reader.text(fields["type"], "type"), fields["type"].span)
    got: dict[str, Any] = {}
    params: dict[str, Value] = {}
    for key, field in fields.items():
        if key in READERS:
            attribute, read = READERS[key]
            got[attribute] = read(reader, field, key)
        elif key == "phase":
            got["phase"] = read_phase(reader, field)
        elif key.endswith("_param"):
            _block(reader, params, kind.text, key, field)
        elif key == "blobs":
            warning = f"{label}: 'blobs' (weights inside the net) are passed over"
            diag.warn(NetError(warning, field.key, "load them from a weight file"))
        elif key in _V1_ONLY:
            reader.error(f"'{key}' is of the older form 'layers'", field.key, _V1_ONLY[key])
        elif key not in LAYER_FIELDS:
            reader.unknown(key, field.key, LAYER_FIELDS | BLOCKS)
    name = _name(diag, fields, kind, got.get("tops", ()), value)
    return LayerSpec(name, kind, params=params, span=value.key, **got)


def _name(
    diag: Diagnostics, fields: Mapping[str, Value], kind: Name, tops: Sequence[Name], value: Value
) -> Name:
    """Returns the layer's name; Caffe allows none, and then the first top or the type serves."""
    if "name" in fields:
        name = Reader(diag, layer_label(fields) + ": ").text(fields["name"], "name")
        if name:
            return Name(name, fields["name"].span)
    name = tops[0].text if tops else kind.text
    if not diag.errors:
        diag.warn(NetError(f"a layer has no name and is called '{name}'", value.key))
    return Name(name, value.key)


def _block(reader: Reader, params: dict[str, Value], kind: str, block: str, value: Value) -> None:
    """Puts the fields of a `*_param` block into `params`."""
    value = reader.one(value, block)
    if not isinstance(value.data, Mapping):
        reader.mismatch(value, block, "a message in braces")
        return
    if kind in TYPES and not reads(kind, block):
        if block in BLOCKS:
            warning = f"{reader.who}'{block}' has no effect on this type"
            reader.diag.warn(NetError(warning, value.key))
        else:
            params[block] = value
        return
    # A fork's field called `type` cannot stand flat beside the layer's own.
    taken = (params.keys() | LAYER_FIELDS) & value.data.keys()
    if kind not in TYPES and taken:
        params[block] = value
        return
    for name, field in value.data.items():
        if block in BLOCKS:
            field = _once(reader, name, field)
        if name not in params:
            params[name] = field
        elif params[name].plain() != field.plain():
            first = params[name].key
            hint = f"it is first given at {first.line}:{first.column}"
            reader.error(f"'{name}' is given twice, with two values", field.key, hint)


def _once(reader: Reader, name: str, value: Value) -> Value:
    """Reports a field of Caffe's that is written several times and may not be."""
    if isinstance(value.data, Mapping):
        fields = {k: _once(reader, k, v) for k, v in value.data.items()}
        return Value(fields, value.span, value.key_span)
    return reader.one(value, name) if name in FIELDS - REPEATED else value
