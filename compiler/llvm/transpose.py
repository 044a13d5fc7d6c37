"""Copies that exchange two axes: squares of vectors, turned in registers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.kernels.index import Axis, Index, axes_of
from compiler.kernels.kernel import Kernel, Load, Store
from compiler.llvm.builder import Builder, Val, constants
from compiler.llvm.host import Host
from compiler.llvm.piece import Piece, finish, pointers_of
from compiler.llvm.scope import Scope

_RUN = 8  # squares side by side: whole lines and their neighbours are read and written


@dataclass(frozen=True, slots=True)
class Turn:
    """A copy whose source is contiguous along `source` and whose target is along `target`."""

    load: Load
    store: Store
    source: Axis
    target: Axis


def turn_of(kernel: Kernel, host: Host) -> Turn | None:
    """Returns what a kernel exchanges, if that is all it does and both axes fill a vector."""
    store = kernel.body[0]
    if len(kernel.body) != 1 or not isinstance(store, Store) or store.axes:
        return None
    load = store.value
    if (
        not isinstance(load, Load)
        or load.guards
        or "f32" != load.dtype
        or load.dtype != store.dtype
    ):
        return None
    source, target = (_contiguous(kernel, p.offset) for p in (load, store))
    if source is None or target is None or source == target or load.buffer == store.buffer:
        return None
    plain = _plain(load.offset, target) and _plain(store.offset, source)
    wide = min(source.size, target.size) >= host.lanes
    return Turn(load, store, source, target) if plain and wide else None


def _contiguous(kernel: Kernel, offset: Index) -> Axis | None:
    return next((a for a in kernel.space if offset.coefficient(a) == 1 and _plain(offset, a)), None)


def _plain(offset: Index, axis: Axis) -> bool:
    return not any(axis in axes_of(a.of) for a, _ in offset.terms if not isinstance(a, Axis))


def emit_turn(kernel: Kernel, turn: Turn, host: Host) -> Piece:
    """Emits squares of `lanes` by `lanes`; the last of an axis begin early, to stay inside."""
    b, lanes = Builder(host.lanes, host.fma), host.lanes
    pointers = pointers_of(kernel)
    outer = [a for a in kernel.space if a not in (turn.source, turn.target)]
    run = _RUN * lanes
    counts = [-(-a.size // run) for a in (turn.target, turn.source)]
    sizes = [*(a.size for a in outer), *counts]
    with b.loop(Val("%lo", "i64"), Val("%hi", "i64")) as t:
        *at, row, column = b.unravel(t, sizes)
        scope = Scope(b, pointers, dict(zip(outer, at, strict=True)))
        first, second = b.imul(row, run), b.imul(column, run)
        with b.loop(first, b.imin(b.iadd(first, run), turn.target.size), lanes) as i:
            target = b.imin(i, turn.target.size - lanes)
            with b.loop(second, b.imin(b.iadd(second, run), turn.source.size), lanes) as j:
                source = b.imin(j, turn.source.size - lanes)
                _square(b, turn, scope.child({turn.target: target, turn.source: source}))
    return finish(b, pointers, math.prod(sizes))


def _square(b: Builder, turn: Turn, scope: Scope) -> None:
    start, end = (
        b.at(scope.pointers[p.buffer], "float", scope.scalar(p.offset))
        for p in (turn.load, turn.store)
    )
    apart, step = (
        turn.load.offset.coefficient(turn.target),
        turn.store.offset.coefficient(turn.source),
    )
    rows = [b.load(b.at(start, "float", n * apart), "float", b.lanes) for n in range(b.lanes)]
    for n, value in enumerate(_transposed(b, rows)):
        b.store(value, b.at(end, "float", n * step))


def _transposed(b: Builder, rows: list[Val]) -> list[Val]:
    """Exchanges the halves off the diagonal of all blocks, which are doubled from 2 x 2 on."""
    size, step = len(rows), 1
    while step < size:
        low = [n if not n & step else size + n - step for n in range(size)]
        high = [n + step if not n & step else size + n for n in range(size)]
        for n in (n for n in range(size) if not n & step):
            pair = rows[n], rows[n + step]
            rows[n], rows[n + step] = (_shuffled(b, *pair, picked) for picked in (low, high))
        step *= 2
    return rows


def _shuffled(b: Builder, x: Val, y: Val, picked: list[int]) -> Val:
    text = f"shufflevector {x}, {y}, {constants(picked, 'i32')}"
    return b.op(text, x.elem, x.lanes)
