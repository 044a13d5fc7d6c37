"""Where the labels of a contraction stand, and guards around what may lie outside of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.kernels.index import Axis, Index, axes_of, bounds, index
from compiler.kernels.kernel import (
    Expr,
    Factor,
    Guard,
    Guarded,
    Guards,
    Load,
    Store,
    load_axes,
    rebuild,
)
from compiler.prims.contract import Labels


def label_positions(labels: Labels) -> tuple[dict[str, Index], dict[str, Guards]]:
    """Returns each label's index, and the guards of those that slide past an edge."""
    derived = {(s.out if s.place in labels.out else s.place): s for s in labels.slides}
    at = {
        c: index(Axis(c, labels.size(c)))
        for c in dict.fromkeys(labels.out + labels.a + labels.b)
        if c not in derived
    }
    guards: dict[str, Guards] = {}
    for c, s in derived.items():
        found = []
        if c == s.place:
            at[c] = at[s.out] * s.stride + at[s.tap] * s.dilation - s.pad
        else:  # place = out * stride + tap * dilation - pad, solved for out
            moved = at[s.place] + s.pad - at[s.tap] * s.dilation
            at[c] = moved // s.stride
            found.append(Guard(moved % s.stride, 0, 1))
        found.append(Guard(at[c], 0, labels.size(c)))
        guards[c] = tuple(g for g in found if not g.always())
    return at, guards


def guarded(guards: Guards, value: Expr, other: float) -> Expr:
    """Returns `value` where the guards hold, else `other`; a Load takes the guards itself."""
    if not guards:
        return value
    if isinstance(value, Load) and not value.guards:
        return Load(value.buffer, value.offset, value.dtype, guards, other)
    if isinstance(value, Load) and (value.other == other or not value.guards):
        return Load(value.buffer, value.offset, value.dtype, (*value.guards, *guards), other)

    def visit(e: Expr) -> Expr | None:  # nothing is read where the value is not wanted
        return guarded(guards, e, e.other) if isinstance(e, Load) else None

    return Guarded(guards, rebuild(value, visit), other, value.dtype)


def factor(guards: Guards, value: Expr) -> Expr:
    """Returns a factor, 0 where a guard fails; what lies in its tensor anyway is read anyway."""
    if isinstance(value, Load):
        return guarded(guards, value, 0.0)
    moving = set().union(*(axes_of(g.index) for g in guards))

    def visit(e: Expr) -> Expr | None:
        near = isinstance(e, Load) and load_axes(e) & moving
        return guarded(guards, e, e.other) if isinstance(e, Load) and near else None

    if guards:
        value = Guarded(guards, rebuild(value, visit), 0.0, value.dtype)
    return Factor(value)


def reach(store: Store) -> tuple[int, int]:
    """Returns the first and the last element of its buffer that a store writes."""
    offset, first, last = store.offset, 0, 0
    for guard in store.guards:
        low, high = bounds(guard.index)
        atom, factor = guard.index.terms[0]
        step = dict(store.offset.terms).get(atom, 0) // factor
        ends = step * max(low, guard.low), step * (min(high + 1, guard.high) - 1)
        offset, first, last = offset - guard.index * step, first + min(ends), last + max(ends)
    low, high = bounds(offset)
    return first + low, last + high


def inside(position: Sequence[Index], shape: Sequence[int]) -> Guards:
    guards = (Guard(p, 0, n) for p, n in zip(position, shape, strict=True))
    return tuple(g for g in guards if not g.always())
