"""The flat axis K that a product sums over.

A picture has few channels, so a convolution of it reads number by number, and asks for each of them
whether it lies inside. There a run of K, of numbers that lie side by side (in a window of 7 x 7 x
3, a row of 21), takes up as many numbers as fit into whole blocks: where in its run a lane stands
is then the same in every step, and so is most of what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from compiler.kernels.index import Axis, Index, index, unravel
from compiler.kernels.kernel import Expr, Guard, Guards, Load, load_axes

_SIDE_BY_SIDE = 4  # numbers that a copy of 16 bytes takes, of which fewer do not pay
_SECTOR = 8  # numbers that memory hands out together


@dataclass(frozen=True, slots=True)
class Depth:
    """K's axes; the last of them, `run`, take up `padded` numbers.

    `along`: both factors are wanted along K, also one that lies across.
    """

    axes: tuple[Axis, ...]
    run: tuple[Axis, ...]
    padded: int
    along: bool

    @property
    def size(self) -> int:
        return size(self.axes) // size(self.run) * self.padded

    def at(self, flat: Index) -> dict[Axis, Index]:
        """Returns each axis at a number of K; the first of a run's is past its end in the rest."""
        outer, whole = self.axes[: len(self.axes) - len(self.run)], size(self.run)
        if self.padded == whole:
            return dict(zip(self.axes, unravel(flat, [x.size for x in self.axes]), strict=True))
        *before, within = unravel(flat, [*(x.size for x in outer), self.padded])
        first, *others = self.run
        each = size(others)
        inner = unravel(within % each, [x.size for x in others])
        found = zip((*outer, first, *others), (*before, within // each, *inner), strict=True)
        return dict(found)

    def crossed_by(self, factor: Expr) -> bool:
        """Whether a factor is wanted along K, and neighbours in memory are none of K's numbers.

        Or both are: a planar picture is read number by number anyway.
        """
        if not self.along or not isinstance(factor, Load) or factor.dtype != "f32":
            return False
        beside = {x for x in load_axes(factor) if factor.offset.coefficient(x) == 1}
        if beside & {*self.axes} and not scattered(factor):
            return False
        return any(x.size >= _SECTOR for x in beside - {*self.axes})

    @property
    def guards(self) -> Guards:
        """Returns what holds inside of a run."""
        first = self.run[0]
        return (Guard(index(first), 0, first.size),) if self.padded != size(self.run) else ()


def size(axes: Sequence[Axis]) -> int:
    return prod(a.size for a in axes)


def scattered(load: Load) -> bool:
    """Whether a factor is read number by number.

    So are planar pictures: a window that moves on by one may begin anywhere in a copy.
    """
    side = [x.size for x in load_axes(load) if abs(load.offset.coefficient(x)) == 1]
    return len(side) != 1 or bool(side[0] % _SIDE_BY_SIDE)


def run_of(axes: Sequence[Axis], load: Load) -> tuple[Axis, ...]:
    """Returns the last axes whose numbers lie side by side, or equally far apart."""
    run = [axes[-1]]
    for axis in reversed(axes[:-1]):
        if load.offset.coefficient(axis) != load.offset.coefficient(run[0]) * run[0].size:
            break
        run.insert(0, axis)
    return tuple(run)
