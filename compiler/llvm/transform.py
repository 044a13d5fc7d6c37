"""Winograd's transforms: a tile is loaded, multiplied by a matrix from both sides, and stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import combinations

from compiler.kernels.index import Axis, Index, Mod, index, substitute
from compiler.kernels.kernel import Entry, Kernel, Store, sandwich, shift
from compiler.llvm.builder import Builder, Val, as_val, const, constants
from compiler.llvm.host import Host
from compiler.llvm.piece import Piece, finish, pointers_of
from compiler.llvm.scope import Scope

Row = Sequence[float]


def emit_transform(kernel: Kernel, host: Host) -> Piece:
    """Emits a kernel of kind `transform`: vectors of neighbouring tiles, one after the other."""
    b = Builder(host.lanes, host.fma)
    pointers = pointers_of(kernel)
    tile = _Tile(b, kernel)
    vec = next((a for a in tile.space if kernel.stores[0].offset.coefficient(a) == 1), None)
    outer = [a for a in tile.space if a is not vec]
    full, tail = divmod(vec.size if vec else 1, host.lanes if vec else 1)
    sizes = [*(a.size for a in outer), full + bool(tail)]
    with b.loop(Val("%lo", "i64"), Val("%hi", "i64")) as t:
        *at, n = b.unravel(t, sizes)
        scope = Scope(b, pointers, dict(zip(outer, at, strict=True)))
        if vec is None:
            tile.emit(scope)
        else:
            start = b.imul(n, host.lanes)
            whole = b.cmp("icmp slt", as_val(n), const(full, "i64"))
            if full:
                with b.when(whole) if tail else nullcontext():
                    tile.emit(scope.along(vec, start, host.lanes))
            if tail:
                mask = constants([i < tail for i in range(host.lanes)], "i1")
                with b.when(b.negate(whole)) if full else nullcontext():
                    tile.emit(scope.along(vec, start, host.lanes, mask))
    return finish(b, pointers, math.prod(sizes))


@dataclass(frozen=True)
class _Side:
    """The rows of a matrix along an axis of the results, again for each `tile` of the axis."""

    matrix: Sequence[Row]
    axis: Axis | None
    tile: Axis | None

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that there are results for: all, unless the axis is shorter than a tile."""
        size = self.axis.size if self.axis else 1
        return self.matrix if self.tile else self.matrix[:size]

    def at(self, row: int) -> dict[Axis, Index]:
        """Returns where the axis stands in a row of a tile."""
        start = index(self.tile) * len(self.matrix) if self.tile else index(0)
        return {self.axis: start + row} if self.axis else {}

    def test(self, b: Builder, scope: Scope, row: int) -> Val | None:
        """Returns whether the axis has this row in the tile, None where it always has."""
        if self.axis is None or self.tile is None:
            return None
        if row <= (self.axis.size - 1) % len(self.matrix):  # the last tile has it too
            return None
        return b.cmp("icmp slt", as_val(scope.axes[self.tile]), const(self.tile.size - 1, "i64"))


