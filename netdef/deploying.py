"""Makes the net for use alone: a file without data and losses, its batch statistics folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.assemble import layer_blobs
from compiler.frontend.absorb import absorb
from compiler.frontend.build import build, used_layers
from compiler.frontend.deploy import with_inputs, without_dropout
from compiler.ir.graph import Graph
from netdef.formats.native_proto import BINARY, TEXT
from netdef.probing import build_anyhow
from runtime.params import fitting
from runtime.weights import (
    SAFETENSORS,
    by_layer,
    format_of,
    read_keyed,
    weight_files,
    write_layers,
    write_weight_file,
)
from schemas.errors import NetError, SourceError
from schemas.net import LayerSpec, NetSpec, NetState
from schemas.params import LayerBlobs
from schemas.program import Program

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
PHASE = "TEST"
PROTOTXT = (".prototxt", ".pbtxt", ".pt", ".txtpb")
# Layers that fold into the one before them where weights are given.
FOLDABLE = ("BatchNorm", "BN", "Scale", "Bias")
# What a data layer does to its items, which the caller of the net has to do from now on.
TREATMENT = ("scale", "mean_value", "mean_file", "crop_size")


@dataclass
class Deployed:
    """A net for use, and its weights by key if there were any."""

    spec: NetSpec
    weights: dict[str, Array] | None = None
    layers: tuple[LayerBlobs, ...] = ()  # whose the weights are
    folded: list[str] = field(default_factory=list)  # layers that are in the weights now
    unfolded: int = 0  # layers of types that could be, left as they are
    treatment: dict[str, dict[str, Any]] = field(default_factory=dict)  # input -> fields, values
    warnings: list[NetError | str] = field(default_factory=list)


def deployed_net(spec: NetSpec, shapes: dict[str, Shape], weights: str | None = None) -> Deployed:
    """Returns the net that a file describes for use: inputs for data, no labels, no losses.

    With `weights` (a file, or several with commas), what scales and shifts channels behind a
    contraction is folded into its weight and bias. Raises NetError.
    """
    graph, warnings = build_anyhow(spec, PHASE, shapes, deploy=True)
    rest = (spec.state.level or 0, frozenset(spec.state.stages))
    layers, hidden = used_layers(spec, PHASE, *rest, deploy=True)
    inputs = {name: node.shape for name, node in graph.inputs.items()}
    kept = without_dropout(with_inputs(layers, inputs, hidden))
    made = Deployed(spec, treatment=_treatment(layers, inputs), warnings=list(warnings))
    found: dict[str, Array] = {}
    if weights is not None:
        found, told = read_weights_of(graph, weights)
        made.warnings += told
        absorbed = absorb(kept, graph, found)
        kept, found, made.folded = absorbed.layers, absorbed.weights, absorbed.gone
    made.unfolded = sum(layer.type.text in FOLDABLE for layer in kept)
    made.spec = replace(
        spec, layers=tuple(kept), state=NetState(), force_backward=False, debug_info=False
    )
    made.layers = layer_blobs(build(made.spec, PHASE))
    if weights is not None:
        made.weights = {key: found[key] for layer in made.layers for key in layer.keys}
    return made


def read_weights_of(graph: Graph, files: str) -> tuple[dict[str, Array], list[str]]:
    """Returns all weights of a net from a file, or several with commas, and warnings.

    Raises NetError where a file cannot be read or does not fit, or the net has layers that none of
    them has.
    """
    layers = layer_blobs(graph)
    params, states = tuple(graph.params.values()), tuple(graph.states.values())
    blank = Program(graph.name, "", (), (), {}, params, states, layers)  # what `fitting` looks at
    given: dict[str, Array] = {}
    for path in weight_files(files):
        given |= read_keyed(path, layers)
    found, warnings = fitting(blank, given, files)
    missing = [one.layer for one in layers if not found.keys() >= set(one.keys)]
    if missing:
        many = "s" * (len(missing) > 1)
        names = ", ".join(f"'{name}'" for name in missing)
        message = f"{files} has no weights of the net's layer{many} {names}"
        hint = "a net for use needs the weights of all its layers; 'netdef summary' lists a file's"
        raise SourceError(message, graph.places.get(missing[0]), hint)
    return found, warnings


def _treatment(layers: Sequence[LayerSpec], inputs: dict[str, Shape]) -> dict[str, dict[str, Any]]:
    """Returns what the data layers of these inputs have done to their items."""
    found = {}
    for layer in layers:
        fields = {k: layer.params[k].plain() for k in TREATMENT if k in layer.params}
        if fields and not layer.bottoms and layer.tops and layer.tops[0].text in inputs:
            found[layer.tops[0].text] = fields
    return found


def weights_beside(out: str) -> Path:
    """Returns where the weights of a net file go: a .caffemodel beside a Caffe prototxt."""
    ending = next((e for e in (BINARY, TEXT) if out.lower().endswith(e)), Path(out).suffix)
    path = Path(out.removesuffix(out[len(out) - len(ending) :]))
    caffe = ending.lower() in PROTOTXT
    return Path(f"{path}{'.caffemodel' if caffe else '.safetensors'}")


def write_weights(path: Path, net: Deployed) -> None:
    """Writes the weights of a deployed net. Raises SourceError."""
    assert net.weights is not None
    if format_of(path) == SAFETENSORS:
        write_weight_file(path, net.weights)
    else:
        write_layers(path, by_layer(net.weights, net.layers), net.spec.name)
