"""Data layers: the inputs of a net and who fills them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope, Shape
from schemas.errors import SpecError
from schemas.params import Filler

SHAPE_HINT = "for example shape: [64, 3, 28, 28]"


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The fields of every layer that reads a file."""

    source: str = option("what the items are read from")
    batch_size: int = option("number of items in a batch", low=1)


@dataclass(frozen=True, kw_only=True)
class Transformed:
    """The fields of Caffe's transform_param: what is done to an item, (x - mean) * scale."""

    scale: float = option("each element is multiplied by this, after the mean", 1.0)
    mean_value: tuple[float, ...] = option("subtracted: one value, or one a channel", ())
    mean_file: str = option("file of the mean item to subtract", "")
    mirror: bool = option("flip items left to right at random", False)
    crop_size: int = option("side of the square that is cut out (random in training)", 0, low=0)
    force_color: bool = option("decode pictures in a database to three channels", False)
    force_gray: bool = option("decode pictures in a database to one channel", False)

    def check(self, scope: Scope) -> None:
        """Raises where two fields contradict each other."""
        if self.mean_value and self.mean_file:
            scope.error("mean_file and mean_value are both given", "mean_file", kind=SpecError)
        if self.force_color and self.force_gray:
            scope.error("force_color and force_gray are both true", "force_gray", kind=SpecError)


@layer("Data")
@dataclass(frozen=True, kw_only=True)
class Data(Transformed, Batches):
    """Batches of items and, with a second top, their labels, from a data set."""

    source: str = option("a data set that comes with netdef, an .npz file or an LMDB folder")
    shuffle: bool = option("draw the items in another order in each pass over them", False)
    rand_skip: int = option("skip up to this many items at the start", 0, low=0)
    backend: Literal["LEVELDB", "LMDB"] = option(
        "kind of Caffe database; what lies at source decides", "LEVELDB"
    )
    prefetch: int = option("batches that are read ahead", 4, low=1)
    force_encoded_color: bool = option("force_color by its older name", False)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 2)
        self.check(scope)
        return scope.feed(asdict(self), None)


@layer("ImageData")
@dataclass(frozen=True, kw_only=True)
class ImageData(Transformed, Batches):
    """Batches of pictures and their labels, from a list of files; channels are blue first."""

    source: str = option("a text file; each line is the path of a picture and its label")
    batch_size: int = option("number of items in a batch", 1, low=1)
    root_folder: str = option("stands before each path of the list", "")
    new_height: int = option("height that pictures are resized to", 0, low=0)
    new_width: int = option("width that pictures are resized to", 0, low=0)
    is_color: bool = option("three channels, else one", True)
    shuffle: bool = option("draw the items in another order in each pass over them", False)
    rand_skip: int = option("skip up to this many items at the start", 0, low=0)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1 if scope.deploy else 2, 2)
        self.check(scope)
        if (self.new_height > 0) != (self.new_width > 0):
            given = "new_height" if self.new_height else "new_width"
            message = "new_height and new_width go together"
            scope.error(message, given, "give both or neither", kind=SpecError)
        return scope.feed(asdict(self), None)


@layer("WindowData")
@dataclass(frozen=True, kw_only=True)
class WindowData(Transformed, Batches):
    """Windows of pictures and their classes, background first, drawn at random (R-CNN)."""

    source: str = option("a window file: pictures, and boxes with class and overlap")
    crop_size: int = option("side of the square that windows are warped to", low=1)
    fg_threshold: float = option("overlap from which on a window shows its object", 0.5)
    bg_threshold: float = option("overlap below which a window is background", 0.5)
    fg_fraction: float = option("part of a batch that shows objects", 0.25, low=0)
    context_pad: int = option("pixels of surroundings around a warped window", 0, low=0)
    crop_mode: Literal["warp", "square"] = option("shape of what is cut out", "warp")
    cache_images: bool = option("read; the system keeps files in memory anyway", False)
    root_folder: str = option("stands before each path of the window file", "")

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1 if scope.deploy else 2, 2)
        self.check(scope)
        if 2 * self.context_pad >= self.crop_size:
            scope.error("context_pad takes the whole of crop_size", "context_pad", kind=SpecError)
        if self.fg_fraction > 1:
            scope.error("fg_fraction is more than 1", "fg_fraction", kind=SpecError)
        return scope.feed(asdict(self), None)


@layer("HDF5Data")
@dataclass(frozen=True, kw_only=True)
class HDF5Data(Batches):
    """Rows of HDF5 files, as they are: a dataset for each top, by its name."""

    source: str = option("a text file with the name of an .h5 file on each line")
    shuffle: bool = option("draw files, and rows in a file, in another order in each pass", False)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, None)
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
@dataclass(frozen=True, kw_only=True)
class MemoryData(Transformed):
    """Batches and labels from arrays that the caller gives."""

    batch_size: int = option("number of items in a batch", low=1)
    channels: int = option("channels of an item", low=1)
    height: int = option("height of an item, after crop_size", low=1)
    width: int = option("width of an item, after crop_size", low=1)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 2)
        self.check(scope)
        if self.crop_size and {self.crop_size} != {self.height, self.width}:
            message = f"crop_size {self.crop_size} is not the height and width"
            scope.error(message, "crop_size", "they say what comes out", kind=SpecError)
        shapes: tuple[Shape, ...]
        shapes = (self.batch_size, self.channels, self.height, self.width), (self.batch_size,)
        return scope.feed(asdict(self), shapes[: len(scope.tops)])


def tops(scope: Scope, least: int, most: int | None) -> None:
    """Raises where the layer has too few or too many tops."""
    count = len(scope.tops)
    if count < least or (most is not None and count > most):
        exact = f"{least}" if least == most else f"{least} to {most}"
        want = f"{least} or more" if most is None else exact
        scope.error(f"has {count} top{'s' * (count != 1)}, needs {want}")


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
