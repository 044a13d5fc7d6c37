"""A net of nets/ as plain data, for peers that do not read netdef's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bench.cases import Case, Mode, net_spec


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. `fields` are Caffe's, defaults too, less those that say nothing."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    top: str
    shape: tuple[int, ...]  # of its first bottom
    fields: dict[str, Any]
    loss_weight: float = 1.0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Layer:
        """Returns the layer that was written as JSON."""
        lists = {k: tuple(plain[k]) for k in ("bottoms", "shape")}
        return cls(**{**plain, **lists})


def plain_net(case: Case, mode: Mode) -> tuple[Layer, ...]:
    """Returns the layers of a step in order, less those that make data; none if it is recurrent."""
    if case.steps:
        return ()
    from compiler.frontend.build import build, used_layers
    from compiler.layers import layer_types
    from compiler.layers.fields import read_fields
    from schemas.errors import Diagnostics

    spec, phase, deploy = net_spec(case), "TRAIN" if mode == "train" else "TEST", mode == "infer"
    built = build(spec, phase, deploy=deploy)
    written, _ = used_layers(spec, phase, 0, frozenset(), deploy)
    layers = []
    for info, layer in zip(built.layers, written, strict=True):
        if not layer.bottoms:
            continue
        read = read_fields(layer_types()[info.type], layer, Diagnostics())
        weight = layer.loss_weight[0] if layer.loss_weight else 1.0
        bottoms, (top, *_) = tuple(b.text for b in layer.bottoms), (t.text for t in layer.tops)
        shape = info.bottoms[0][1]
        layers.append(Layer(info.name, info.type, bottoms, top, shape, _values(read), weight))
    return tuple(layers)


def _values(read: Any) -> dict[str, Any]:
    """Returns the fields that hold words and numbers; (3,) stands for 3 along every axis."""
    found = {f.name: getattr(read, f.name) for f in fields(read)}
    single = {k: v[0] if isinstance(v, tuple) and len(v) == 1 else v for k, v in found.items()}
    return {k: v for k, v in single.items() if isinstance(v, (bool, int, float, str))}
