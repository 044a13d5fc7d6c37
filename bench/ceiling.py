"""The machine's ceiling: NumPy's matrix product, timed like a peer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.peer import Array, Job

SIZE = 1536  # the three matrices (28 MB) do not fit in a small cache, the blocks of BLAS do


class Sgemm:
    """A square product in float32. The worker's environment sets the threads of BLAS."""

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        rng = np.random.default_rng(0)
        self._a = rng.standard_normal((SIZE, SIZE), np.float32)
        self._b = rng.standard_normal((SIZE, SIZE), np.float32)
        self._c = np.empty((SIZE, SIZE), np.float32)

    def run(self, count: int) -> None:
        """Multiplies `count` times."""
        for _ in range(count):
            np.matmul(self._a, self._b, out=self._c)

    def result(self) -> list[float]:
        """Returns nothing: there is nothing to compare."""
        return []

    def facts(self) -> dict[str, Any]:
        """Returns the work of one product."""
        return {"gflop": 2 * SIZE**3 / 1e9}

    def close(self) -> None:
        """Nothing to end."""
