"""Which tilings of a contraction are worth a try, and the plan of each.

They differ in what does not change the order of any sum: which axes are rows and vectors, how many
of each are in a tile, and whether a panel is copied. Where a sum is cut stays as the model has it.
So results are the same bits, whatever a search finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from compiler.kernels.kernel import Kernel
from compiler.llvm.contract_plan import (
    Plan,
    axes_alone,
    guard_depth,
    may_pack,
    outer_axes,
    plan,
    row_choices,
    tiles,
    vectors,
)
from compiler.llvm.dot import dot_plan, dot_tiles
from compiler.llvm.host import Host
from compiler.tilings import Tiling

_MOST = 12
_LIKE = 2  # candidates that differ in the size of a tile alone


def planned(kernel: Kernel, host: Host, tiling: Tiling | None) -> Plan | None:
    """Returns the plan of a tiling, the model's if it is None or not possible.

    None where there is no plan at all.
    """
    model = plan(kernel, host) or dot_plan(kernel, host)
    if model is None or tiling is None:
        return model
    found = (p for _, p in _plans(kernel, host, model) if _tiling(kernel, p) == tiling)
    return next(found, model)


def candidates(kernel: Kernel, host: Host) -> tuple[Tiling, ...]:
    """Returns tilings of a contraction, the model's first, then the best of each sort."""
    model = planned(kernel, host, None)
    if model is None:
        return ()
    found, alike = [_tiling(kernel, model)], dict[object, int]()
    for _, made in sorted(_plans(kernel, host, model), key=lambda p: p[0]):
        sort = made.vec, made.rows, made.even, made.packed
        tiling = _tiling(kernel, made)
        if tiling not in found and alike.get(sort, 0) < _LIKE:
            alike[sort] = alike.get(sort, 0) + 1
            found.append(tiling)
    return tuple(found[:_MOST])


def _tiling(kernel: Kernel, made: Plan) -> Tiling:
    """Returns what tells a kernel's plans apart; `row` -1: rows are points of several axes."""
    if made.nr:
        return {"mr": made.mr, "nr": made.nr}
    return {
        "vector": kernel.space.index(made.vec),
        "row": kernel.space.index(made.rows[0]) if made.rows and made.even else -1,
        "mr": made.mr,
        "nv": made.nv,
        "packed": int(made.packed),
    }


def _plans(kernel: Kernel, host: Host, model: Plan) -> Iterable[tuple[float, Plan]]:
    """Yields all plans that sum in the model's order, each with the cycles that it may take."""
    if model.nr:
        for cycles, mr, nr in dot_tiles(model.row_count, model.vec.size, host):
            yield cycles, replace(model, mr=mr, nr=nr)
        return
    for _, scalar, vector, vec in vectors(kernel, host.lanes):
        for rows in row_choices(scalar, axes_alone(kernel, scalar, vector), model.sums, host):
            made = replace(
                model,
                scalar=scalar,
                vector=vector,
                vec=vec,
                outer=outer_axes(kernel, vector, vec, rows.axes),
                rows=rows.axes,
                even=rows.even,
                depth=max(model.lead, guard_depth(scalar, rows.axes, model.sums)),
            )
            times = rows.weight * rows.count * math.prod(a.size for a in made.outer)
            for cycles, mr, nv in tiles(rows, vec.size, host):
                for packed in _packings(replace(made, mr=mr, nv=nv)):
                    yield cycles * times, packed


def _packings(made: Plan) -> Iterator[Plan]:
    yield replace(made, packed=False)
    if may_pack(made):
        yield replace(made, packed=True)
