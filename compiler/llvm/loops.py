"""Loop nests for map, reduce and row kernels, vectorised along the axis that costs least."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from compiler.kernels.index import Axis
from compiler.kernels.kernel import (
    Acc,
    Expr,
    Kernel,
    Load,
    Op,
    Reduce,
    Statement,
    Store,
    load_axes,
    values,
    walk,
)
from compiler.llvm.builder import Builder, Int, Val, constants
from compiler.llvm.fold import Fold, folds_for, only_step
from compiler.llvm.host import Host
from compiler.llvm.piece import Piece, finish, pointers_of
from compiler.llvm.scope import Scope

UNROLL = 9  # windows of up to 3 x 3 points are written out
PARTIAL = 1024  # longest run of additions to one accumulator
_TILE = 4096  # a tile's work, in rough cycles
_ABREAST = 6  # most vectors that long sums take side by side
_REGISTERS = 16  # for the accumulators of these
_TILES = 8  # but some tiles are left to hand out


def emit_loops(kernel: Kernel, host: Host) -> Piece:
    """Emits any kernel as plain loops over tiles of its space."""
    b = Builder(host.lanes, host.fma)
    pointers = pointers_of(kernel)
    vec = _vector_axis(kernel, host.lanes)
    writer = _Writer(b, host.lanes, kernel)
    outer = tuple(a for a in kernel.space if a is not vec)
    if vec is None:
        with b.loop(Val("%lo", "i64"), Val("%hi", "i64")) as t:
            at = dict(zip(outer, b.unravel(t, [a.size for a in outer]), strict=True))
            writer.body([Scope(b, pointers, at)])
        return finish(b, pointers, math.prod(a.size for a in outer))
    work = _work(kernel, vec, host.lanes)
    full, tail = divmod(vec.size, host.lanes)
    abreast = _abreast(kernel, full, math.prod(a.size for a in outer))
    run = max(1, min(full + bool(tail), int(_TILE / work)) // abreast) * abreast  # of one tile
    chunks = max(1, -(-full // run))
    sizes = [a.size for a in outer] + [chunks]
    with b.loop(Val("%lo", "i64"), Val("%hi", "i64")) as t:
        *coords, chunk = b.unravel(t, sizes)
        base = Scope(b, pointers, dict(zip(outer, coords, strict=True)))
        first = b.imul(chunk, run)
        last = b.imin(b.iadd(first, run), full)
        if full:
            step = abreast * host.lanes
            with b.loop(b.imul(first, host.lanes), b.imul(last, host.lanes), step) as i:
                starts = [b.iadd(i, n * host.lanes) for n in range(abreast)]
                writer.body([base.along(vec, start, host.lanes) for start in starts])
        if tail:
            mask = constants([n < tail for n in range(host.lanes)], "i1")
            ends = b.cmp("icmp eq", _i64(last), _i64(full))
            with b.when(ends):
                writer.body([base.along(vec, full * host.lanes, host.lanes, mask)])
    return finish(b, pointers, math.prod(sizes))


def _i64(value: Int) -> Val:
    return value if isinstance(value, Val) else Val(str(value), "i64")


# A scope, and the accumulators of its point.
_Folding = tuple[Scope, list[Fold]]


class _Writer:
    """Emits the statements of one kernel at a point, at a vector of points, or at several vectors.

    Several go through long sums abreast: memory is read in longer pieces.
    """

    def __init__(self, b: Builder, lanes: int, kernel: Kernel) -> None:
        self.b, self.lanes, self.kernel = b, lanes, kernel

    def body(self, scopes: Sequence[Scope]) -> None:
        """Emits the statements in order; Reduces that run together share their loops."""
        body = list(self.kernel.body)
        while body:
            s = body[0]
            if isinstance(s, Reduce):
                group = _together(body)
                self._reduce(scopes, group)
                del body[: len(group)]
            elif s.axes:
                self._store(scopes, s)
                del body[0]
            else:
                here = _leading_stores(body)
                for scope in scopes:
                    scope.store_all(here)
                del body[: len(here)]

    # ---- stores over axes of their own -------------------------------------------------------

    def _store(self, scopes: Sequence[Scope], s: Store) -> None:
        vec = None if scopes[0].vec else _best_axis(s.axes, (s,), self.lanes)
        self._store_nest(scopes, [a for a in s.axes if a is not vec], vec, s)

    def _store_nest(
        self, scopes: Sequence[Scope], axes: Sequence[Axis], vec: Axis | None, s: Store
    ) -> None:
        if axes:
            with self.b.loop(0, axes[0].size) as i:
                inner = [scope.child({axes[0]: i}) for scope in scopes]
                self._store_nest(inner, axes[1:], vec, s)
        elif vec is None:
            for scope in scopes:
                scope.store_all([s])
        else:
            (scope,) = scopes
            for start, stop, mask in self._parts(vec):
                with self.b.loop(start, stop, self.lanes) as i:
                    scope.along(vec, i, self.lanes, mask).store_all([s])

    def _parts(self, vec: Axis) -> list[tuple[int, int, Val | None]]:
        """Whole vectors, then the rest under a mask."""
        whole = vec.size // self.lanes * self.lanes
        parts: list[tuple[int, int, Val | None]] = [(0, whole, None)] if whole else []
        if whole < vec.size:
            mask = constants([n < vec.size - whole for n in range(self.lanes)], "i1")
            parts.append((whole, vec.size, mask))
        return parts

    # ---- reductions --------------------------------------------------------------------------

    def _reduce(self, scopes: Sequence[Scope], group: list[Reduce]) -> None:
        axes = group[0].axes
        vec = None
        if scopes[0].vec is None and all(r.op != "argmax" for r in group):
            vec = _best_axis(axes, group, self.lanes)
        lanes = self.lanes if vec else scopes[0].lanes
        points = [(scope, folds_for(self.b, group, lanes)) for scope in scopes]
        for scope, folds in points:
            first = scope.child({a: 0 for a in axes})
            for fold in folds:
                fold.clear(first)
        self._fold_nest(points, [a for a in axes if a is not vec], vec)
        for scope, folds in points:
            for fold in folds:
                scope.accs[fold.reduce.id] = fold.total() if vec else fold.result()

    def _fold_nest(self, points: list[_Folding], axes: list[Axis], vec: Axis | None) -> None:
        if vec is None and math.prod(a.size for a in axes) <= UNROLL:
            for point in itertools.product(*(range(a.size) for a in axes)):
                _fold_all(_at(points, dict(zip(axes, point, strict=True))))
        elif axes:
            rest = math.prod(a.size for a in axes[1:]) * (vec.size // self.lanes if vec else 1)
            self._outer_loop(points, axes, vec, split=rest >= 32)
        else:
            assert vec is not None
            for start, stop, mask in self._parts(vec):
                self._vector_loop(points, vec, start, stop, mask)

    def _outer_loop(
        self, points: list[_Folding], axes: list[Axis], vec: Axis | None, split: bool
    ) -> None:
        axis, b = axes[0], self.b
        wanted = _wanted(points, axis)
        if wanted is not None:
            start = b.convert("sext", wanted, "i64")
            stop = b.imin(b.iadd(start, 1), axis.size)
            with b.loop(b.imax(start, 0), stop) as i:
                self._fold_nest(_at(points, {axis: i}), axes[1:], vec)
            return
        split = split and _summing(points)
        if not split and axis.size > PARTIAL and _summing(points):
            with b.loop(0, axis.size, PARTIAL) as start:
                partial = _others(points)
                with b.loop(start, b.imin(b.iadd(start, PARTIAL), axis.size)) as i:
                    self._fold_nest(_at(partial, {axis: i}), axes[1:], vec)
                _merge(points, partial)
            return
        with b.loop(0, axis.size) as i:
            partial = _others(points) if split else points
            self._fold_nest(_at(partial, {axis: i}), axes[1:], vec)
            if split:
                _merge(points, partial)

    def _vector_loop(
        self, points: list[_Folding], vec: Axis, start: int, stop: int, mask: Val | None
    ) -> None:
        b, step = self.b, self.lanes

        def fold(i: Val, points: list[_Folding]) -> None:
            _fold_all([(scope.along(vec, i, step, mask), folds) for scope, folds in points])

        if stop - start > PARTIAL * step and _summing(points):
            with b.loop(start, stop, PARTIAL * step) as block:
                partial = _others(points)
                end = b.imin(b.iadd(block, PARTIAL * step), stop)
                with b.loop(block, end, step) as i:
                    fold(i, partial)
                _merge(points, partial)
            return
        with b.loop(start, stop, step) as i:
            fold(i, points)


def _at(points: Sequence[_Folding], axes: dict[Axis, Int]) -> list[_Folding]:
    return [(scope.child(axes), folds) for scope, folds in points]


def _fold_all(points: Sequence[_Folding]) -> None:
    for scope, folds in points:
        for fold in folds:
            fold.add(scope)


def _others(points: Sequence[_Folding]) -> list[_Folding]:
    """Returns the points with empty accumulators."""
    return [(scope, [fold.another() for fold in folds]) for scope, folds in points]


def _merge(points: Sequence[_Folding], partial: Sequence[_Folding]) -> None:
    for (_, folds), (_, parts) in zip(points, partial, strict=True):
        for fold, part in zip(folds, parts, strict=True):
            fold.merge(part)


def _wanted(points: Sequence[_Folding], axis: Axis) -> Val | None:
    """Returns the only step along an axis that adds anything, if all lanes have the same one."""
    scope, folds = points[0]
    steps = [only_step(fold.reduce, axis) for fold in folds]
    if steps[0] is None or any(step != steps[0] for step in steps):
        return None
    value = scope.value(steps[0])
    return value if value.lanes == 1 else None


def _summing(points: Sequence[_Folding]) -> bool:
    return all(f.reduce.op != "argmax" for _, folds in points for f in folds)


def _together(body: Sequence[Statement]) -> list[Reduce]:
    """Returns the leading Reduces over the same axes that do not use each other's results."""
    group: list[Reduce] = []
    for s in body:
        if not isinstance(s, Reduce) or (group and s.axes != group[0].axes):
            break
        used = {e.id for v in values(s) for e in walk(v) if isinstance(e, Acc)}
        if used & {r.id for r in group}:
            break
        group.append(s)
    return group


