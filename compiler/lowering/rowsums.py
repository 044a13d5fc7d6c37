"""Contractions and windows take the sums over rows of what they store: a sum a tile.

`moments.py` has made such sums in parts of as many rows as a tile has. The kernel then runs over
tiles, rows of a tile and columns, and a part is a Reduce over the rows of its own space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from compiler.kernels.dependence import Dependence
from compiler.kernels.index import Axis, Index, index, substitute, unravel
from compiler.kernels.kernel import Kernel, Reduce, Statement, Store
from compiler.kernels.schedule import Buffer, Work
from compiler.lowering.align import align
from compiler.lowering.epilogues import living
from compiler.lowering.fuse import connect, in_place, renumbered, shifted, substituted, unique


def take_sums(
    kernels: Sequence[Work], buffers: Mapping[str, Buffer], sizes: Sequence[int]
) -> list[Work]:
    """Returns the kernels with sums over tiles of so many rows merged into what they are of."""
    d = Dependence(kernels)
    stack = [i for i, kind in d.kind.items() if kind in ("contract", "reduce")]
    while stack:
        i = stack.pop()
        for j in sorted(d.data(i)):
            merged = _merged(d.kernels[i], d.kernels[j], sizes)
            if merged is not None and not d.detour(i, j):
                read = merged.reads().union(*(d.reads[k] for k in d.kernels if k not in (i, j)))
                stack.append(d.merge(i, j, living(merged, buffers, read)))
                break
    return [d.kernels[i] for i in d.order()]


def _merged(kernel: Work, other: Work, sizes: Sequence[int]) -> Kernel | None:
    """Returns a kernel with the body of its reader, if that is sums over its rows."""
    if not isinstance(kernel, Kernel) or not isinstance(other, Kernel) or not _sums(other, sizes):
        return None
    row = other.reduces[0].axes[0]
    one = {r.axes[0]: index(row) for r in other.reduces}
    reader = substituted(other, one, (*other.space, row))
    stored = {s.buffer: s for s in kernel.stores}
    load = next(x for x in reader.loads() if x.buffer in stored)
    base = _in_tiles(kernel, stored[load.buffer], load.offset.coefficient(row), row.size)
    if base is None:
        return None
    store = next(s for s in base.stores if s.buffer == load.buffer)
    found = align(base, store, reader, load)
    if isinstance(found, str) or found.extra or found.split:
        return None
    if found.rename[row] != index(base.space[1]):
        return None
    by = 1 + max(r.id for r in base.reduces)
    body = [_over(renumbered(shifted(s, found.rename), by), base.space[1]) for s in reader.body]
    merged = connect(base, body)
    if merged is None or merged.kind != kernel.kind or not in_place(merged.body):
        return None
    layers = tuple(dict.fromkeys((*kernel.layers, *other.layers)))
    return replace(merged, layers=layers)


def _sums(kernel: Kernel, sizes: Sequence[int]) -> bool:
    """Says whether a kernel is sums over one axis of a size that a tile has."""
    plain = kernel.kind in ("reduce", "row") and not any(s.axes for s in kernel.stores)
    lengths = {tuple(a.size for a in r.axes) for r in kernel.reduces if r.op == "sum"}
    summing = all(r.op == "sum" for r in kernel.reduces)
    return plain and summing and lengths in [{(n,)} for n in sizes]


def _over(s: Statement, row: Axis) -> Statement:
    return replace(s, axes=(row,)) if isinstance(s, Reduce) else s


def _in_tiles(kernel: Kernel, store: Store, step: int, size: int) -> Kernel | None:
    """Returns the kernel over tiles of `size` rows, which lie `step` apart, and columns.

    Its space begins with the number of the tile and the row in it.
    """
    if kernel.rows:
        return kernel if kernel.rows[0].size == size else None
    rows = [a for a in kernel.space if store.offset.coefficient(a) >= step]
    rows.sort(key=lambda a: -store.offset.coefficient(a))
    columns = [a for a in kernel.space if a not in rows]
    count = prod(a.size for a in rows)
    if not step or count % size or count == size:
        return None
    taken = {a.name for a in kernel.space} | {a.name for s in kernel.body for a in s.axes}
    tile, row = Axis(unique("tile", taken), count // size), Axis(unique("row", taken), size)
    flat = index(tile) * size + index(row)
    axes = dict(zip(rows, unravel(flat, [a.size for a in rows]), strict=True))
    left = Index(store.offset.const, tuple(t for t in store.offset.terms if t[0] in columns))
    if substitute(store.offset, axes) != left + flat * step:
        return None
    return substituted(kernel, axes, (tile, row, *columns))
