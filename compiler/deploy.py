"""Makes the net for use of a net for training: no data layers, labels or losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.layers import layer_types
from schemas.net import LayerSpec, Name

# Data layers whose second top is the label of the first.
LABELLED = frozenset(["Data", "ImageData", "MemoryData"])
MEASURES = frozenset(["Accuracy"])


def deployed(layers: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Returns the layers without labels, losses and measures.

    Labels are the second tops of data layers, and what only falling layers read. A loss with a
    `deploy` type (SoftmaxWithLoss: Softmax) becomes a layer of that type with the top `prob`.
    """
    kept: list[LayerSpec] = []
    gone: set[str] = set()
    for layer in layers:
        kind = layer.type.text
        if kind in LABELLED:
            gone |= {top.text for top in layer.tops[1:]}
            kept.append(replace(layer, tops=layer.tops[:1]))
        elif is_loss(kind):
            kept += _activation(layer, layers)
        elif kind in MEASURES or any(b.text in gone for b in layer.bottoms):
            gone |= {top.text for top in layer.tops}
        else:
            kept.append(layer)
    return tuple(kept)


def fallen(before: Sequence[LayerSpec], after: Sequence[LayerSpec]) -> frozenset[str]:
    """Returns the inputs that only layers that fell away have read."""
    was, now = ({b.text for one in layers for b in one.bottoms} for layers in (before, after))
    return frozenset(
        top.text
        for layer in after
        for top in layer.tops
        if not layer.bottoms and top.text in was - now
    )


def is_loss(kind: str) -> bool:
    """Returns whether a layer type is a loss: its first top counts in the net's loss."""
    return kind.endswith("Loss")


def _activation(layer: LayerSpec, layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    """Returns what stays of a loss: nothing, or what it does before it looks at the labels."""
    kind: str | None = getattr(layer_types().get(layer.type.text), "deploy", None)
    if kind is None or not layer.bottoms:
        return []
    taken = {top.text for one in layers if one is not layer for top in one.tops}
    text = "prob" if "prob" not in taken else f"{layer.name}/prob"
    params = {name: value for name, value in layer.params.items() if name == "axis"}
    return [
        replace(
            layer,
            name=Name(layer.name.text, layer.name.span),
            type=Name(kind, layer.type.span),
            bottoms=layer.bottoms[:1],
            tops=(Name(text, layer.span),),
            params=params,
            loss_weight=(),
            propagate_down=(),
        )
    ]
