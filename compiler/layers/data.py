"""Data layers: the inputs of a net and who fills them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from compiler.ir import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope, Shape
from schemas.errors import SpecError
from schemas.params import Filler

SHAPE_HINT = "for example shape: [64, 3, 28, 28]"


@layer("Data")
@dataclass(frozen=True)
class Data:
    """Batches of items and, with a second top, their labels, from a data set."""

    source: str = option("a data set that comes with netdef, or a path")
    batch_size: int = option("number of items in a batch", low=1)
    shuffle: bool = option("draw the items in another order in each pass over them", False)
    scale: float = option("each element is multiplied by this, after the mean", 1.0)
    mean_value: tuple[float, ...] = option("subtracted: one value, or one a channel", ())
    mean_file: str = option("file of the mean item to subtract", "")
    mirror: bool = option("flip items left to right at random", False)
    crop_size: int = option("side of the square that is cut out (random in training)", 0, low=0)
    force_color: bool = option("decode images to three channels", False)
    force_gray: bool = option("decode images to one channel", False)
    backend: Literal["LEVELDB", "LMDB"] = option("kind of Caffe database at source", "LEVELDB")
    prefetch: int = option("batches that are read ahead", 4, low=1)
    rand_skip: int = option("skip up to this many items at the start", 0, low=0)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 2)
        if self.mean_value and self.mean_file:
            scope.error("mean_file and mean_value are both given", "mean_file", kind=SpecError)
        return scope.feed(asdict(self), None)


@layer("Input")
@dataclass(frozen=True)
class Input:
    """Tops that the caller of the net fills."""

    shape: tuple[tuple[int, ...], ...] = option("shape of all tops, or a list of one each", ())

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, None)
        return scope.inputs(one_each(scope, self.shape))


@layer("DummyData")
@dataclass(frozen=True)
class DummyData:
    """Tops with made-up values, for measuring and testing."""

    shape: tuple[tuple[int, ...], ...] = option("shape of all tops, or a list of one each", ())
    data_filler: tuple[Filler, ...] = option("values of all tops, or a list of one each", ())
    num: tuple[int, ...] = option("old form of shape: first axis", (), low=1)
    channels: tuple[int, ...] = option("old form of shape: second axis", (), low=1)
    height: tuple[int, ...] = option("old form of shape: third axis", (), low=1)
    width: tuple[int, ...] = option("old form of shape: fourth axis", (), low=1)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, None)
        old = (self.num, self.channels, self.height, self.width)
        if any(old) and self.shape:
            scope.error("shape and num, channels, height, width are both given", "shape")
        if any(old) and len({len(part) for part in old}) > 1:
            scope.error("num, channels, height and width are not given equally often", "num")
        if len(self.data_filler) not in (0, 1, len(scope.tops)):
            message = f"{len(self.data_filler)} fillers for {len(scope.tops)} tops"
            scope.error(message, "data_filler", "give one, or one for each top")
        shapes = one_each(scope, self.shape or tuple(zip(*old, strict=True)))
        fillers = self.data_filler or (Filler(),)
        fillers = fillers if len(fillers) > 1 else fillers * len(scope.tops)
        return scope.feed({"data_filler": [asdict(f) for f in fillers]}, shapes)


@layer("MemoryData")
@dataclass(frozen=True)
class MemoryData:
    """Batches and labels from arrays that the caller gives."""

    batch_size: int = option("number of items in a batch", low=1)
    channels: int = option("channels of an item", low=1)
    height: int = option("height of an item", low=1)
    width: int = option("width of an item", low=1)
    scale: float = option("each element is multiplied by this, after the mean", 1.0)
    mean_value: tuple[float, ...] = option("subtracted: one value, or one a channel", ())

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 2)
        shapes: tuple[Shape, ...]
        shapes = (self.batch_size, self.channels, self.height, self.width), (self.batch_size,)
        return scope.feed(asdict(self), shapes[: len(scope.tops)])


def tops(scope: Scope, least: int, most: int | None) -> None:
    """Raises where the layer has too few or too many tops."""
    count = len(scope.tops)
    if count < least or (most is not None and count > most):
        want = f"{least} to {most}" if most else f"{least} or more"
        scope.error(f"has {count} tops, needs {want}")


def one_each(scope: Scope, shapes: Any) -> tuple[Shape, ...]:
    """Returns a shape for each top from one for all or one for each."""
    count = len(scope.tops)
    if len(shapes) == 1:
        return tuple(shapes) * count
    if len(shapes) == count:
        return tuple(shapes)
    if not shapes and all(top in scope.given for top in scope.tops):
        return tuple(scope.given[top] for top in scope.tops)
    message = f"{len(shapes)} shapes for {count} tops" if shapes else "'shape' is missing"
    scope.error(message, "shape", SHAPE_HINT, kind=SpecError)
