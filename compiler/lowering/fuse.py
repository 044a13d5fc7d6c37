"""Merges kernels: epilogues, siblings and rows, so that values meet in registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from compiler.kernels.dependence import Dependence
from compiler.kernels.index import Axis, Index, index, substitute
from compiler.kernels.kernel import (
    Acc,
    Expr,
    Kernel,
    Load,
    Reduce,
    Statement,
    Store,
    rebuild,
    shift,
    shift_guards,
    values,
    walk,
)
from compiler.kernels.schedule import Buffer, Loop, Work
from compiler.lowering.align import Alignment, align, blocks

# A row kernel keeps one row in registers or nearest cache.
ROW_LIMIT = 4096
# Elements that a contraction stores for each result: those of a window of a pooling.
SPREAD_LIMIT = 16
_SPREAD = ("contract", "map")


@dataclass
class Fusion:
    """The kernels that are left, and why each that reads what another writes is apart from it.

    `refused`: (writer, reader, why). What a loop over time reads, and who reads it, is not told.
    """

    kernels: list[Work]
    refused: list[tuple[str, str, str]] = field(default_factory=list)


def fuse(
    kernels: Sequence[Kernel],
    buffers: dict[str, Buffer],
    steps: Mapping[int, int] | None = None,
    spreads: bool = False,
) -> Fusion:
    """Merges readers into writers, and siblings, until nothing more fits.

    Kernels of a loop merge with each other alone. `steps` has the number of steps of each loop,
    negative where it goes backwards. `spreads`: see Traits.
    """
    plain: list[Work] = [k for k in kernels if not k.loop]
    refused: set[tuple[str, str, str]] = set()
    taken: set[str] = set()
    for loop, length in (steps or {}).items():
        inside = [k for k in kernels if k.loop == loop]
        read = set().union(*(k.reads() for k in kernels if k.loop != loop))
        parts = {b.name for b in buffers.values() if b.base}
        left = _fused(inside, buffers, read | parts, refused, taken, spreads)
        own = tuple(k for k in left if isinstance(k, Kernel))
        written = set().union(*(k.writes() for k in own))
        bases = frozenset(base for b in written if (base := buffers[b].base) is not None)
        plain.append(Loop(f"loop{loop}", abs(length), length < 0, own, bases))
    return Fusion(_fused(plain, buffers, set(), refused, taken, spreads), sorted(refused))


def _fused(
    kernels: Sequence[Work],
    buffers: dict[str, Buffer],
    read: set[str],
    refused: set[tuple[str, str, str]],
    taken: set[str],
    spreads: bool,
) -> list[Work]:
    """Merges what it can; `read` are the buffers that others need, `taken` names of kernels."""
    state = _State(kernels, buffers, read)
    while state.sweep():
        pass
    if spreads:  # last: what follows a map goes with it
        state.spread()
        while state.sweep():
            pass
    d = state.dependence
    left = {i: _named(d.kernels[i], buffers, taken) for i in d.order()}
    refused |= {(left[i].name, left[j].name, why) for i, j, why in state.refused()}
    return list(left.values())


def _named(kernel: Work, buffers: dict[str, Buffer], taken: set[str]) -> Work:
    """Names a merged kernel after what it leaves behind: a blob before an inner value."""
    if isinstance(kernel, Loop):
        return kernel
    own = [s.buffer for s in kernel.stores if buffers[s.buffer].role in ("inner", "output")]
    name = min(own, key=lambda b: ("." in b, own.index(b)), default=kernel.name)
    name = unique(kernel.name if name in taken else name, taken)
    taken.add(name)
    return replace(kernel, name=name)


class _State:
    """Kernels by number. What two kernels were refused for is remembered: they never change."""

    def __init__(self, kernels: Sequence[Work], buffers: dict[str, Buffer], read: set[str]) -> None:
        self.buffers = buffers
        self.read = read
        self.spreads = False
        self.dependence = Dependence(kernels)
        self._why: dict[tuple[int, int], str] = {}
        self._unlike: set[tuple[int, int]] = set()

    def refused(self) -> list[tuple[int, int, str]]:
        """Returns writers and readers that are left, and why; the last sweep tried them all."""
        d, between = self.dependence, "another kernel has to run between them"
        plain = {i for i, kind in d.kind.items() if kind != "loop"}
        return [(i, j, self._why[i, j] or between) for i in plain for j in d.data(i) & plain]

    def spread(self) -> None:
        """Lets contractions store several elements for each result from now on."""
        self.spreads = True
        kind = self.dependence.kind
        self._why = {
            (i, j): why
            for (i, j), why in self._why.items()
            if (kind.get(i), kind.get(j)) != _SPREAD
        }

    def sweep(self) -> bool:
        """Grows every kernel as far as it goes; returns whether anything was merged."""
        changed = False
        for number in list(self.dependence.kernels):
            grown: int | None = number
            while grown is not None and grown in self.dependence.kernels:
                grown = self._grow(grown)
                changed = changed or grown is not None
        return changed

    def _grow(self, i: int) -> int | None:
        """Merges one reader or sibling into kernel i; returns the number of the result."""
        d = self.dependence
        for j in sorted(d.data(i)):
            if (merged := self._with_reader(i, j)) is not None:
                return self._replace(i, j, merged)
        if d.kind[i] in ("reduce", "row"):
            near = {j for b in d.reads[i] for j in d.readers[b]} | d.data(i)
            for j in sorted(j for j in near - {i} if d.kind[j] in ("reduce", "row")):
                if (both := self._beside(i, j)) is not None:
                    return self._replace(i, j, both)
        return None

    def _both(self, i: int, j: int) -> tuple[Kernel, Kernel]:
        one, other = self.dependence.kernels[i], self.dependence.kernels[j]
        assert isinstance(one, Kernel) and isinstance(other, Kernel)
        return one, other

    def _with_reader(self, i: int, j: int) -> Kernel | None:
        if self._why.get((i, j)) or "loop" in (self.dependence.kind[i], self.dependence.kind[j]):
            return None
        merged, self._why[i, j] = merge(*self._both(i, j), self.spreads)
        # A detour may vanish when other kernels merge: it is not remembered.
        return None if merged is None or self.dependence.detour(i, j) else merged

    def _beside(self, i: int, j: int) -> Kernel | None:
        """Returns kernels i and j as one, None if they are unlike or depend on each other.

        What is stored in the end may depend on the other's sums, if there is nothing between them.
        """
        d = self.dependence
        if (i, j) in self._unlike or (d.connected(i, j) and (j not in d.data(i) or d.detour(i, j))):
            return None
        merged = _side_by_side(*self._both(i, j))
        if d.connected(i, j) and merged is not None and merged.kind != "reduce":
            merged = None
        if merged is None:
            self._unlike.add((i, j))
        return merged

    def _replace(self, i: int, j: int, merged: Kernel) -> int:
        d = self.dependence
        layers = tuple(dict.fromkeys((*d.kernels[i].layers, *d.kernels[j].layers)))
        read = merged.reads() | self.read
        body = tuple(s for s in merged.body if not self._dead(s, read, {i, j}))
        return d.merge(i, j, replace(merged, body=body, layers=layers))

    def _dead(self, statement: Statement, read: set[str], gone: set[int]) -> bool:
        """Says whether nothing reads what a statement stores: not `read`, nor any other kernel."""
        return (
            isinstance(statement, Store)
            and self.buffers[statement.buffer].role == "inner"
            and statement.buffer not in read
            and self.dependence.readers.get(statement.buffer, set()) <= gone
        )


def merge(kernel: Kernel, other: Kernel, spreads: bool = False) -> tuple[Kernel | None, str]:
    """Returns `kernel` with the body of its reader `other` added, or None and the reason."""
    if "host" in (kernel.kind, other.kind):
        return None, "a call of a Python layer stands alone"
    stored = {s.buffer: s for s in kernel.stores}
    first = next(load for load in other.loads() if load.buffer in stored)
    if spreads and (kernel.kind, other.kind) == _SPREAD:
        other = substituted(other, *blocks(other.space, first))
        first = next(load for load in other.loads() if load.buffer in stored)
    copies = spreads and (kernel.kind, other.kind) == _SPREAD and other.reads() <= stored.keys()
    found = align(kernel, stored[first.buffer], other, first, in_part=copies)
    if isinstance(found, str):
        return None, found
    if (why := _unsuited(kernel, other, found, spreads)) is not None:
        return None, why
    base = refine(kernel, found)
    body = _moved_body(base, other, found)
    merged = connect(base, body)
    if merged is None:
        return None, "it reads other elements than the point's own"
    kinds = (kernel.kind, merged.kind)
    if kinds[0] in ("contract", "transform") and kinds[1] != kinds[0]:
        return None, "it sums again what a product made"
    if not in_place(merged.body):
        return None, "it overwrites what the other reads"
    return merged, ""


def _unsuited(kernel: Kernel, other: Kernel, found: Alignment, spreads: bool) -> str | None:
    if other.kind == "map" and not found.extra:
        return None
    if spreads and (kernel.kind, other.kind) == _SPREAD:
        most = f"a result is spread over more than {SPREAD_LIMIT} elements"
        return most if _extent(found.extra) > SPREAD_LIMIT else None
    alone = ("contract", "transform")
    if other.kind in alone:
        return "a product is a kernel of its own"
    if kernel.kind in alone:
        return "rows or windows of what a product makes do not lie in one tile of it"
    if kernel.kind == "map":
        return "it reads rows or windows of what is made element by element"
    if any(r.op == "argmax" for r in (*kernel.reduces, *other.reduces)):
        return "a window is not a row"
    if found.extra and other.kind != "map":
        return "its rows are other rows"
    row = max((_extent(s.axes) for s in kernel.body), default=1)
    if max(_extent(found.extra), *(_extent(s.axes) for s in other.body), 1) > ROW_LIMIT:
        return f"a row is longer than {ROW_LIMIT} elements"
    if found.extra and _extent(found.extra) != row:
        return "its rows are other rows"
    return None


def refine(kernel: Kernel, found: Alignment) -> Kernel:
    """Returns the kernel with the axes split that the alignment had to split."""
    return substituted(kernel, found.split, found.space) if found.split else kernel


def substituted(kernel: Kernel, axes: dict[Axis, Index], space: tuple[Axis, ...]) -> Kernel:
    """Returns the kernel over another space, its axes replaced by indices over that space."""
    return replace(kernel, space=space, body=tuple(shifted(s, axes) for s in kernel.body))


def shifted(s: Statement, axes: dict[Axis, Index]) -> Statement:
    if isinstance(s, Store):
        offset, guards = substitute(s.offset, axes), shift_guards(s.guards, axes)
        return replace(s, offset=offset, value=shift(s.value, axes), guards=guards)
    payload = shift(s.payload, axes) if s.payload is not None else None
    return replace(s, value=shift(s.value, axes), payload=payload)


def _moved_body(kernel: Kernel, other: Kernel, found: Alignment) -> list[Statement]:
    """The statements of `other` over the space of `kernel`, with fresh axes and Acc ids."""
    taken = {a.name for a in kernel.space} | {a.name for s in kernel.body for a in s.axes}
    axes = dict(found.rename)
    fresh: dict[Axis, Axis] = {}
    for axis in dict.fromkeys((*found.extra, *(a for s in other.body for a in s.axes))):
        fresh[axis] = Axis(unique(axis.name, taken), axis.size)
        taken.add(fresh[axis].name)
        axes[axis] = index(fresh[axis])
    shift_id = 1 + max((r.id for r in kernel.reduces), default=-1)
    extra = tuple(fresh[a] for a in found.extra)
    body = []
    for s in other.body:
        s = renumbered(shifted(s, axes), shift_id)
        own = tuple(fresh[a] for a in s.axes)
        if isinstance(s, Store):
            s = replace(s, guards=s.guards + found.part)
        body.append(replace(s, axes=extra + own if isinstance(s, Store) else own))
    return body


def renumbered(s: Statement, by: int) -> Statement:
    def visit(e: Expr) -> Expr | None:
        return Acc(e.id + by, e.dtype) if isinstance(e, Acc) else None

    if isinstance(s, Store):
        return replace(s, value=rebuild(s.value, visit))
    payload = rebuild(s.payload, visit) if s.payload is not None else None
    return replace(s, id=s.id + by, value=rebuild(s.value, visit), payload=payload)


def connect(kernel: Kernel, body: list[Statement]) -> Kernel | None:
    """Replaces loads of what `kernel` stores at the point by the value itself."""
    stored = {s.buffer: s for s in kernel.stores}

    def visit(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer not in stored:
            return None
        s = stored[e.buffer]
        # The same element: equal offsets, and at the point itself unless the Store has no row.
        return s.value if e.offset == s.offset and not e.guards and not s.axes else None

    joined: list[Statement] = []
    for s in body:
        if isinstance(s, Store):
            s = replace(s, value=rebuild(s.value, visit))
        else:
            payload = rebuild(s.payload, visit) if s.payload is not None else None
            s = replace(s, value=rebuild(s.value, visit), payload=payload)
        left = (x for e in values(s) for x in walk(e) if isinstance(x, Load))
        if any(load.buffer in stored for load in left):
            return None
        joined.append(s)
    reduces = [s for s in (*kernel.body, *joined) if isinstance(s, Reduce)]
    stores = [s for s in (*kernel.body, *joined) if isinstance(s, Store)]
    return replace(kernel, body=(*reduces, *stores))


def _side_by_side(kernel: Kernel, other: Kernel) -> Kernel | None:
    """Merges two reductions over the same points and the same row or windows."""
    if not kernel.space or _sizes(kernel.space) != _sizes(other.space):
        return None
    if len({_sizes(r.axes) for r in (*kernel.reduces, *other.reduces)}) != 1:
        return None
    if [kernel.stores[0].offset.coefficient(a) for a in kernel.space] != [
        other.stores[0].offset.coefficient(a) for a in other.space
    ]:
        return None
    rename = {b: index(a) for a, b in zip(kernel.space, other.space, strict=True)}
    if kernel.kind == other.kind == "reduce":
        body = _same_windows(kernel, other, rename)
    else:
        body = _moved_body(kernel, other, Alignment(rename, (), {}, kernel.space))
    return connect(kernel, body) if body is not None else None


def _same_windows(
    kernel: Kernel, other: Kernel, rename: dict[Axis, Index]
) -> list[Statement] | None:
    """The body of `other` over the windows of `kernel`, if both read the same elements."""
    summing = all(r.op == "sum" for r in (*kernel.reduces, *other.reduces))
    if _extent(kernel.reduces[0].axes) > ROW_LIMIT and not summing:
        return None
    shared = dict(zip(other.reduces[0].axes, kernel.reduces[0].axes, strict=True))
    moves = {**rename, **{b: index(a) for b, a in shared.items()}}
    moved = [replace(shifted(s, moves), axes=tuple(shared[a] for a in s.axes)) for s in other.body]
    body = [renumbered(s, len(kernel.reduces)) for s in moved]
    return (
        body if kernel.writes() & other.reads() or _loaded(kernel.reduces) & _loaded(body) else None
    )


def _loaded(body: Sequence[Statement]) -> set[Load]:
    reduces = (s for s in body if isinstance(s, Reduce))
    return {x for r in reduces for x in walk(r.value) if isinstance(x, Load)}


def _sizes(axes: Sequence[Axis]) -> tuple[int, ...]:
    return tuple(a.size for a in axes)


def in_place(body: Sequence[Statement]) -> bool:
    """Says whether what is overwritten is read by point Stores alone, and so before it is."""
    points = [s for s in body if isinstance(s, Store) and not s.axes]
    rows = [s for s in body if s not in points]
    over = {_base(s.buffer) for s in points}
    read = {b for s in rows for b in _read(s)}
    wide = {_base(s.buffer) for s in rows if isinstance(s, Store)}
    return not over & read and not wide & (read | {b for s in points for b in _read(s)})


def _read(s: Statement) -> set[str]:
    return {_base(x.buffer) for e in values(s) for x in walk(e) if isinstance(x, Load)}


def _base(buffer: str) -> str:
    return buffer.rstrip("'")


def _extent(axes: Sequence[Axis]) -> int:
    total = 1
    for axis in axes:
        total *= axis.size
    return total


def unique(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    return next(f"{name}{i}" for i in count(2) if f"{name}{i}" not in taken)
