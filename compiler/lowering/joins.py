"""What joins a kernel's sums of all its tiles is done in its launch: see `Kernel.joins`.

A program reads some 50 to 100 GB/s, a launch takes 2 or 3 microseconds. So where there are many
tiles `moments.py` has groups of them joined first, and more sums than `MOST` are left to a launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from compiler.kernels.dependence import Dependence
from compiler.kernels.index import Index, axes_of, index, substitute
from compiler.kernels.kernel import Kernel, Load, values, walk
from compiler.kernels.parts import packed
from compiler.kernels.schedule import Work
from compiler.lowering.fuse import connect, renumbered, substituted

MOST = 1024


def join_tiles(kernels: Sequence[Work]) -> list[Work]:
    """Returns the kernels, those with sums of tiles with what joins these."""
    d = Dependence(kernels)
    stack = [i for i, kernel in d.kernels.items() if isinstance(kernel, Kernel) and kernel.rows]
    while stack:
        i = stack.pop()
        for j in sorted(d.data(i)):
            joined = _joined(d.kernels[i], d.kernels[j])
            if joined is not None and not d.detour(i, j):
                stack.append(d.merge(i, j, joined))
                break
    return [d.kernels[i] for i in d.order()]


def _joined(kernel: Work, other: Work) -> Kernel | None:
    """Returns a kernel with its reader as one more join, or as a part of one."""
    if not isinstance(kernel, Kernel) or not isinstance(other, Kernel):
        return None
    if {b.rstrip("'") for b in other.writes()} & kernel.reads():  # some program may still read it
        return None
    read = kernel.writes() & other.reads()
    joins = list(kernel.joins)
    for n, source in enumerate((replace(kernel, joins=()), *joins)):
        if not _joins(source, other, read):
            continue
        if n < len(joins):
            beside = _beside(joins[n], other)
            if beside is None:
                return None
            joins[n] = beside
        else:
            joins.append(other)
        layers = tuple(dict.fromkeys((*kernel.layers, *other.layers)))
        return replace(kernel, joins=tuple(joins), layers=layers)
    return None


def _joins(source: Kernel, other: Kernel, read: set[str]) -> bool:
    """Says whether `other` sums what `source` stores once a tile, over groups of tiles or all.

    A program then reads no other sums than those of its own group and its own columns.
    """
    stored = {s.buffer: s.offset for s in source.stores if not axes_of(s.offset) & {*source.rows}}
    if not read <= stored.keys() or len(source.space) < 2 or not _sums(other):
        return False
    (tile, *_, column), (*group, own) = source.space, other.space
    count = other.reduces[0].axes[0].size
    if len(group) > 1 or count * prod(a.size for a in group) != tile.size:
        return False
    for s in other.body:
        tiles = [packed(group) * count + of for of in (Index(0), *map(index, s.axes))]
        places = [{tile: number, column: index(own)} for number in tiles]
        for load in (e for v in values(s) for e in walk(v) if isinstance(e, Load)):
            if load.buffer in stored and (
                load.guards
                or load.offset not in [substitute(stored[load.buffer], at) for at in places]
            ):
                return False
    return own.size == column.size


def _sums(kernel: Kernel) -> bool:
    """Says whether all that a kernel does is sums over one axis, and what is made of them."""
    lengths = {tuple(a.size for a in r.axes) for r in kernel.reduces}
    plain = kernel.kind in ("reduce", "row") and not any(s.axes for s in kernel.stores)
    summing = plain and bool(kernel.space) and all(r.op == "sum" for r in kernel.reduces)
    return summing and len(lengths) == 1 and all(len(n) == 1 and n[0] <= MOST for n in lengths)


def _beside(join: Kernel, other: Kernel) -> Kernel | None:
    """Returns two joins of the same groups as one, None if one reads what the other makes."""
    if [a.size for a in join.space] != [a.size for a in other.space]:
        return None
    axes = {b: index(a) for a, b in zip(join.space, other.space, strict=True)}
    by = 1 + max(r.id for r in join.reduces)
    moved = substituted(other, axes, join.space)
    return connect(join, [renumbered(s, by) for s in moved.body])
