"""Sequences made up by rule: the adding problem, copy memory, pairs of curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.data.records import Array
from runtime.data.transform import DOMAIN, stream_of
from schemas.params import Feed
from schemas.philox import philox

HARMONICS = 6  # of which a curve is made
FORGED = 0.4  # how far a forgery is from the true form, as a share of its coefficients
_COEFFICIENTS = 4 * HARMONICS  # sine and cosine along x and y

# Random words for the counters 0 to n - 1: four arrays.
Words = Callable[[int], tuple[Array, ...]]


class GeneratedSource:
    """Batches that are drawn by seed, layer, phase and batch number, and never end."""

    def __init__(self, feed: Feed, seed: int) -> None:
        self.shapes = dict(zip(feed.tops, feed.shapes, strict=True))
        self.constant: frozenset[str] = frozenset()
        self.make = MAKERS[feed.type]
        self.options = feed.options
        self.seed = seed
        self.stream = stream_of(feed)

    def batch(self, index: int) -> dict[str, Array]:
        """Returns batch `index`."""

        def words(count: int) -> tuple[Array, ...]:
            return philox(self.seed, np.arange(count), DOMAIN, index, self.stream)

        arrays = self.make(self.options, words)
        return {
            top: np.ascontiguousarray(array, np.float32)
            for top, array in zip(self.shapes, arrays, strict=False)
        }


def adding(options: dict[str, Any], words: Words) -> tuple[Array, ...]:
    """Returns x (T, N, 2), label (N, 1) and length (N): see AddingData."""
    steps, count, least = options["steps"], options["batch_size"], options["min_steps"]
    drawn, first, second, long = words(steps * count)
    values = uniform(drawn).reshape(steps, count)
    length = least + below(long[:count], steps - least + 1)
    half = length // 2
    marked = np.stack([below(first[:count], half), half + below(second[:count], length - half)])
    marks = np.zeros((steps, count))
    marks[marked, np.arange(count)] = 1
    label = (values * marks).sum(axis=0)
    values = np.where(np.arange(steps)[:, None] < length, values, 0)
    return np.stack([values, marks], axis=2), label[:, None], length


def copy(options: dict[str, Any], words: Words) -> tuple[Array, ...]:
    """Returns x and label (T, N): see CopyData."""
    symbols, count, alphabet = (options[key] for key in ("symbols", "batch_size", "alphabet"))
    drawn = 1 + below(words(symbols * count)[0], alphabet).reshape(symbols, count)
    blank = np.zeros((symbols + options["delay"], count))
    x = np.concatenate([drawn, blank])
    x[-symbols - 1] = alphabet + 1
    return x, np.concatenate([blank, drawn])


def curves(options: dict[str, Any], words: Words) -> tuple[Array, ...]:
    """Returns pairs (N, 4, T) and label (N): see CurveData."""
    steps, count = options["steps"], options["batch_size"]
    drawn = words(count * 4 * max(steps, _COEFFICIENTS))
    form, change, hand, noise = (2 * uniform(w) - 1 for w in drawn)
    own = form[: count * _COEFFICIENTS].reshape(count, 4, HARMONICS)
    other = own + FORGED * change[: count * _COEFFICIENTS].reshape(own.shape)
    same = below(drawn[0][-count:], 2) == 1
    forms = (own, np.where(same[:, None, None], own, other))
    habits = hand[: count * 8].reshape(2, 4, count, 1)
    pair = np.concatenate([drawing(*p, steps) for p in zip(forms, habits, strict=True)], axis=1)
    return pair + 0.05 * noise[: pair.size].reshape(pair.shape), same


def drawing(form: Array, habit: Array, steps: int) -> Array:
    """Returns a curve (N, 2, T) of a form (N, 4, harmonics), with the habits of one time."""
    speed, phase, size, slant = habit
    t = np.linspace(0, 1, steps)
    t = t + 0.03 * speed * np.sin(2 * np.pi * (t + phase))
    k = np.arange(1, HARMONICS + 1)
    angle = 2 * np.pi * k[:, None] * t[:, None]  # (N, harmonics, T)
    waves = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    weights = form.reshape(len(form), 2, 2 * HARMONICS) / np.tile(k, 2)
    x, y = np.moveaxis(weights @ waves, 1, 0) * (1 + 0.2 * size)
    return np.stack([x + 0.3 * slant * y, y], axis=1)


def uniform(words: Array) -> Array:
    """Returns numbers in [0, 1): the upper 24 bits of each word."""
    return (words >> np.uint32(8)) * 2.0**-24


def below(words: Array, limit: Array | int) -> Array:
    """Returns whole numbers from 0 to limit - 1."""
    return (words.astype(np.uint64) * np.asarray(limit, np.uint64) >> np.uint64(32)).astype(int)


MAKERS: dict[str, Callable[[dict[str, Any], Words], tuple[Array, ...]]] = {
    "AddingData": adding,
    "CopyData": copy,
    "CurveData": curves,
}
