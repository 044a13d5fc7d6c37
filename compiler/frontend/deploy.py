"""Makes the net for use of a net for training: no data layers, labels, losses or dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compiler.frontend.wiring import Wiring, wire
from compiler.layers import is_loss, layer_type
from schemas.errors import Diagnostics
from schemas.net import LayerSpec, Name, NetSpec, value_of

# Data layers whose second top is the label of the first.
LABELLED = frozenset(
    ["Data", "ImageData", "MemoryData", "WindowData"]
    + ["TextData", "AddingData", "CopyData", "CurveData"]
)
MEASURES = frozenset(["Accuracy", "HDF5Output"])


def deployed(layers: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Returns the layers without labels, losses and measures.

    Labels are the second tops of data layers, and what only falling layers read. A loss with a
    `deploy` type (SoftmaxWithLoss: Softmax) becomes a layer of that type with the top `prob`; of
    several, the one of the greatest weight, others `NAME/prob`.
    """
    losses = [layer for layer in layers if _deploy_type(layer) is not None]
    main = max(reversed(losses), key=lambda layer: [*layer.loss_weight, 1.0][0], default=None)
    kept: list[LayerSpec] = []
    gone: set[str] = set()
    for layer in layers:
        kind = layer.type.text
        if is_python_source(layer):
            gone |= {top.text for top in layer.tops[1:]}
            kept.append(replace(layer, tops=layer.tops[:1]))
        elif kind in LABELLED:
            gone |= {top.text for top in layer.tops[1:2]}
            kept.append(replace(layer, tops=layer.tops[:1] + layer.tops[2:]))
        elif is_loss(kind):
            kept += _activation(layer, layers, layer is main)
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


def with_inputs(
    layers: Sequence[LayerSpec], shapes: Mapping[str, tuple[int, ...]], hidden: frozenset[str]
) -> list[LayerSpec]:
    """Returns the layers with an Input for each that is filled from outside.

    `shapes` are those of the net's inputs; `hidden` are inputs that fell away. What only chooses
    layers or trains them is left out.
    """
    kept: list[LayerSpec] = []
    for layer in layers:
        layer = replace(
            layer, include=(), exclude=(), loss_weight=(), propagate_down=(), phase=None
        )
        tops = tuple(top for top in layer.tops if top.text not in hidden)
        if layer.bottoms or not layer.tops:
            kept.append(layer)
        elif all(top.text in shapes for top in tops) and tops:
            each = [list(shapes[top.text]) for top in tops]
            given = {"shape": value_of(each if len(each) > 1 else each[0], layer.span)}
            kind = Name("Input", layer.type.span)
            kept.append(replace(layer, type=kind, tops=tops, params=given, param=()))
        elif tops:
            kept.append(layer)
    return kept


def without_dropout(layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    """Returns the layers without Dropout; one stays where a blob would lose its name by it."""
    left = list(layers)
    at = 0
    while at < len(left):
        if left[at].type.text == "Dropout" and (shorter := _without(left, at)) is not None:
            left, at = shorter, 0
        else:
            at += 1
    return left


def _without(layers: list[LayerSpec], at: int) -> list[LayerSpec] | None:
    """Returns the layers without one that changes nothing, None where others need its name."""
    (source,) = wired(layers).sources[at]
    layer, rest = layers[at], [*layers[:at], *layers[at + 1 :]]
    if layer.bottoms[0].text == layer.tops[0].text:
        return rest
    assert source is not None
    if not layers[source[0]].bottoms or readers(wired(layers))[source] != [at]:
        return None
    made = _renamed(layers[source[0]], source[1], layer.tops[0])
    return [made if one is layers[source[0]] else one for one in rest]


def _renamed(layer: LayerSpec, which: int, top: Name) -> LayerSpec:
    return replace(layer, tops=(*layer.tops[:which], top, *layer.tops[which + 1 :]))


def wired(layers: Sequence[LayerSpec]) -> Wiring:
    """Returns the wiring of layers that have been wired before, without a mistake."""
    diagnostics = Diagnostics()
    wiring = wire(layers, NetSpec("", tuple(layers)), diagnostics)
    diagnostics.raise_if_any()
    return wiring


def readers(wiring: Wiring) -> dict[tuple[int, int], list[int]]:
    """Returns the layers that read each output (layer, top)."""
    found: dict[tuple[int, int], list[int]] = {}
    for i, sources in enumerate(wiring.sources):
        for source in sources:
            if source is not None:
                found.setdefault(source, []).append(i)
    return found


def is_python_source(layer: LayerSpec) -> bool:
    """Returns whether a layer makes data by code of the user's."""
    return layer.type.text == "Python" and not layer.bottoms


def _deploy_type(layer: LayerSpec) -> str | None:
    """Returns the type of what stays of a loss, None where nothing does."""
    kind: str | None = getattr(layer_type(layer.type.text), "deploy", None)
    return kind if is_loss(layer.type.text) and layer.bottoms else None


def _activation(layer: LayerSpec, layers: Sequence[LayerSpec], main: bool) -> list[LayerSpec]:
    """Returns what stays of a loss: nothing, or what it does before it looks at the labels."""
    kind = _deploy_type(layer)
    if kind is None:
        return []
    taken = {top.text for one in layers if one is not layer for top in one.tops}
    text = "prob" if main and "prob" not in taken else f"{layer.name}/prob"
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