def _leading_stores(body: Sequence[Statement]) -> list[Store]:
    stores = itertools.takewhile(lambda s: isinstance(s, Store) and not s.axes, body)
    return [s for s in stores if isinstance(s, Store)]


def _abreast(kernel: Kernel, vectors: int, outer: int) -> int:
    """Returns how many vectors of points go through the kernel's long sums side by side."""
    if all(math.prod(a.size for a in r.axes) <= UNROLL for r in kernel.reduces):
        return 1
    most = min(_ABREAST, _REGISTERS // len(kernel.reduces), outer * vectors // _TILES)
    return max((n for n in range(2, most + 1) if vectors % n == 0), default=1)


# ---- which axis becomes the vector -----------------------------------------------------------


def _vector_axis(kernel: Kernel, lanes: int) -> Axis | None:
    """Returns the axis of the space to vectorise along; None: each statement by its own axes."""
    best, axis = _inner_cost(kernel, lanes), None
    for candidate in reversed(kernel.space):
        vectors = math.prod(a.size for a in kernel.space if a is not candidate) * -(
            -candidate.size // lanes
        )
        cost = vectors * _work(kernel, candidate, lanes)
        if cost < best:
            best, axis = cost, candidate
    return axis


def _inner_cost(kernel: Kernel, lanes: int) -> float:
    points = math.prod(a.size for a in kernel.space)
    total = 0.0
    for s in kernel.body:
        vec = _best_axis(s.axes, (s,), lanes)
        if isinstance(s, Reduce) and s.op == "argmax":
            vec = None
        rest = _steps(s, vec)
        runs = -(-vec.size // lanes) if vec else 1
        total += rest * runs * _cost(s, vec, lanes) + (12 if vec and isinstance(s, Reduce) else 0)
    return points * (total + 4)


def _work(kernel: Kernel, vec: Axis, lanes: int) -> float:
    """Rough cycles of one vector of points."""
    return 2 + sum(_steps(s, vec) * _cost(s, vec, lanes) for s in kernel.body)


def _steps(s: Statement, vec: Axis | None) -> int:
    """Returns the steps over a statement's own axes but for `vec`, as far as they are gone."""
    return math.prod(a.size for a in s.axes if a is not vec and not _picked(s, a, vec))


def _picked(s: Statement, axis: Axis, vec: Axis | None) -> bool:
    wanted = only_step(s, axis) if isinstance(s, Reduce) else None
    return wanted is not None and not any(
        vec in load_axes(e) for e in walk(wanted) if isinstance(e, Load)
    )


def _best_axis(axes: Sequence[Axis], statements: Sequence[Statement], lanes: int) -> Axis | None:
    """Returns the axis of a statement to vectorise along, None if it has none worth it."""

    def cost(axis: Axis) -> float:
        return sum(_cost(s, axis, lanes) for s in statements) * -(-axis.size // lanes) / axis.size

    found = min(reversed(axes), key=cost, default=None)
    plain = sum(_cost(s, None, lanes) for s in statements)
    return found if found is not None and found.size > 1 and cost(found) < plain else None


def _cost(s: Statement, vec: Axis | None, lanes: int) -> float:
    total = 1.0
    if isinstance(s, Store):
        total += _access(Load(s.buffer, s.offset, s.dtype), vec, lanes)
    for e in itertools.chain.from_iterable(walk(v) for v in values(s)):
        total += _access(e, vec, lanes) if isinstance(e, Load) else _price(e)
    return total


def _price(e: Expr) -> float:
    if isinstance(e, Op):
        return 20.0 if e.name in ("exp", "log", "tanh", "sigmoid", "erf", "pow") else 1.0
    return 0.5


def _access(load: Load, vec: Axis | None, lanes: int) -> float:
    probe = Scope(Builder(lanes), {}, {}, vec, lanes)
    stride = probe.stride(load.offset)
    guards = sum(1.0 if probe.stride(g.index) != 0 else 0.3 for g in load.guards)
    if stride == 0:
        return 0.5 + guards
    return (1.0 if stride == 1 else 0.9 * lanes) + guards
