"""Integer index expressions: affine in loop axes, with floor-division and remainder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop axis, running from 0 to size - 1. Names are unique within a kernel."""

    name: str
    size: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Div:
    """floor(of / by)."""

    of: Index
    by: int

    def __str__(self) -> str:
        return f"({self.of})//{self.by}"


@dataclass(frozen=True, slots=True)
class Mod:
    """of - by * floor(of / by), never negative."""

    of: Index
    by: int

    def __str__(self) -> str:
        return f"({self.of})%{self.by}"


Atom = Axis | Div | Mod


@dataclass(frozen=True, slots=True)
class Index:
    """constant + sum of coefficient * atom; terms are sorted, so equal sums are equal objects."""

    const: int
    terms: tuple[tuple[Atom, int], ...] = ()

    def __add__(self, other: Index | int) -> Index:
        other = index(other)
        if not (self.terms and other.terms):
            return Index(self.const + other.const, self.terms or other.terms)
        return _sum(self.const + other.const, (*self.terms, *other.terms))

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index(0)
        if factor == 1:
            return self
        return Index(self.const * factor, tuple((a, c * factor) for a, c in self.terms))

    def __sub__(self, other: Index | int) -> Index:
        return self + index(other) * -1

    def __floordiv__(self, by: int) -> Index:
        return _divmod(self, by)[0]

    def __mod__(self, by: int) -> Index:
        return _divmod(self, by)[1]

    def __str__(self) -> str:
        parts = [str(a) if c == 1 else f"{c}*{a}" for a, c in self.terms]
        if self.const or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace("+ -", "- ")

    def coefficient(self, axis: Axis) -> int:
        """Returns the factor of `axis` among the plain terms (0 if it has none)."""
        return next((c for a, c in self.terms if a == axis), 0)


def index(value: Index | Axis | int) -> Index:
    """Returns an axis or a number as an index."""
    if isinstance(value, Index):
        return value
    # An axis of one element is always 0: it never appears in an index.
    if isinstance(value, Axis):
        return Index(0, ((value, 1),)) if value.size > 1 else Index(0)
    return Index(value)


