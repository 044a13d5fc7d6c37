"""What this machine can do at best: a large product and a large copy, timed right now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SIZE = 1536  # the three matrices (28 MB) do not fit in a small cache, the blocks of BLAS do
COPIED = 2**24  # numbers: 64 MiB in and 64 MiB out, more than caches hold
_SECONDS = 0.3  # of each


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The fastest product in float32, and the fastest copy; bytes that are read count, too."""

    gflops: float
    gbytes: float


def ceilings(threads: int) -> Ceilings | None:
    """Returns what so many threads reach; None where NumPy cannot be run beside this process.

    In a process of its own: BLAS takes its number of threads from the environment at its start.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, str(threads))}
    command = [sys.executable, "-P", str(Path(__file__)), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, env=env, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return Ceilings(**json.loads(done.stdout))


def _measure(threads: int) -> Ceilings:
    import numpy as np

    random = np.random.default_rng(0)
    a, b = (random.standard_normal((SIZE, SIZE), np.float32) for _ in "ab")
    product = np.empty((SIZE, SIZE), np.float32)
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        multiply = _fastest(lambda: np.matmul(a, b, out=product))
        copy = _fastest(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))
    return Ceilings(2 * SIZE**3 / multiply / 1e9, 2 * source.nbytes / copy / 1e9)


def _fastest(work: Callable[[], object]) -> float:
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    found = _measure(int(sys.argv[1]))
    print(json.dumps({"gflops": found.gflops, "gbytes": found.gbytes}))
