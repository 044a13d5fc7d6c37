"""Sums in parts: one kernel that makes the parts of a sum, one that adds them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from compiler.kernels.index import Axis, Index, index
from compiler.kernels.kernel import Acc, Kernel, Load, Parts, Reduce, Statement, Store, shift


def packed(axes: Sequence[Axis]) -> Index:
    """Returns the offset of a point where these axes lie without gaps, the last fastest."""
    offset = Index(0)
    for axis in axes:
        offset = offset * axis.size + index(axis)
    return offset


def halves(kernel: Kernel, parts: Parts) -> tuple[Kernel, Kernel, Axis]:
    """Returns what makes the parts of a kernel's sums, what adds them up, and the axis of parts.

    It is the first axis of the space of the one, and what the sums of the other run over.
    """
    axes = kernel.reduces[0].axes
    cut = axes[parts.cut]
    part = Axis(fresh("part", kernel), parts.count)
    rest = Axis(cut.name, cut.size // parts.count)
    moved = {cut: index(part) * rest.size + index(rest)}
    left = tuple(rest if a == cut else a for a in axes if a != cut or rest.size > 1)
    space, size = packed(kernel.space), prod(a.size for a in kernel.space)
    sums: list[Reduce] = []
    stores: list[Store] = []
    totals: dict[Statement, Statement] = {}
    for n, reduce in enumerate(kernel.reduces):
        at = index(part) * size + space + n * size * parts.count
        sums.append(replace(reduce, axes=left, value=shift(reduce.value, moved)))
        stores.append(Store(parts.buffer, at, Acc(reduce.id, "f32"), "f32"))
        totals[reduce] = replace(reduce, axes=(part,), value=Load(parts.buffer, at, "f32"))
    first = Kernel(parts.buffer, (part, *kernel.space), (*sums, *stores), kernel.layers)
    body = tuple(totals.get(s, s) for s in kernel.body)
    return first, replace(kernel, body=body, parts=None), part


def fresh(name: str, kernel: Kernel) -> str:
    """Returns a name like `name` that no axis of the kernel has."""
    taken = {a.name for a in kernel.space} | {a.name for s in kernel.body for a in s.axes}
    while name in taken:
        name += "_"
    return name
