"""Long reductions and rows (softmax, normalisation): tiles of points by elements of the row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from compiler.kernels.index import Axis, Index, axes_of, index, substitute
from compiler.kernels.kernel import Acc, Kernel, Load, Reduce, Statement, Store, shift, values, walk
from compiler.kernels.parts import halves
from compiler.triton_source.emit import Emitter
from compiler.triton_source.folds import folded_type, greater, neutral, payload, start
from compiler.triton_source.function import Function, finish, flatten, label, wide
from compiler.triton_source.lines import Value
from compiler.triton_source.parts import last
from compiler.triton_source.text import ceil_div, next_power

_WHOLE = 8192  # a row up to this length is held in registers, a longer one is read in blocks
_TILE = 4096


@dataclass
class _Row:
    """The tile dimension that the axes of some statements are folded into."""

    axis: Axis
    length: int

    @property
    def blocks(self) -> int:
        return ceil_div(self.axis.size, self.length)


def render_rows(kernel: Kernel, processors: int) -> Function:
    parted = halves(kernel, kernel.parts) if kernel.parts is not None else None
    made = kernel if parted is None else parted[0]
    points, by_point = flatten(kernel.space, "i")
    rows, by_row = _rows(made.body, {points.name})
    sums, by_sum = _rows(parted[1].body, {points.name, *rows}) if parted is not None else ({}, {})
    count = kernel.parts.count if kernel.parts is not None else 1
    axes = {**by_point, **by_row}
    along = _along_rows(made, rows, axes)
    # A few elements each of many columns that lie together.
    if made.kind != "row" and not along:
        for row in rows.values():
            row.length = min(row.length, _TILE // min(32, next_power(points.size)))
    height = _height(points, rows, along, ceil_div(processors, count))
    for row in rows.values():
        row.length = min(row.length, max(16, _TILE // height)) if row.blocks > 1 else row.length
    dim, lengths = points.name, {d: r.length for d, r in (rows | sums).items()}
    em = Emitter([dim, *lengths], {dim: height, **lengths}, wide(kernel))
    label(em, axes)
    em.tails[dim] = points
    name, tiles = em.names.fresh(dim), ceil_div(points.size, height)
    if parted is not None:
        em.line(f"part = pid // {tiles}")
        own = Axis("part@", count)  # not the axis that the sum of the parts runs over
        em.bind(own, em.names.fresh("part"), [])
        axes[parted[2]] = index(own)
    number = f"pid % {tiles}" if count > 1 else "pid"
    em.line(f"{name} = {number} * {height} + {em.arange(height)}")
    em.bind(points, name, [dim])
    _write(em, dim, rows, axes, made)
    if kernel.parts is not None and parted is not None:
        with last(em, kernel.parts.count, f"pid % {tiles}"):
            _write(em, dim, sums, {**by_point, **by_sum}, parted[1])
    widest = max((r.length for r in rows.values()), default=1)
    warps = min(4, max(1, next_power(height * widest) // 512))
    return finish(kernel, em, tiles * count, warps)


def write_join(em: Emitter, dim: str, kernel: Kernel, axes: dict[Axis, Index], most: int) -> None:
    """Writes a kernel whose points lie along `dim`: its sums take at most so many terms at once."""
    rows, by_row = _rows(kernel.body, set(em.order))
    for name, row in rows.items():
        row.length = em.block[name] = min(row.length, most)
    em.order = (*em.order, *rows)
    _write(em, dim, rows, axes | by_row, kernel)


def _write(
    em: Emitter, dim: str, rows: dict[str, _Row], axes: dict[Axis, Index], kernel: Kernel
) -> None:
    writer = _Writer(em, dim, rows, axes)
    for group in _groups(kernel.body):
        writer.write(group)


def _rows(body: Sequence[Statement], taken: set[str]) -> tuple[dict[str, _Row], dict[Axis, Index]]:
    """Returns the tile dimensions by name; rows of the same sizes share one, and so their loads."""
    rows: dict[str, _Row] = {}
    by_sizes: dict[tuple[int, ...], Axis] = {}
    by_row: dict[Axis, Index] = {}
    for s in body:
        if not s.axes:
            continue
        sizes = tuple(a.size for a in s.axes)
        flat, substitution = flatten(s.axes, "r")
        if sizes not in by_sizes:
            name = flat.name
            while name in rows or name in taken:
                name += "_"
            by_sizes[sizes] = Axis(name, flat.size)
            rows[name] = _Row(by_sizes[sizes], min(next_power(flat.size), _WHOLE))
        shared = Index(0, ((by_sizes[sizes], 1),)) if flat.size > 1 else Index(0)
        by_row.update({a: substitute(i, {flat: shared}) for a, i in substitution.items()})
    return rows, by_row


def _along_rows(kernel: Kernel, rows: dict[str, _Row], axes: dict[Axis, Index]) -> bool:
    """Says whether something is read whose neighbours in a row lie side by side in memory."""
    offsets = [substitute(e.offset, axes) for s in kernel.body for v in values(s)
               for e in walk(v) if isinstance(e, Load)]  # fmt: skip
    return any(o.coefficient(row.axis) == 1 for o in offsets for row in rows.values())


def _height(points: Axis, rows: dict[str, _Row], along: bool, processors: int) -> int:
    """Returns how many points a program takes.

    Where neighbouring points lie side by side in memory a program needs several of them to read
    whole cache lines; else as few as fill a warp.
    """
    widest = max((r.length for r in rows.values()), default=1)
    looped = any(r.blocks > 1 for r in rows.values())
    height = 1 if along else 32
    while not along and height > 8 and ceil_div(points.size, height) < processors:
        height //= 2
    if not looped:
        height = max(height, 512 // widest)
    height = min(height, next_power(points.size), max(1, _WHOLE // min(widest, _WHOLE)))
    if looped and not along:
        height = min(32, next_power(points.size))
    return max(1, height)


def _groups(body: Sequence[Statement]) -> Iterator[list[Statement]]:
    """Yields statements that can share a loop: Reduces over the same axes, none using another."""
    group: list[Statement] = []
    for s in body:
        own = {r.id for r in group if isinstance(r, Reduce)}
        chained = any(isinstance(e, Acc) and e.id in own for v in values(s) for e in walk(v))
        sizes = [tuple(a.size for a in x.axes) for x in (s, *group)]
        if group and (not isinstance(s, Reduce) or chained or sizes[0] != sizes[1]):
            yield group
            group = []
        group.append(s)
        if isinstance(s, Store):
            yield group
            group = []
    if group:
        yield group


class _Writer:
    """Writes the statements of a row kernel one after the other."""

    def __init__(
        self,
        em: Emitter,
        dim: str,
        rows: dict[str, _Row],
        axes: dict[Axis, Index],
    ) -> None:
        self.em, self.dim, self.rows, self.axes = em, dim, rows, axes
        self.bound: set[str] = set()

    def write(self, group: list[Statement]) -> None:
        row = self._row(group[0])
        if row is None:
            assert isinstance(group[0], Store)
            self._store(group[0], frozenset([self.dim]))
        elif row.blocks == 1:
            self._bind_whole(row)
            if isinstance(group[0], Store):
                self._store(group[0], frozenset([self.dim, row.axis.name]))
            for r in group:
                if isinstance(r, Reduce):
                    self._reduce_whole(r, row)
        else:
            self._loop(group, row)

    def _row(self, s: Statement) -> _Row | None:
        if not s.axes:
            return None
        sizes = 1
        for a in s.axes:
            sizes *= a.size
        used = set().union(*(axes_of(self.axes[a]) for a in s.axes))
        for row in self.rows.values():
            if row.axis in used or (sizes == 1 and row.axis.size == 1):
                return row
        raise AssertionError(s)

    def _bind_whole(self, row: _Row) -> None:
        em, name = self.em, row.axis.name
        if name not in self.bound:
            self.bound.add(name)
            variable = em.names.fresh(name)
            em.line(f"{variable} = {em.arange(row.length)}")
            em.bind(row.axis, variable, [name])
            em.tails[name] = row.axis

    def _store(self, s: Store, dims: frozenset[str]) -> None:
        offset, value = substitute(s.offset, self.axes), shift(s.value, self.axes)
        self.em.store(replace(s, offset=offset, value=value), dims)

    def _element(self, r: Reduce, row: _Row) -> str:
        """Returns the text of the whole tile to fold, neutral past the end of the row."""
        em, dims = self.em, frozenset([self.dim, row.axis.name])
        value, tail = em.expr(shift(r.value, self.axes)), em.tail(row.axis.name)
        if tail is None:
            return em.full(value, dims)
        kept = value.dims | tail.dims
        text = f"tl.where({em.fit(tail, kept)}, {em.fit(value, kept)}, {neutral(r)})"
        return em.full(Value(text, kept, folded_type(r), em.level), dims)

    def _reduce_whole(self, r: Reduce, row: _Row) -> None:
        em, text = self.em, self._element(r, row)
        if r.op == "argmax":
            tile = em.names.fresh("tile")
            em.line(f"{tile} = {text}")
            em.accs[r.id] = self._winner(r, row, tile, em.fit(em.axes[row.axis], self._dims(row)))
            return
        name = em.names.fresh("total" if r.op == "sum" else "most")
        em.line(f"{name} = tl.{r.op}({text}, 1)")
        em.accs[r.id] = Value(name, frozenset([self.dim]), r.dtype, em.level)

    def _dims(self, row: _Row) -> frozenset[str]:
        return frozenset([self.dim, row.axis.name])

    def _winner(self, r: Reduce, row: _Row, tile: str, position: str) -> Value:
        """Finds the first greatest element of a tile, and the payload there."""
        em, most, where = self.em, self.em.names.fresh("most"), self.em.names.fresh("where")
        em.line(f"{most} = tl.max({tile}, 1)")
        none = row.axis.size
        em.line(f"{where} = tl.min(tl.where({tile} == {most}[:, None], {position}, {none}), 1)")
        return payload(em, r, row.axis, where, frozenset([self.dim]), self.axes)

    def _loop(self, group: list[Statement], row: _Row) -> None:
        em, dims, name = self.em, self._dims(row), row.axis.name
        folds = {r.id: start(em, r, dims) for r in group if isinstance(r, Reduce)}
        begin = em.names.fresh("start")
        with em.loop(f"for {begin} in range(0, {row.axis.size}, {row.length}):"):
            variable = em.names.fresh(name)
            em.line(f"{variable} = {begin} + {em.arange(row.length)}")
            em.bind(row.axis, variable, [name])
            em.tails[name] = row.axis
            for s in group:
                if isinstance(s, Store):
                    self._store(s, dims)
                else:
                    self._fold(s, row, folds[s.id], variable)
        for s in group:
            if isinstance(s, Reduce):
                acc, where = folds[s.id]
                if s.op == "argmax":
                    em.accs[s.id] = self._winner(s, row, acc.text, where)
                else:
                    folded = em.names.fresh(acc.text)
                    em.line(f"{folded} = tl.{s.op}({acc.text}, 1)")
                    em.accs[s.id] = Value(folded, frozenset([self.dim]), s.dtype, em.level)

    def _fold(self, r: Reduce, row: _Row, fold: tuple[Value, str], variable: str) -> None:
        em, acc, where, text = self.em, fold[0].text, fold[1], self._element(r, row)
        if r.op == "sum":
            em.line(f"{acc} += {text}")
        elif r.op == "max":
            em.line(f"{acc} = {greater(acc, text)}")
        else:
            tile, better = em.names.fresh("tile"), em.names.fresh("better")
            em.line(f"{tile} = {text}")
            em.line(f"{better} = {tile} > {acc}")
            em.line(f"{where} = tl.where({better}, {variable}[None, :], {where}).to(tl.int32)")
            em.line(f"{acc} = tl.where({better}, {tile}, {acc})")
