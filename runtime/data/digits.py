"""The embedded data sets: 1,797 handwritten digits, as published and enlarged."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import numpy as np

from runtime.data.records import Array, Records
from schemas.philox import philox

ITEM_SHAPES: dict[str, tuple[int, int, int]] = {
    "digits": (1, 28, 28),
    "digits8": (1, 8, 8),
    "digits-pairs": (2, 28, 28),
}
SPLIT_SEED = 1998
_FILE = Path(__file__).with_name("digits.csv.gz")
_LARGE = 20  # side of the enlarged digit; MNIST's digits are 20 x 20 in a field of 28 x 28
_BORDER = 4
_PAIRS = 10  # for each digit


def load_digits(name: str, phase: str) -> Records:
    """Returns the TRAIN or TEST part of an embedded set (README.md beside this file)."""
    pixels, labels = _published()
    chosen = _split(labels)[phase == "TEST"]
    if name == "digits-pairs":
        return _pairs(_enlarged(pixels[chosen]), labels[chosen])
    images = _enlarged(pixels) if name == "digits" else pixels
    return Records(
        np.ascontiguousarray(images[chosen][:, None], np.float32),
        labels[chosen].astype(np.float32),
    )


@functools.lru_cache(maxsize=1)
def _published() -> tuple[Array, Array]:
    with gzip.open(_FILE, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    assert table.shape == (1797, 65), table.shape
    return table[:, :64].reshape(-1, 8, 8), table[:, 64]


def _split(labels: Array) -> tuple[Array, Array]:
    """Returns the indices of TRAIN and of TEST, each in the fixed random order."""
    split_words, order_words, _, _ = philox(SPLIT_SEED, np.arange(len(labels)))
    ranked = np.argsort(split_words, kind="stable")
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        members = ranked[labels[ranked] == digit]
        test[members[: round(len(members) / 5)]] = True
    # Other words than the split's, which would put the surplus of common classes in front.
    order = np.argsort(order_words, kind="stable")
    return order[~test[order]], order[test[order]]


def _pairs(images: Array, labels: Array) -> Records:
    """Returns pairs of digits drawn at random, as two channels; labelled 1 if alike, else 0."""
    _, _, first, second = philox(SPLIT_SEED, np.arange(_PAIRS * len(labels)))
    left, right = (word.astype(np.int64) % len(labels) for word in (first, second))
    both = np.stack([images[left], images[right]], axis=1).astype(np.uint8)
    return Records(both, (labels[left] == labels[right]).astype(np.float32))


def _enlarged(pixels: Array) -> Array:
    """Returns (N, 28, 28) whole numbers 0 to 255 for (N, 8, 8) of 0 to 16.

    Bilinear with half-pixel centres and clamped edges. Pixel i of 20 lies at 0.4 i - 0.3 of 8, so
    that ten times each weight is a whole number: integers give the same result on every machine.
    """
    weights = np.zeros((_LARGE, 8), np.int64)
    for i in range(_LARGE):
        low, tenths = divmod(4 * i - 3, 10)
        weights[i, min(max(low, 0), 7)] += 10 - tenths
        weights[i, min(max(low + 1, 0), 7)] += tenths
    hundredths = weights @ pixels @ weights.T
    scaled = (hundredths * 255 + 800) // 1600  # from 0..1600 to 0..255, rounded
    return np.pad(scaled, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))
