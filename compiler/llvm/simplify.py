"""Drops axes of one element and merges axes that every index walks as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compiler.kernels.index import Axis, Index, index, substitute
from compiler.kernels.kernel import (
    Entry,
    Guarded,
    Kernel,
    Load,
    Position,
    Random,
    Reduce,
    Statement,
    Store,
    shift,
    values,
    walk,
)


def indices(kernel: Kernel) -> Iterator[Index]:
    """Yields every index of a kernel, those inside of others too."""
    stack: list[Index] = []
    for statement in kernel.body:
        if isinstance(statement, Store):
            stack.append(statement.offset)
        for value in values(statement):
            for e in walk(value):
                if isinstance(e, Load):
                    stack += [e.offset, *(g.index for g in e.guards)]
                elif isinstance(e, Guarded):
                    stack += [g.index for g in e.guards]
                elif isinstance(e, Position):
                    stack.append(e.index)
                elif isinstance(e, Random):
                    stack.append(e.element)
                elif isinstance(e, Entry):
                    stack += [e.row, e.column]
    while stack:
        i = stack.pop()
        yield i
        stack += [atom.of for atom, _ in i.terms if not isinstance(atom, Axis)]


def collapse(kernel: Kernel) -> Kernel:
    """Returns an equal kernel with as few axes as possible."""
    kernel = _without_units(kernel)
    while True:
        found = list(dict.fromkeys(indices(kernel)))
        pair = next((p for p in _pairs(kernel) if _walked_as_one(found, *p)), None)
        if pair is None:
            return kernel
        outer, inner = pair
        merged = Axis(f"{outer.name}_{inner.name}", outer.size * inner.size)
        kernel = _replace(kernel, {outer: Index(0), inner: index(merged)}, {inner: merged})


def _lists(kernel: Kernel) -> list[tuple[Axis, ...]]:
    return [kernel.space, *(s.axes for s in kernel.body)]


def _pairs(kernel: Kernel) -> Iterator[tuple[Axis, Axis]]:
    """Yields neighbouring axes that are neighbours wherever one of them appears."""
    lists = _lists(kernel)
    for axes in lists:
        for pair in zip(axes, axes[1:], strict=False):
            used = [other for other in lists if pair[0] in other or pair[1] in other]
            if all(pair in zip(other, other[1:], strict=False) for other in used):
                yield pair


def _walked_as_one(found: list[Index], outer: Axis, inner: Axis) -> bool:
    return all(i.coefficient(outer) == i.coefficient(inner) * inner.size for i in found)


def _without_units(kernel: Kernel) -> Kernel:
    units = {a for axes in _lists(kernel) for a in axes if a.size == 1}
    return _replace(kernel, {a: Index(0) for a in units}, {}) if units else kernel


def _replace(kernel: Kernel, at: dict[Axis, Index], renamed: dict[Axis, Axis]) -> Kernel:
    def axes(old: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(renamed.get(a, a) for a in old if a not in at or a in renamed)

    body: list[Statement] = []
    for s in kernel.body:
        if isinstance(s, Reduce):
            payload = None if s.payload is None else shift(s.payload, at)
            body.append(replace(s, axes=axes(s.axes), value=shift(s.value, at), payload=payload))
        else:
            value = shift(s.value, at)
            offset = substitute(s.offset, at)
            body.append(replace(s, axes=axes(s.axes), offset=offset, value=value))
    return replace(kernel, space=axes(kernel.space), body=tuple(body))
