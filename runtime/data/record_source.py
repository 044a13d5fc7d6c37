"""RecordSource: the items of a data set, in order or shuffled, transformed."""

from __future__ import annotations

from runtime.data.databases import DatabaseRecords, is_database
from runtime.data.digits import ITEM_SHAPES, load_digits
from runtime.data.image_list import ImageList
from runtime.data.npz import load_npz, npz_item_shapes
from runtime.data.order import Order, permutation, rand_skip
from runtime.data.places import find, wrong
from runtime.data.records import Array, Dataset, Records, Shape
from runtime.data.transform import stream_of, transform_of
from schemas.errors import ShapeError, SourceError, SpecError, near
from schemas.params import Feed

SIZE_HINT = "all items of a batch have one size: give crop_size"


class RecordSource:
    """Reads records in order, from the first again after the last, `batch_size` at a time.

    With `shuffle: true`, each pass has its own order, a function of the seed and its number.
    """

    def __init__(self, feed: Feed, seed: int) -> None:
        self.feed = feed
        self.records: Dataset = open_dataset(feed)
        self.item = self.records.item()
        label = () if self.records.label is None else self.records.label.shape[1:]
        self.shapes: dict[str, Shape] = dict(
            zip(feed.tops, _shapes(feed, self.item, label), strict=True)
        )
        self.constant: frozenset[str] = frozenset()
        self.seed = seed
        self.stream = stream_of(feed)
        self.transform = transform_of(feed, self.item)
        skip = rand_skip(int(feed.options.get("rand_skip") or 0), seed, self.stream)
        shuffled = self._shuffled if feed.options.get("shuffle") else None
        self.order = Order(len(self.records), _batch_size(feed), skip, shuffled)

    @property
    def labels(self) -> Array | None:
        """All labels, None where they are only known as they are read."""
        return self.records.label

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index`: items transformed, labels as they are."""
        chosen = self.order.chosen(index)
        items, label = self.records.take(chosen)
        self._check(chosen, items)
        try:
            arrays = [self.transform(items, self.seed, self.stream, index)]
        except ShapeError as error:  # an item larger than the mean image
            raise wrong(self.feed, error.message, error.hint) from None
        if label is not None:
            arrays.append(label)
        return dict(zip(self.shapes, arrays, strict=True))

    def _shuffled(self, number: int) -> Array:
        return permutation(len(self.records), self.seed, self.stream, number)

    def _check(self, chosen: Array, items: list[Array] | Array) -> None:
        """Raises where an item has not the shape of the first; crop_size makes larger ones fit."""
        if not isinstance(items, list):  # an array: all are alike
            return
        crop = self.transform.crop
        for number, item in zip(chosen, items, strict=True):
            fits = item.shape == self.item
            if not fits and crop:
                fits = item.shape[0] == self.item[0] and min(item.shape[1:]) >= crop
            if not fits:
                shape, first = ("x".join(map(str, s)) for s in (item.shape, self.item))
                message = f"{self.records.name(int(number))} is {shape}"
                if crop and item.shape[0] == self.item[0]:
                    raise wrong(self.feed, f"{message}: less than crop_size {crop}")
                hint = SIZE_HINT
                if self.feed.type == "ImageData":
                    hint += ", or new_height and new_width"
                if item.shape[0] != self.item[0]:
                    hint = "give force_color: true or force_gray: true (for encoded pictures)"
                raise wrong(self.feed, f"{message}, but the first is {first}", hint)


def open_dataset(feed: Feed) -> Dataset:
    """Returns the data set that a Data or ImageData layer names. Raises SourceError."""
    if feed.type == "ImageData":
        return ImageList(feed)
    name = _source_name(feed)
    if name in ITEM_SHAPES:
        records = load_digits(name, feed.phase)
        return records if len(feed.tops) > 1 else Records(records.data, None)
    if name.endswith(".npz"):
        return load_npz(feed, find(feed, name))
    return DatabaseRecords(feed, find(feed, name, is_database))


def record_shapes(feed: Feed) -> tuple[Shape, ...]:
    """Returns the shapes of the tops of a Data or ImageData layer; it reads one item at most."""
    return _shapes(feed, *_item_shapes(feed))


def _item_shapes(feed: Feed) -> tuple[Shape, Shape]:
    """Returns the shape of an item and of its label; of arrays it reads no more than headers."""
    if feed.type == "ImageData":
        return ImageList(feed).item(), ()
    name = _source_name(feed)
    if name in ITEM_SHAPES:
        return ITEM_SHAPES[name], ()
    if name.endswith(".npz"):
        return npz_item_shapes(feed, find(feed, name))
    return DatabaseRecords(feed, find(feed, name, is_database)).item(), ()


def _shapes(feed: Feed, item: Shape, label: Shape) -> tuple[Shape, ...]:
    """Returns the shapes of the tops, given those of one item and one label."""
    if len(feed.tops) not in (1, 2):
        message = f"layer '{feed.layer}' ({feed.type}): {len(feed.tops)} tops"
        raise SpecError(message, feed.span, "write top: [data, label], or data alone")
    batch = _batch_size(feed)
    after = transform_of(feed, item, mean_file=False).item_shape(item)
    return ((batch, *after), (batch, *label))[: len(feed.tops)]


def _batch_size(feed: Feed) -> int:
    size = feed.options.get("batch_size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        message = f"layer '{feed.layer}' ({feed.type}): batch_size must be 1 or more, not {size}"
        raise SpecError(message, feed.span, "write batch_size: 64")
    return size


def _source_name(feed: Feed) -> str:
    """Returns the name of an embedded source, a database or an .npz file, or raises SourceError."""
    name = feed.options.get("source")
    known = ", ".join(sorted(ITEM_SHAPES))
    if not isinstance(name, str) or not name:
        hint = f"write source: NAME, one of {known}, or the path of an .npz file or an LMDB"
        raise wrong(feed, "it has no source", hint)
    if name in ITEM_SHAPES or name.endswith(".npz"):
        return name
    try:
        find(feed, name, is_database)
    except SourceError as error:
        match = near(name, ITEM_SHAPES)
        hint = f"embedded: {known}; else the path of an .npz file or of an LMDB folder"
        near_one = f"did you mean '{match}'?" if match else error.hint or ""
        hint = f"{near_one} {hint}" if near_one.startswith("did") else hint
        raise wrong(feed, f"'{name}' is not a data source", hint) from None
    return name
