"""Tile sizes for matrix products, from a static model of the processor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from compiler.tilings import Tiling
from compiler.triton_source.text import ceil_div
from schemas.precision import Precision


@dataclass(frozen=True, slots=True)
class Target:
    """What tile sizes and launch shapes depend on.

    `shared` is the most shared memory of a block in bytes, `warp` the threads of a warp, `block`
    the most elements of a map that one program takes.
    """

    name: str
    arch: str | int
    processors: int
    shared: int
    warp: int = 32
    block: int = 1024

    @property
    def amd(self) -> bool:
        return self.warp == 64

    @property
    def grouped_warps(self) -> bool:
        """Whether tensor cores multiply for four warps and 64 rows at a time (wgmma, tcgen05)."""
        return isinstance(self.arch, int) and 90 <= self.arch < 120

    @property
    def overlaps(self) -> bool:
        """Whether a launch may begin while the one before it ends."""
        return isinstance(self.arch, int) and self.arch >= 90

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What products can be computed in, the default first."""
        if self.amd:
            return ("fp32", "bf16")
        exact: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
        return exact if self.name == "interpreter" else ("tf32", "fp32", "bf16")


TARGETS: dict[str, Target] = {
    "sm_80": Target("sm_80", 80, 108, 166912),
    "sm_90": Target("sm_90", 90, 132, 232448),
    "sm_100": Target("sm_100", 100, 148, 232448),
    "gfx942": Target("gfx942", "gfx942", 304, 65536, 64),
    # Source only, for Triton's interpreter: few large blocks, as each costs it the same time.
    "interpreter": Target("interpreter", 90, 1, 1 << 30, block=1 << 15),
}


def target_named(name: str) -> Target | None:
    """Returns a target: of the table, or a GPU that every Triton of pyproject.toml compiles for."""
    if name in TARGETS:
        return TARGETS[name]
    # LLVM ends the process where it does not know a processor.
    number = re.fullmatch(r"sm_(86|87|89|103|120|121)", name)
    if number is None:
        return None
    arch = int(number[1])
    # Only the data centre models have the large shared memory.
    shared = {87: 166912, 103: 232448}.get(arch, 101376)
    return Target(name, arch, 100, shared)


@dataclass(frozen=True, slots=True)
class Tile:
    """`descriptors`: programs stay, and the copy engine reads their factors (descriptors.py)."""

    m: int
    n: int
    k: int
    stages: int
    warps: int
    descriptors: bool = False

    @property
    def accumulators(self) -> int:
        """How many results a thread adds up, each in a register."""
        return self.m * self.n // (32 * self.warps)

    @property
    def tiling(self) -> Tiling:
        """Returns it in the words of a table."""
        return {name: int(value) for name, value in asdict(self).items() if value}


# Accumulators a thread: half of the registers that it can have, and those of the smallest tile.
MOST, LEAST = 128, 8

_NARROWEST = 16  # columns of a tile

# Of each table the smallest comes last: it is taken where all hold too much in registers.
# Tried on sm_90 without spilling.
_TENSOR = (
    Tile(128, 256, 32, 3, 8),
    Tile(128, 128, 32, 3, 8),
    Tile(64, 128, 32, 4, 4),
    Tile(128, 64, 32, 4, 8),
    Tile(64, 64, 32, 4, 4),
    Tile(64, 32, 32, 4, 4),
    Tile(32, 64, 32, 4, 4),
    Tile(32, 32, 32, 4, 2),
    Tile(16, 64, 32, 4, 2),
    Tile(64, 16, 32, 4, 2),
    Tile(16, 16, 32, 4, 1),
)


# As deep again in elements as in bytes, tried on sm_90 too.
_BF16 = (
    Tile(128, 256, 64, 3, 8),
    Tile(256, 128, 64, 3, 8),
    Tile(128, 128, 64, 4, 8),
    Tile(128, 64, 64, 4, 8),
    Tile(64, 128, 64, 3, 4),
    Tile(64, 64, 64, 4, 4),
    Tile(128, 64, 32, 4, 4),
    Tile(64, 128, 32, 4, 4),
    Tile(64, 64, 32, 4, 4),
    Tile(64, 32, 64, 4, 4),
    Tile(32, 64, 64, 4, 4),
    Tile(32, 32, 32, 4, 2),
    Tile(16, 64, 64, 4, 2),
    Tile(64, 16, 64, 4, 2),
    Tile(16, 16, 64, 4, 1),
    Tile(16, 16, 16, 4, 1),
)


