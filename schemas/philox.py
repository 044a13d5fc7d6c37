"""Philox4x32-10: the counter-based random words that every backend shares."""

from __future__ import annotations

from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)


def philox(seed: int, c0: Any, c1: int = 0, c2: int = 0, c3: int = 0) -> tuple[Words, ...]:
    """Returns four arrays of random words for the counters (c0[i], c1, c2, c3).

    `seed` is taken modulo 2**64, its low half the first key word. Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", SC 2011; checked against the known answers of Random123.
    """
    x0 = np.atleast_1d(np.asarray(c0)).astype(np.uint64) & _LOW
    x1, x2, x3 = (np.full_like(x0, c & 0xFFFFFFFF) for c in (c1, c2, c3))
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(ROUNDS):
        p0 = x0 * np.uint64(MULTIPLIERS[0])
        p1 = x2 * np.uint64(MULTIPLIERS[1])
        x0, x2 = (
            (p1 >> np.uint64(32)) ^ x1 ^ np.uint64(k0),
            (p0 >> np.uint64(32)) ^ x3 ^ np.uint64(k1),
        )
        x1, x3 = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return tuple(x.astype(np.uint32) for x in (x0, x1, x2, x3))


def uniform(seed: int, stream: int, iteration: int, count: int) -> np.ndarray[Any, Any]:
    """Returns `count` float32 numbers in [0, 1): the upper 24 bits of each first word."""
    words = philox(seed, np.arange(count, dtype=np.uint64), 0, iteration, stream)[0]
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