def _side(entry: Entry) -> _Side:
    """Finds the axis of which the row is made: it is the row itself, or cut into tiles of rows."""
    if not entry.row.terms:
        return _Side(entry.matrix, None, None)
    ((atom, _),) = entry.row.terms
    if isinstance(atom, Axis):
        return _Side(entry.matrix, atom, None)
    assert isinstance(atom, Mod) and atom.by == len(entry.matrix), entry.row
    ((axis, _),) = atom.of.terms
    assert isinstance(axis, Axis), entry.row
    return _Side(entry.matrix, axis, Axis(f"{axis.name}.tile", -(-axis.size // atom.by)))


class _Tile:
    """Emits one tile of a kernel, or a vector of them."""

    def __init__(self, b: Builder, kernel: Kernel) -> None:
        self.b = b
        (self.reduce,) = kernel.reduces
        found = sandwich(self.reduce)
        assert found is not None, kernel
        self.left, self.right = _side(found[0]), _side(found[1])
        # What is summed lies at the tile, not at the results in it.
        self.value = shift(found[2], {**self.left.at(0), **self.right.at(0)})
        tiles = {side.axis: side.tile for side in (self.left, self.right)}
        self.space = [t for a in kernel.space if (t := tiles.get(a, a)) is not None]
        self.stores = kernel.stores

    def emit(self, scope: Scope) -> None:
        b = self.b
        down, across = (len(side.matrix[0]) for side in (self.left, self.right))
        columns = [
            multiplied(b, self.left.rows, [self._element(scope, i, j) for i in range(down)])
            for j in range(across)
        ]
        for p, row in enumerate(zip(*columns, strict=True)):
            for q, value in enumerate(multiplied(b, self.right.rows, row)):
                self._store(scope, p, q, value)

    def _element(self, scope: Scope, i: int, j: int) -> Val:
        first, second = self.reduce.axes
        return scope.child({first: i, second: j}).value(self.value)

    def _store(self, scope: Scope, p: int, q: int, value: Val) -> None:
        b, sides = self.b, ((self.left, p), (self.right, q))
        tests = [t for side, row in sides if (t := side.test(b, scope, row)) is not None]
        at = {**self.left.at(p), **self.right.at(q)}
        test = reduce(partial(b.bin, "and"), tests) if tests else None
        with b.when(test) if test is not None else nullcontext():
            inner = scope.child({})
            inner.accs[self.reduce.id] = value
            inner.store_all([_moved(s, at) for s in self.stores])


def _moved(s: Store, at: dict[Axis, Index]) -> Store:
    return replace(s, offset=substitute(s.offset, at), value=shift(s.value, at))


def multiplied(b: Builder, matrix: Sequence[Row], values: Sequence[Val]) -> list[Val]:
    """Returns matrix * values. What two rows or columns have in common but for signs is shared."""
    matrix, values = _columns_shared(b, matrix, values)
    found: dict[int, Val] = {}
    for r, row in enumerate(matrix):
        if r in found:
            continue
        twin = next((s for s in range(r + 1, len(matrix)) if _alike(row, matrix[s])), None)
        if twin is None:
            found[r] = _dot(b, row, values)
            continue
        even = _dot(b, [(x + y) / 2 for x, y in zip(row, matrix[twin], strict=True)], values)
        odd = _dot(b, [(x - y) / 2 for x, y in zip(row, matrix[twin], strict=True)], values)
        found[r], found[twin] = b.bin("fadd", even, odd), b.bin("fsub", even, odd)
    return [found[r] for r in range(len(matrix))]


def _columns_shared(
    b: Builder, matrix: Sequence[Row], values: Sequence[Val]
) -> tuple[Sequence[Row], Sequence[Val]]:
    """Replaces values whose columns are equal but for signs by their sums and differences."""
    columns, made = [list(c) for c in zip(*matrix, strict=True)], list(values)
    for j, k in combinations(range(len(columns)), 2):
        one, other = columns[j], columns[k]
        if _alike(one, other):
            made[j], made[k] = b.bin("fadd", made[j], made[k]), b.bin("fsub", made[j], made[k])
            columns[j] = [(x + y) / 2 for x, y in zip(one, other, strict=True)]
            columns[k] = [(x - y) / 2 for x, y in zip(one, other, strict=True)]
    return list(zip(*columns, strict=True)), made


def _alike(one: Row, other: Row) -> bool:
    """Says whether rows are equal but for signs, in some places equal and in some opposite."""
    pairs = [(x, y) for x, y in zip(one, other, strict=True) if x or y]
    same = sum(x == y for x, y in pairs)
    return all(abs(x) == abs(y) for x, y in pairs) and 0 < same < len(pairs) and len(pairs) > 2


def _dot(b: Builder, row: Row, values: Sequence[Val]) -> Val:
    # One that needs no product comes first.
    terms = sorted(((x, v) for x, v in zip(row, values, strict=True) if x), key=lambda t: t[0] != 1)
    total: Val | None = None
    for x, value in terms:
        factor = b.fconst(x, value)
        if total is None:
            total = value if x == 1 else b.bin("fmul", factor, value)
        elif abs(x) == 1:
            total = b.bin("fadd" if x == 1 else "fsub", total, value)
        else:
            total = b.muladd(factor, value, total)
    return total if total is not None else b.fconst(0.0, values[0])