def _plain() -> Iterator[Tile]:
    """Yields tiles for products on the plain fp32 units, which hold more of them in registers."""
    for m in (128, 64, 32, 16):
        for n in (128, 64, 32, 16):
            for k in (32, 16):
                warps = min(8, max(1, m * n // 1024))
                yield Tile(m, n, k, 3, warps)


@dataclass(frozen=True, slots=True)
class Product:
    """What tiles are chosen by: `batch` products of m x k by k x n numbers.

    `run` is the length of the last sum axis: a tile whose depth divides it reads whole runs, and
    decomposes the sum's index once a block instead of once an element. `scattered`: the rows'
    factor is read number by number, and its runs are padded (depth.py). A thread has at most so
    many `accumulators`. `rows` is the height that the tile must have, 0: any. A program has tiles
    for so many `places` of a window, of which m counts one. `blobs`: a factor is a map of so many.
    """

    m: int
    n: int
    k: int
    batch: int
    run: int
    target: Target
    precision: Precision
    accumulators: int = MOST
    rows: int = 0
    places: int = 1
    scattered: bool = False
    blobs: tuple[int, int] = (1, 1)

    def along_depth(self, t: Tile) -> bool:
        """Whether both factors must lie along K: tensor cores for four warps turn 16 bits alone."""
        grouped = self.target.grouped_warps and t.m % 64 == 0 and t.warps % 4 == 0
        return grouped and self.precision == "tf32"

    def padded(self, t: Tile) -> int:
        """Returns how many numbers a run takes up along K; one block is read without a loop."""
        if not self.scattered or self.run % t.k == 0 or self.k <= t.k:
            return self.run
        if self.run > t.k:
            return ceil_div(self.run, t.k) * t.k
        return 1 << (self.run - 1).bit_length()


@lru_cache(maxsize=4096)
def choose(p: Product) -> Tile:
    """Returns the tile with the least estimated time."""
    return _largest(p) if p.target.name == "interpreter" else ranked(p)[0]


def ranked(p: Product) -> list[Tile]:
    """Returns the tiles that a target has room for, that with the least estimated time first."""
    tiles = {"fp32": tuple(_plain()), "tf32": _TENSOR, "bf16": _BF16}[p.precision]
    itemsize = 2 if p.precision == "bf16" else 4
    if p.places > 1:
        tiles = tuple(_with_warps(t, p.places, itemsize) for t in tiles)
    a, b = p.blobs
    factors = {t: (p.places * a * t.m + b * t.n) * t.k * itemsize * t.stages for t in tiles}
    fitting = [t for t in tiles if factors[t] <= p.target.shared]
    if p.rows:
        fitting = [t for t in fitting if t.m == p.rows]
    few = [t for t in fitting if t.accumulators * p.places <= p.accumulators]
    fitting = few or [_narrowed(min(reversed(fitting), key=lambda t: t.accumulators), p)]
    if p.precision != "fp32" and p.target.grouped_warps and p.m >= 64 and p.n >= 64:
        fitting = [t for t in fitting if t.m >= 64 and t.warps >= 4] or fitting
    return sorted(fitting, key=lambda t: (_time(t, p), -t.m * t.n))


def _narrowed(t: Tile, p: Product) -> Tile:
    """Returns a tile with fewer columns, as many as there are accumulators for."""
    while t.n > _NARROWEST and t.accumulators * p.places > p.accumulators:
        t = replace(t, n=t.n // 2)
    return t


def described(p: Product) -> list[Tile]:
    """Returns tiles whose factors the copy engine may read, where both are matrices that it can.

    The model does not choose them: no GPU has shown yet where they win.
    """
    if not p.target.grouped_warps or p.precision == "fp32" or min(p.m, p.n) < 64:
        return []
    large = (t for t in ranked(p) if t.m >= 64 and t.n >= 64 and _shared(t, p) <= p.target.shared)
    return [replace(t, descriptors=True) for t in large]


def resident(t: Tile, p: Product) -> int:
    """Returns how many programs that stay a product has: as many as run at once."""
    each = max(1, min(16 // t.warps, p.target.shared // _shared(t, p)))
    return each * p.target.processors


def _shared(t: Tile, p: Product) -> int:
    """Returns about how many bytes of shared memory a program that stays takes.

    A tile is stored by way of it, while the first factors for the next one come.
    """
    itemsize = 2 if p.precision == "bf16" else 4
    return ((t.m + t.n) * t.k * t.stages + t.m * t.n) * itemsize


def _with_warps(t: Tile, places: int, itemsize: int) -> Tile:
    """Returns a tile of each of so many places with more warps, if a thread would hold many.

    Each thread still has 16 bytes of a factor to copy.
    """
    copies = t.m * t.k * itemsize // 16
    while t.warps < 8 and t.accumulators * places > MOST // 2 and copies >= 64 * t.warps:
        t = replace(t, warps=2 * t.warps)
    return t


def _largest(p: Product) -> Tile:
    """Returns the tile with which the interpreter does least work, a step of it costing most."""

    def work(t: Tile) -> float:
        steps = ceil_div(p.m, t.m) * ceil_div(p.n, t.n)
        steps *= ceil_div(p.k // p.run * p.padded(t), t.k)
        rows = p.places * t.m
        return steps * (50_000 * p.places + (rows + t.n) * t.k + rows * t.n * (1 + t.k / 50))

    sides = (16, 32, 64, 128, 256, 512, 1024)
    heights = (p.rows,) if p.rows else sides
    return min((Tile(a, b, c, 1, 4) for a in heights for b in sides for c in sides), key=work)


_EACH = 8  # instructions for each number that is read alone

# Products that a processor adds up in a cycle.
_SUMS: dict[Precision, int] = {"fp32": 128, "tf32": 1024, "bf16": 2048}


def _time(t: Tile, p: Product) -> float:
    """Returns cycles: rounds of tiles over all processors, each the greater of sums and loads."""
    tiles = ceil_div(p.m, t.m) * ceil_div(p.n, t.n) * p.batch
    threads = t.warps * 32
    rows = p.places * t.m
    sums = rows * t.n * t.k / _SUMS[p.precision]
    if p.precision == "fp32":  # few accumulators a thread: each loaded operand is used few times
        sums *= 1 + 16 / (rows * t.n / threads)
    loads = (rows + t.n) * t.k * (2 if p.precision == "bf16" else 4) / 24
    if p.scattered:
        loads = max(loads, rows * t.k * _EACH / 128)
    uneven = 1.4 if p.run % t.k and not p.scattered else 1.0
    steps = ceil_div(p.k // p.run * p.padded(t), t.k)
    one = steps * ((max(sums, loads) + min(sums, loads) / 2) * uneven + 40) + 400
    # A processor works on several small tiles at a time: their waits overlap.
    together = max(1, 16 // t.warps)
    rounds = ceil_div(tiles, p.target.processors)
    overlap = min(together, rounds)
    waits = steps * 40 + 400
    return rounds * (one - waits) + ceil_div(rounds, overlap) * waits
