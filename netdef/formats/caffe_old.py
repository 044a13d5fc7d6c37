"""Turns layers of Caffe's older forms (V0, V1) into layers of the current form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netdef.formats.caffe_names import V0_FIELDS, V0_TYPES, V1_TYPES
from netdef.formats.fields import Reader, by_number, items, layer_label
from runtime.caffe_files import V1_WORDS
from schemas.errors import did_you_mean
from schemas.net import Value


def upgrade_layers(reader: Reader, layers: Sequence[Value]) -> list[Value]:
    """Returns the current form of the `layers` of a net."""
    flat: list[Value] = []
    for layer in layers:
        if isinstance(layer.data, Mapping) and "layer" in layer.data:
            flat.append(_flatten_v0(reader, layer))
        else:
            flat.append(layer)
    return [_upgrade(reader, layer) for layer in _fold_padding(reader, flat)]


def _flatten_v0(reader: Reader, value: Value) -> Value:
    """Joins the inner `layer` of V0 with the connections around it."""
    inner = reader.one(value.data["layer"], "layer")
    outer = {k: v for k, v in value.data.items() if k != "layer"}
    if not isinstance(inner.data, Mapping):
        reader.mismatch(inner, "layer", "a message in braces")
        return Value(outer, value.span, value.key_span)
    label = layer_label(inner.data)
    kind = inner.data.get("type", Value(None)).data
    data: dict[str, Value] = {}
    own: dict[str, Value] = {}
    for name, field in inner.data.items():
        if name in ("name", "type", "blobs", "blobs_lr", "weight_decay"):
            data[name] = field
        elif name in V0_FIELDS:
            own[V0_FIELDS[name]] = field
        elif name == "hdf5_output_param" and isinstance(field.data, Mapping):
            own.update(field.data)
        else:
            hint = did_you_mean(name, V0_FIELDS)
            reader.error(f"{label}: unknown field '{name}'", field.key, hint)
    if isinstance(kind, str) and kind != "padding":
        data["type"] = Value(V0_TYPES.get(kind, kind), data["type"].span, data["type"].key_span)
        if own:
            block = data["type"].data.lower() + "_param"
            data[block] = Value(own, inner.span, inner.key_span)
    elif kind == "padding":
        data["pad"] = own.get("pad", Value(0, inner.span))
    return Value({**outer, **data}, value.span, value.key_span)


def _fold_padding(reader: Reader, layers: list[Value]) -> list[Value]:
    """Moves V0's padding layers into the convolution or pooling behind them."""
    pads: dict[str, tuple[Value, Value]] = {}  # top of a padding layer -> its bottom, its pad
    out: list[Value] = []
    for layer in layers:
        data = layer.data if isinstance(layer.data, Mapping) else {}
        bottom, top = data.get("bottom", Value(None)), data.get("top", Value(None))
        if data.get("type", Value(None)).data == "padding":
            if isinstance(top.data, str) and isinstance(bottom.data, str):
                pads[top.data] = (bottom, data["pad"])
            else:
                reader.error(f"{layer_label(data)} needs one bottom and one top", layer.key)
            continue
        if not isinstance(bottom.data, str) or bottom.data not in pads:
            out.append(layer)
            continue
        source, pad = pads[bottom.data]
        kind = data.get("type", Value(None)).data
        block = f"{str(kind).lower()}_param"
        fields = data[block].data if block in data else {}
        if kind not in ("Convolution", "Pooling") or "pad" in fields:
            hint = "write the pad into the layer itself"
            reader.error(
                f"{layer_label(data)}: cannot take in the padding before it", pad.key, hint
            )
        padded = Value({**fields, "pad": pad}, layer.span, layer.key_span)
        out.append(Value({**data, "bottom": source, block: padded}, layer.span, layer.key_span))
    return out


_V1_PARAM = {  # V1's lists, one entry a blob -> the field of the current `param`
    "param": "name",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
    "blob_share_mode": "share_mode",
}


def _upgrade(reader: Reader, value: Value) -> Value:
    if not isinstance(value.data, Mapping):
        return value
    data = {k: v for k, v in value.data.items() if k not in _V1_PARAM}
    kind = by_number(data.get("type", Value(None)), V1_WORDS)
    if isinstance(kind.data, str):
        data["type"] = Value(V1_TYPES.get(kind.data, kind.data), kind.span, kind.key_span)
    lists = {new: items(value.data[old]) for old, new in _V1_PARAM.items() if old in value.data}
    if lists:
        count = max(len(values) for values in lists.values())
        specs = []
        for i in range(count):
            fields = {new: values[i] for new, values in lists.items() if i < len(values)}
            place = next(iter(fields.values()))
            specs.append(Value(fields, place.span, place.key_span))
        data["param"] = Value(tuple(specs), value.span, value.key_span)
    return Value(data, value.span, value.key_span)
