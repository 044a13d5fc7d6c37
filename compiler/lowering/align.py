"""Finds which axes of a reader's loop are which axes of its producer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from compiler.kernels.index import Axis, Div, Index, axes_of, index
from compiler.kernels.kernel import Guard, Guards, Kernel, Load, Store


@dataclass(frozen=True)
class Alignment:
    """How a reader's axes map to a producer's.

    `rename` gives each aligned axis of the reader as an index over the producer's `space` (after
    its axes in `split` were replaced); `extra` are the reader's axes that the element does not
    depend on: it is read once for each of them (a row). `part` says which points of the producer
    are read, where that is not all of them.
    """

    rename: dict[Axis, Index]
    extra: tuple[Axis, ...]
    split: dict[Axis, Index]
    space: tuple[Axis, ...]
    part: Guards = ()


@dataclass
class _Digit:
    """An axis, or a part of it, as one digit of the flat offset: step and size."""

    step: int
    size: int
    axis: Axis
    inner: int  # elements of the axis below this digit


def align(
    kernel: Kernel, store: Store, other: Kernel, load: Load, in_part: bool = False
) -> Alignment | str:
    """Returns how `load` in `other` walks over what `store` in `kernel` writes, or why it can't.

    `in_part`: it may leave points out, at the ends of one axis.
    """
    if load.guards or store.axes or store.guards:
        by_rows = "it is stored by rows" if store.axes else "it is stored in part"
        return "it is read beyond its edges" if load.guards else by_rows
    used = axes_of(load.offset)
    if not used <= set(other.space):
        return "it is read as a window or a row"
    mine = _digits(store.offset, kernel.space)
    theirs = _digits(load.offset, [a for a in other.space if a in used])
    ahead = load.offset.const - store.offset.const
    if mine is None or theirs is None or (ahead and not in_part):
        return "its elements lie in another order"
    if not ahead and (pairs := _paired(mine, theirs)) is not None:
        return _aligned(kernel, other, pairs, used)
    for digit in mine if in_part else ():
        size, rest = divmod(digit.size * _count(theirs), _count(mine))
        start, between = divmod(ahead, digit.step)
        if not rest and not between and 0 <= start <= digit.size - size:
            pairs = _paired([replace(d, size=size) if d is digit else d for d in mine], theirs)
            if pairs is not None and sum(m.axis == digit.axis for m, _ in pairs) == 1:
                part = Guard(index(digit.axis), start, start + size)
                return _aligned(kernel, other, pairs, used, (part,))
    return "it reads part of the elements, or in another order"


def _count(digits: Sequence[_Digit]) -> int:
    return prod(d.size for d in digits)


def _paired(mine: list[_Digit], theirs: list[_Digit]) -> list[tuple[_Digit, _Digit]] | None:
    """Returns the digits in pairs of the same step and size, None if some differ."""
    cuts = {d.step for d in (*mine, *theirs)}
    mine, theirs = _cut(mine, cuts), _cut(theirs, cuts)
    alike = [(d.step, d.size) for d in mine] == [(d.step, d.size) for d in theirs]
    return list(zip(mine, theirs, strict=True)) if alike else None


def blocks(space: Sequence[Axis], load: Load) -> tuple[dict[Axis, Index], tuple[Axis, ...]]:
    """Splits the axes that a load divides: into blocks, and places in a block of one element.

    Returns what these axes are then, and the new space.
    """
    split: dict[Axis, Index] = {}
    axes = list(space)
    for atom, _ in load.offset.terms:
        axis = next((a for a in space if isinstance(atom, Div) and atom.of == index(a)), None)
        if axis is not None and isinstance(atom, Div) and axis.size % atom.by == 0:
            block = Axis(f"{axis.name}_0", axis.size // atom.by)
            place = Axis(f"{axis.name}_1", atom.by)
            split[axis] = index(block) * atom.by + index(place)
            at = axes.index(axis)
            axes[at : at + 1] = [block, place]
    return split, tuple(axes)


def _aligned(
    kernel: Kernel,
    other: Kernel,
    pairs: list[tuple[_Digit, _Digit]],
    used: set[Axis],
    part: Guards = (),
) -> Alignment:
    parts = {a: [m for m, _ in pairs if m.axis == a] for a in kernel.space}
    new: dict[int, Axis] = {}
    split: dict[Axis, Index] = {}
    space: list[Axis] = []
    for axis in kernel.space:
        if len(parts[axis]) <= 1:
            space.append(axis)
            new.update({id(d): axis for d in parts[axis]})
            continue
        total = Index(0)
        for n, digit in enumerate(parts[axis]):
            new[id(digit)] = Axis(f"{axis.name}_{n}", digit.size)
            space.append(new[id(digit)])
            total = total + index(new[id(digit)]) * digit.inner
        split[axis] = total
    rename = {a: Index(0) for a in other.space if a in used}
    for m, t in pairs:
        first = sum(guard.low for guard in part if guard.index == index(m.axis))
        rename[t.axis] = rename[t.axis] + (index(new[id(m)]) - first) * t.inner
    extra = tuple(a for a in other.space if a not in used)
    return Alignment(rename, extra, split, tuple(space), part)


def _digits(offset: Index, axes: Sequence[Axis]) -> list[_Digit] | None:
    """The offset as digits, the greatest step first; None if it is not plainly affine."""
    if {a for a, _ in offset.terms} != set(axes) or any(c <= 0 for _, c in offset.terms):
        return None
    digits = [_Digit(offset.coefficient(a), a.size, a, 1) for a in axes]
    return sorted(digits, key=lambda d: -d.step)


def _cut(digits: list[_Digit], cuts: set[int]) -> list[_Digit]:
    """Splits digits at the steps where the other side has a digit of its own."""
    done: list[_Digit] = []
    for digit in digits:
        inside = sorted(c for c in cuts if digit.step < c < digit.step * digit.size)
        pieces, step, left, inner = [], digit.step, digit.size, 1
        for cut in inside:
            size = cut // step
            if cut % step or left % size:
                break
            pieces.append(_Digit(step, size, digit.axis, inner))
            step, left, inner = cut, left // size, inner * size
        pieces.append(_Digit(step, left, digit.axis, inner))
        done.extend(reversed(pieces))
    return done