def _sum(const: int, terms: Iterable[tuple[Atom, int]]) -> Index:
    total: dict[Atom, int] = {}
    for atom, factor in terms:
        total[atom] = total.get(atom, 0) + factor
    kept = {a: c for a, c in total.items() if c}
    # x%n + n*(x//n) = x: what a reshape splits and a later one joins again.
    for atom in list(kept):
        if isinstance(atom, Mod):
            factor, whole = kept[atom], _only_atom(atom.of // atom.by)
            if whole is not None and kept.get(whole) == factor * atom.by:
                del kept[atom], kept[whole]
                return _sum(const, kept.items()) + atom.of * factor
    return Index(const, tuple(sorted(kept.items(), key=_order)))


def _only_atom(i: Index) -> Atom | None:
    return i.terms[0][0] if i.const == 0 and len(i.terms) == 1 and i.terms[0][1] == 1 else None


def _order(term: tuple[Atom, int]) -> tuple[int, str]:
    return (-abs(term[1]), str(term[0]))


@lru_cache(maxsize=65536)
def bounds(i: Index) -> tuple[int, int]:
    """Returns the least and the greatest value that the index can take."""
    low = high = i.const
    for atom, factor in i.terms:
        a, b = _atom_bounds(atom)
        low += min(a * factor, b * factor)
        high += max(a * factor, b * factor)
    return low, high


def _atom_bounds(atom: Atom) -> tuple[int, int]:
    if isinstance(atom, Axis):
        return 0, atom.size - 1
    low, high = bounds(atom.of)
    if isinstance(atom, Div):
        return low // atom.by, high // atom.by
    return (
        (low % atom.by, high % atom.by) if low // atom.by == high // atom.by else (0, atom.by - 1)
    )


def _divmod(i: Index, by: int) -> tuple[Index, Index]:
    """Splits i into quotient and remainder, pulling out what divides evenly."""
    if by == 1:
        return i, Index(0)
    even = tuple((a, c // by) for a, c in i.terms if c % by == 0)
    rest = Index(i.const % by, tuple((a, c) for a, c in i.terms if c % by))
    quotient = Index(i.const // by, even)
    low, high = bounds(rest)
    if low // by == high // by:
        shift = low // by
        return quotient + shift, rest - shift * by
    # (4*x + y) // 8 = x // 2 where 0 <= y < 4: a common factor of all other terms cancels.
    reduced = _reduce_by_factor(rest, by)
    if reduced is not None:
        factor, coarse, fine = reduced
        q, r = _divmod(coarse, by // factor)
        return quotient + q, r * factor + fine
    remainder = Index(0, ((Mod(rest, by), 1),))
    inner = _only_atom(rest)
    if isinstance(inner, Div):  # (x // a) // b = x // (a * b)
        return quotient + (inner.of // (inner.by * by)), remainder
    return quotient + Index(0, ((Div(rest, by), 1),)), remainder


def _reduce_by_factor(rest: Index, by: int) -> tuple[int, Index, Index] | None:
    factors = sorted({abs(c) for _, c in rest.terms if 1 < abs(c) < by and by % abs(c) == 0})
    for factor in reversed(factors):
        coarse = Index(
            rest.const // factor, tuple((a, c // factor) for a, c in rest.terms if c % factor == 0)
        )
        fine = Index(rest.const % factor, tuple((a, c) for a, c in rest.terms if c % factor))
        low, high = bounds(fine)
        if low >= 0 and high < factor and coarse.terms:
            return factor, coarse, fine
    return None


def substitute(i: Index, values: Mapping[Axis, Index]) -> Index:
    """Returns the index with axes replaced by other indices."""
    if not i.terms:
        return i
    return _combined(i.const, ((_substitute_atom(a, values), c) for a, c in i.terms))


def _combined(const: int, parts: Iterable[tuple[Index, int]]) -> Index:
    """Returns constant + sum of index * factor."""
    terms: list[tuple[Atom, int]] = []
    for part, factor in parts:
        const += part.const * factor
        terms += ((atom, c * factor) for atom, c in part.terms)
    return _sum(const, terms)


def _substitute_atom(atom: Atom, values: Mapping[Axis, Index]) -> Index:
    if isinstance(atom, Axis):
        return values.get(atom, index(atom))
    of = substitute(atom.of, values)
    return of // atom.by if isinstance(atom, Div) else of % atom.by


def axes_of(i: Index) -> set[Axis]:
    """Returns the axes that an index depends on."""
    found: set[Axis] = set()
    for atom, _ in i.terms:
        found |= {atom} if isinstance(atom, Axis) else axes_of(atom.of)
    return found


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the strides, in elements, of a row-major array."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def linear(position: Sequence[Index], strides: Sequence[int]) -> Index:
    """Returns the offset of a multi-dimensional position."""
    return _combined(0, zip(position, strides, strict=True))


def unravel(offset: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """Returns the row-major position of an offset within a shape."""
    position = []
    for size in reversed(shape):
        size = size or 1  # of an axis without elements nobody asks for a position
        position.append(offset % size)
        offset = offset // size
    return tuple(reversed(position))


def reshape_index(
    position: Sequence[Index], old: Sequence[int], new: Sequence[int]
) -> tuple[Index, ...]:
    """Returns where the element at `position` of shape `old` stands in shape `new`.

    Axes that a reshape leaves alone keep their index as it is: also one beyond the edge, which a
    guard keeps from being read.
    """
    found: list[Index] = []
    i = j = 0
    while i < len(old) and j < len(new):
        first, start = i, j
        left, right = old[i], new[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        if i - first == j - start == 1:
            found.append(position[first])
        else:
            offset = linear(position[first:i], row_major(old[first:i]))
            found += unravel(offset, new[start:j])
    return (*found, *[Index(0)] * (len(new) - j))  # axes of one element may be left
