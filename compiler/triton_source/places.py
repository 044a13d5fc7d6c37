"""The places of a window, where a contraction's epilogue folds its results over them.

A program has a result tile for each place, all of them from one read of the other factor: so what
is folded lies in the registers of one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from compiler.kernels.index import Axis, Index, axes_of
from compiler.kernels.kernel import Acc, Expr, Kernel, Reduce, Statement, Store, rebuild
from compiler.lowering.epilogues import WINDOW_LIMIT
from compiler.lowering.fuse import shifted
from compiler.triton_source.emit import Emitter
from compiler.triton_source.folds import fold_one, result, start
from compiler.triton_source.function import each_of, flatten
from compiler.triton_source.lines import Dims


@dataclass(frozen=True)
class Place:
    """`acc` is the variable of the results at a place, which is known as the Reduce `id`."""

    acc: str
    id: int
    at: dict[Axis, Index]


def window(kernel: Kernel) -> tuple[Axis, ...]:
    """Returns the axes of the space over all of whose places a program folds its results."""
    return kernel.rows if prod(a.size for a in kernel.rows) <= WINDOW_LIMIT else ()


def places(em: Emitter, kernel: Kernel) -> list[Place]:
    """Returns all places of the window, in order; the only one where there is no window."""
    axes = window(kernel)
    if not axes:
        return [Place("acc", kernel.reduces[0].id, {})]
    first = 1 + max(r.id for r in kernel.reduces)
    numbers = product(*(range(a.size) for a in axes))
    return [
        Place(em.names.fresh(f"acc_{i}"), first + i, dict(zip(axes, map(Index, at), strict=True)))
        for i, at in enumerate(numbers)
    ]


def fold_places(
    em: Emitter, kernel: Kernel, found: Sequence[Place], axes: dict[Axis, Index], dims: Dims
) -> None:
    """Writes the folds over the window, and what is stored: at each place, or once for all."""
    flat, by_place = flatten(window(kernel), "place")
    for r in kernel.reduces[1:]:
        fold = start(em, r, dims)
        for i, place in enumerate(found):
            here = at_place(r, kernel, place)
            assert isinstance(here, Reduce)
            fold_one(em, here, fold, str(i), axes)
        em.accs[r.id] = result(em, r, fold, flat, axes | by_place)
    for s in kernel.stores:
        once = not axes_of(s.offset).issuperset(kernel.rows)
        for place in found[:1] if once else found:
            own = at_place(s, kernel, place)
            assert isinstance(own, Store)
            for one in each_of(own, axes):
                em.store(one, dims)


def at_place(s: Statement, kernel: Kernel, place: Place) -> Statement:
    """Returns what a statement is at a place of the window."""
    whole = kernel.reduces[0].id

    def own(e: Expr) -> Expr | None:
        return Acc(place.id, e.dtype) if isinstance(e, Acc) and e.id == whole else None

    return shifted(replace(s, value=rebuild(s.value, own)), place.at)
