"""Finds which axes of a reader's loop are which axes of its producer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.index import Axis, Div, Index, axes_of, index
from compiler.kernel import Kernel, Load, Store


@dataclass(frozen=True)
class Alignment:
    """How a reader's axes map to a producer's.

    `rename` gives each aligned axis of the reader as an index over the producer's `space` (after
    its axes in `split` were replaced); `extra` are the reader's axes that the element does not
    depend on: it is read once for each of them (a row).
    """

    rename: dict[Axis, Index]
    extra: tuple[Axis, ...]
    split: dict[Axis, Index]
    space: tuple[Axis, ...]


@dataclass
class _Digit:
    """An axis, or a part of it, as one digit of the flat offset: step and size."""

    step: int
    size: int
    axis: Axis
    inner: int  # elements of the axis below this digit


def align(kernel: Kernel, store: Store, other: Kernel, load: Load) -> Alignment | str:
    """Returns how `load` in `other` walks over what `store` in `kernel` writes, or why it can't."""
    if load.guards or store.axes:
        return "it is read beyond its edges" if load.guards else "it is stored by rows"
    used = axes_of(load.offset)
    if not used <= set(other.space):
        return "it is read as a window or a row"
    mine = _digits(store.offset, kernel.space)
    theirs = _digits(load.offset, [a for a in other.space if a in used])
    if mine is None or theirs is None or store.offset.const != load.offset.const:
        return "its elements lie in another order"
    cuts = {d.step for d in (*mine, *theirs)}
    mine, theirs = _cut(mine, cuts), _cut(theirs, cuts)
    if [(d.step, d.size) for d in mine] != [(d.step, d.size) for d in theirs]:
        return "it reads part of the elements, or in another order"
    return _aligned(kernel, other, mine, theirs, used)


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
    kernel: Kernel, other: Kernel, mine: list[_Digit], theirs: list[_Digit], used: set[Axis]
) -> Alignment:
    parts = {a: [d for d in mine if d.axis == a] for a in kernel.space}
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
    for m, t in zip(mine, theirs, strict=True):
        rename[t.axis] = rename[t.axis] + index(new[id(m)]) * t.inner
    extra = tuple(a for a in other.space if a not in used)
    return Alignment(rename, extra, split, tuple(space))


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
