"""Assumes shapes for data that is not here: the first with which the net builds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from compiler.frontend.build import Attempt
from schemas.errors import NetError, Question
from schemas.net import NOWHERE, LayerSpec, NetSpec
from schemas.span import Span

Shape = tuple[int, ...]
Try = Callable[[Mapping[str, Shape]], Attempt]

# What the pictures of these data sets are; their names stand in sources and nets.
KNOWN = {"mnist": (1, 28, 28), "cifar": (3, 32, 32)}
SMALL: tuple[Shape, ...] = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 100, 100))
LARGE: tuple[Shape, ...] = (
    *((3, 224, 224), (3, 227, 227), (3, 256, 256), (3, 300, 300), (3, 321, 321)),
    *((3, 500, 500), (3, 512, 512), (1, 224, 224), (6, 224, 224), (2, 224, 224)),
)
VECTORS: tuple[Shape, ...] = ((10,), (100,), (1,), ())
DEEP = 5  # nets with more convolutions than this are not for small pictures


@dataclass(frozen=True)
class Unknown:
    """A blob whose shape only data tells that is not here; `free`: not even its rank is known."""

    blob: str
    span: Span = NOWHERE
    batch: int = 1
    channels: int | None = None
    label: bool = False
    free: bool = True
    picture: bool = False
    why: NetError | None = None

    def asks(self, shape: Shape) -> bool:
        """Returns whether a shape has to be asked about; a label's one number goes without."""
        return not self.label or shape != (self.batch,)

    def question(self, shape: Shape) -> Question:
        """Returns the question for the blob's shape, with what it is taken to be."""
        if self.why is None:
            asked, form, shown = f"the shape of the input '{self.blob}'", "N,C,H,W", shape
        else:
            asked, form, shown = f"the shape of one item of '{self.blob}'", "C,H,W", shape[1:]
        taken = "x".join(map(str, shown)) or "one number"
        message = f"what is {asked}? taken to be {taken} for this check"
        hint = f"--input-shape {self.blob}={form} answers it"
        if self.why is not None:
            hint += f"; {self.why.message}"
        return Question(message, self.span, hint)


def assume(
    unknown: Sequence[Unknown], layers: Sequence[LayerSpec], spec: NetSpec, tried: Try
) -> dict[str, Shape]:
    """Returns a shape for each unknown blob, of whole batches.

    All pictures have one size: the first of several typical ones with which the net builds, and
    windows fit evenly if that can be. A label has the shape that its readers want. Where nothing
    builds, it is what gets furthest.
    """
    labels = [u for u in unknown if u.free and (u.label or _is_label(u.blob, layers))]
    best: dict[str, Shape] = {}
    least: tuple[int, bool, int] | None = None
    likely, typical = _items(unknown, layers, spec)
    for item in dict.fromkeys((*likely, *typical)):
        shapes = {u.blob: (u.batch,) if u.label else _whole(u, item) for u in unknown}
        found = tried(shapes)
        for one in labels:
            if found.errors:
                shapes, found = _fitted(one, layers, shapes, found, tried)
        warnings = 0 if item in likely else len(found.graph.warnings)
        score = (_left(found), item not in likely, warnings)
        if least is None or score < least:
            best, least = shapes, score
        if not found.errors and not warnings:
            break
    return best


def _left(found: Attempt) -> int:
    """Returns how many layers could not be built; a mended one shows what is wrong behind it."""
    return len(found.layers) - len(found.graph.layers)


def _whole(one: Unknown, item: Shape) -> Shape:
    if len(item) == 3 and one.channels is not None:
        item = (one.channels, *item[1:])
    return (one.batch, *item)


def _items(
    unknown: Sequence[Unknown], layers: Sequence[LayerSpec], spec: NetSpec
) -> tuple[list[Shape], list[Shape]]:
    """Returns the shapes of an item to try: those the file speaks for, and typical ones."""
    convolutions = [one for one in layers if one.type.text == "Convolution"]
    sizes = [*LARGE, *SMALL] if len(convolutions) > DEEP else [*SMALL, *LARGE]
    sources = (layer.params.get("source") for layer in layers)
    texts = [spec.name, *(str(value.data) for value in sources if value is not None)]
    named = [shape for word, shape in KNOWN.items() if any(word in t.lower() for t in texts)]
    pairs = [(2 * c, h, w) for c, h, w in named]  # of a siamese net
    vectors = not convolutions and not any(one.picture for one in unknown)
    typical = [*VECTORS[:2], *sizes] if vectors else sizes
    return [*_siblings({u.blob for u in unknown}, spec), *named, *pairs], [*typical, *VECTORS]


def _siblings(blobs: Iterable[str], spec: NetSpec) -> list[Shape]:
    """Returns the sizes that the file says of such blobs elsewhere: in another phase or stage."""
    same: list[Shape] = []
    others: list[Shape] = []
    for layer in spec.layers:
        size = layer.params.get("crop_size")
        if not layer.bottoms and size is not None and isinstance(size.data, int) and size.data > 0:
            near = layer.tops and layer.tops[0].text in blobs
            (same if near else others).append((3, size.data, size.data))
    return [*same, *others]


def _readers(blob: str, layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    return [layer for layer in layers if any(blob == name.text for name in layer.bottoms)]


def _is_label(blob: str, layers: Sequence[LayerSpec]) -> bool:
    """Returns whether a blob is only compared with others: never the first bottom of a layer."""
    readers = [one for one in _readers(blob, layers) if one.type.text != "Silence"]
    return bool(readers) and all(one.bottoms[0].text != blob for one in readers)


def _fitted(
    one: Unknown,
    layers: Sequence[LayerSpec],
    shapes: dict[str, Shape],
    found: Attempt,
    tried: Try,
) -> tuple[dict[str, Shape], Attempt]:
    """Returns the shapes with that of a label exchanged for one with which more builds."""
    for shape in _label_shapes(one, layers, found):
        other = {**shapes, one.blob: shape}
        again = tried(other)
        if _left(again) < _left(found):
            shapes, found = other, again
            if not found.errors:
                break
    return shapes, found


def _label_shapes(one: Unknown, layers: Sequence[LayerSpec], found: Attempt) -> list[Shape]:
    """Returns what a label may be beside its siblings: one number a place, or one for each."""
    blobs = found.graph.blobs
    shapes: list[Shape] = [(one.batch,), (one.batch, 1)]
    for reader in _readers(one.blob, layers):
        if reader.type.text == "Slice":
            shapes.append((one.batch, len(reader.tops)))
        for bottom in reader.bottoms:
            if bottom.text != one.blob and bottom.text in blobs:
                rest = blobs[bottom.text].shape[1:]
                shapes += [(one.batch, *rest), (one.batch, 1, *rest[1:]), (one.batch, *rest[1:])]
    return list(dict.fromkeys(shapes))
