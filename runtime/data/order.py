"""Order: which records make up a batch, as a function of its number."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from runtime.data.records import Array
from runtime.data.transform import DOMAIN
from schemas.philox import philox


class Order:
    """Walks over `count` records in passes, `size` at a time; a batch may lie in two passes.

    `shuffled` gives the order of a pass by its number; None: the records' own. `skip` records are
    left out before the first batch.
    """

    def __init__(
        self, count: int, size: int, skip: int = 0, shuffled: Callable[[int], Array] | None = None
    ) -> None:
        self.count = count
        self.size = size
        self.skip = skip
        self._pass = lru_cache(maxsize=2)(shuffled) if shuffled else None

    def chosen(self, index: int) -> Array:
        """Returns the numbers of the records that make up batch `index`."""
        positions = self.skip + index * self.size + np.arange(self.size, dtype=np.int64)
        passes, places = np.divmod(positions, self.count)
        if self._pass is None:
            return places
        chosen = np.empty_like(positions)
        for number in range(int(passes[0]), int(passes[-1]) + 1):
            here = passes == number
            chosen[here] = self._pass(number)[places[here]]
        return chosen


def permutation(count: int, seed: int, stream: int, number: int, part: int = 0) -> Array:
    """Returns a random order of `count` things: the same for the same numbers, always."""
    words = philox(seed, np.arange(count), ~DOMAIN ^ part, number, stream)[0]
    return np.argsort(words, kind="stable")


def rand_skip(limit: int, seed: int, stream: int) -> int:
    """Returns how many records to leave out at the start: 0 to `limit` - 1 (Caffe's rand_skip)."""
    word = int(philox(seed, 0, ~DOMAIN, stream, 0)[1][0])
    return word % limit if limit > 0 else 0
