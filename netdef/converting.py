"""Converts files: specs between YAML, prototxt and protobuf; weights between three formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netdef.formats import read_spec
from netdef.formats.caffe_names import V1_TYPES
from netdef.formats.messages import encode
from netdef.formats.native_proto import BINARY, TEXT, net_message, solver_message
from netdef.prototxt_text import message_lines, net_prototxt, solver_prototxt
from netdef.spec_text import net_data, net_yaml, solver_data, solver_yaml
from runtime.caffe_files import LayerWeights
from runtime.params import HISTORY
from runtime.weights import (
    SAFETENSORS,
    by_key,
    by_layer,
    format_of,
    read_layers,
    read_weight_file,
    write_layers,
    write_weight_file,
)
from schemas.errors import NetError, SourceError, UsageError, did_you_mean
from schemas.net import NetSpec
from schemas.params import LayerBlobs
from schemas.solver import SolverSpec

Array = np.ndarray[Any, Any]
_SPECS = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".prototxt": "prototxt",
    ".pbtxt": "prototxt",
    ".pt": "prototxt",
    ".txtpb": "prototxt",
}
# The blobs of a layer where no net tells their names, by the layer's type.
_NAMES = {
    "BatchNorm": ("mean", "variance", "scale_factor"),
    "PReLU": ("slope",),
    "Bias": ("bias",),
    "BN": ("slope", "bias", "mean", "variance"),
}
_USUAL = ("weight", "bias")
_ORDER = ("weight", "slope", "bias", "mean", "variance", "scale_factor")


def spec_bytes(spec: NetSpec | SolverSpec, out: str) -> bytes:
    """Returns a net or a solver in the form that the name of a file asks for."""
    name = out.lower()
    if name.endswith((BINARY, TEXT)):
        if isinstance(spec, NetSpec):
            kind, message = "NetParameter", net_message(net_data(spec))
        else:
            kind, message = "SolverParameter", solver_message(solver_data(spec))
        if name.endswith(BINARY):
            return encode(kind, message)
        return ("\n".join(message_lines(message)) + "\n").encode()
    form = _SPECS.get(Path(name).suffix)
    if form is None:
        known = (*sorted(_SPECS), BINARY, TEXT)
        hint = did_you_mean(Path(name).suffix, known) or f"known: {', '.join(known)}"
        raise UsageError(f"the name '{out}' does not say which form to write", hint=hint)
    if isinstance(spec, NetSpec):
        return (net_yaml(spec) if form == "yaml" else net_prototxt(spec)).encode()
    return (solver_yaml(spec) if form == "yaml" else solver_prototxt(spec)).encode()


def convert_spec(source: str, out: str, lenient: bool = False) -> tuple[bytes, list[NetError]]:
    """Returns a spec file in the form of another, and what was passed over. Raises NetError."""
    spec = read_spec(source, lenient=lenient)
    return spec_bytes(spec, out), list(spec.warnings)


def convert_weights(source: Path, out: Path, layers: Sequence[LayerBlobs] | None) -> list[str]:
    """Writes the weights of one file to another; returns warnings. Raises NetError.

    `layers` are those of the net that the weights belong to. Without them, Caffe's blobs become
    `LAYER/weight` and `LAYER/bias` by number, and keys become numbers in that order.
    """
    if format_of(source) == SAFETENSORS:
        weights = without_histories(read_weight_file(source))
        found = by_layer_names(weights) if layers is None else _of_net(weights, layers, source)
    else:
        found = read_layers(source)
        weights = by_names(found) if layers is None else by_key(found, layers, source.name)
    if format_of(out) == SAFETENSORS:
        write_weight_file(out, {key: _plain(array) for key, array in weights.items()})
    else:
        write_layers(out, found, source.stem)
    if layers is None:
        return []
    known = {key for layer in layers for key in layer.keys}
    return [f"{source}: '{key}' is not in the net" for key in sorted(weights.keys() - known)]


def by_names(layers: Sequence[LayerWeights]) -> dict[str, Array]:
    """Returns Caffe's blobs by key, their names guessed from type and number."""
    found: dict[str, Array] = {}
    for layer in layers:
        type_ = V1_TYPES.get(layer.type, layer.type)
        names = _NAMES.get(type_, _USUAL)
        if not type_ and len(layer.blobs) == 3 and layer.blobs.get(2, np.empty(0)).size == 1:
            names = _NAMES["BatchNorm"]  # no other layer of Caffe's ends in a single number
        for number, blob in layer.blobs.items():
            name = names[number] if number < len(names) else f"blob{number}"
            found[f"{layer.name}/{name}"] = blob
    return found


def without_histories(weights: dict[str, Array]) -> dict[str, Array]:
    """Returns the weights of a snapshot, which also holds the solver's own states."""
    return {key: array for key, array in weights.items() if not key.startswith(HISTORY)}


def by_layer_names(weights: dict[str, Array]) -> list[LayerWeights]:
    """Returns keyed weights as layers with numbered blobs: known names in their order."""
    order = {name: i for i, name in enumerate(_ORDER)}
    layers: dict[str, dict[str, Array]] = {}
    for key, array in weights.items():
        layer, _, name = key.rpartition("/")
        if not layer:
            hint = "give the net with --net"
            raise SourceError(f"'{key}' does not say which layer it belongs to", hint=hint)
        layers.setdefault(layer, {})[name] = array
    made = []
    for layer, blobs in layers.items():
        names = sorted(blobs, key=lambda name: (order.get(name, len(order)), name))
        made.append(LayerWeights(layer, "", {i: blobs[n] for i, n in enumerate(names)}))
    return made


def _of_net(
    weights: dict[str, Array], layers: Sequence[LayerBlobs], source: Path
) -> list[LayerWeights]:
    missing = [key for layer in layers for key in layer.keys if key not in weights]
    if missing:
        hint = did_you_mean(missing[0], weights)
        raise SourceError(f"{source} has no '{missing[0]}', which the net has", hint=hint)
    return by_layer(weights, layers)


def _plain(array: Array) -> Array:
    """Returns an array as safetensors takes it: in memory, aligned, in the machine's order."""
    return np.array(array, array.dtype.newbyteorder("="))
