"""Turns kernels over whole sequences into kernels of one time step, which a loop repeats.

Time is the first axis of a sequence and the outermost in memory, so one step of a buffer is one row
of `size / T` elements. A kernel of a loop is restricted to the row of its results that belongs to
step t; what depends on t is then taken out of its addresses and becomes a pointer that moves from
step to step. That is right if each kernel reads, of what the loop itself writes, the row of its own
step alone: this is checked here, load by load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compiler.kernels.index import Axis, Div, Index, axes_of, bounds, index
from compiler.kernels.kernel import (
    Expr,
    Guarded,
    Guards,
    Kernel,
    Load,
    Position,
    Random,
    Reduce,
    Statement,
    Store,
    rebuild,
    values,
    walk,
)
from compiler.kernels.schedule import Buffer, Loop, Work
from compiler.lowering.fuse import substituted
from schemas.errors import GraphError
from schemas.span import Span

Where = Callable[[str], Span | None]  # a layer's place in the file


def roll(
    kernels: Sequence[Work], buffers: dict[str, Buffer], where: Where
) -> tuple[list[Work], dict[str, Buffer]]:
    """Returns the kernels with loops over one step, and the buffers, some of one step as well.

    Raises GraphError for a layer on a cycle that mixes time steps.
    """
    buffers = dict(buffers)
    rolled: list[Work] = []
    for work in kernels:
        if isinstance(work, Loop):
            others = [k for k in kernels if k is not work]
            outside = set().union(*(k.reads() | k.writes() for k in others))
            work = _Roller(work, buffers, where).run(outside)
        rolled.append(work)
    return rolled, buffers


class _Mixed(Exception):
    """A kernel whose steps cannot be told apart."""


@dataclass
class _Roller:
    loop: Loop
    buffers: dict[str, Buffer]
    where: Where

    def __post_init__(self) -> None:
        self.time = Axis("t~", self.loop.count)
        self.row: dict[str, int] = {}  # elements a step of what the loop writes
        for name in {b for k in self.loop.kernels for b in k.writes()}:
            buffer = self.buffers[name]
            self.row[name] = buffer.size // self.loop.count
            if buffer.base is not None:
                self.row[buffer.base] = self.row[name]

    def run(self, outside: set[str]) -> Loop:
        kernels, moves = [], {}
        for kernel in self.loop.kernels:
            try:
                kernel, moved = self._kernel(kernel)
            except _Mixed as why:
                name = kernel.layers[0] if kernel.layers else kernel.name
                message = f"layer '{name}' is on a cycle, but cannot go step by step: {why}"
                hint = "axis 0 is time: on a cycle, a step sees itself and what [t-1] names"
                raise GraphError(message, self.where(name), hint) from None
            kernels.append(kernel)
            moves[kernel.name] = moved
        self._shrink(moves, outside)
        return replace(self.loop, kernels=tuple(kernels), moves=moves)

    def _shrink(self, moves: dict[str, dict[str, int]], outside: set[str]) -> None:
        """Keeps one step alone of what no other step and nothing outside of the loop touches."""
        for name, row in self.row.items():
            buffer = self.buffers[name]
            if (
                buffer.role == "inner"
                and buffer.base is None
                and name not in outside | self.loop.bases
            ):
                self.buffers[name] = replace(buffer, size=row)
                for moved in moves.values():
                    moved.pop(name, None)

    def _kernel(self, kernel: Kernel) -> tuple[Kernel, dict[str, int]]:
        """Returns one step of a kernel and how far its pointers move from step to step."""
        kernel = self._restricted(kernel)
        moves: dict[str, int] = {}

        def visit(e: Expr) -> Expr | None:
            if isinstance(e, Load):
                self._free(e.guards)
                return replace(e, offset=self._moved(e.buffer, e.offset, moves, e.guards))
            if isinstance(e, Guarded):
                self._free(e.guards)
            if isinstance(e, Position | Random):
                self._apart(e.index if isinstance(e, Position) else e.element)
            return None

        body: list[Statement] = []
        for s in kernel.body:
            for e in values(s):
                for x in walk(e):
                    if isinstance(x, Guarded):
                        self._free(x.guards)
            if isinstance(s, Store):
                self._free(s.guards)
                offset = self._moved(s.buffer, s.offset, moves, s.guards)
                body.append(replace(s, offset=offset, value=rebuild(s.value, visit)))
            else:
                assert isinstance(s, Reduce)
                payload = rebuild(s.payload, visit) if s.payload is not None else None
                body.append(replace(s, value=rebuild(s.value, visit), payload=payload))
        return replace(kernel, body=tuple(body)), {b: m for b, m in moves.items() if m}

    def _restricted(self, kernel: Kernel) -> Kernel:
        """Returns the kernel over the points of step t, which is an axis outside of its space."""
        if kernel.call is not None:
            raise _Mixed("its Python code runs for all time steps at once")
        store = kernel.stores[0]
        row = self.row[store.buffer]
        for outer in kernel.space:
            points = _points(store.offset, outer, row)
            if points and points * self.loop.count == outer.size:
                break
        else:
            raise _Mixed("time is not the first axis of what it computes")
        inner = Axis(outer.name, points)
        space = tuple(inner if a == outer else a for a in kernel.space if a != outer or points > 1)
        return substituted(kernel, {outer: index(self.time) * points + index(inner)}, space)

    def _moved(
        self, buffer: str, offset: Index, moves: dict[str, int], guards: Guards = ()
    ) -> Index:
        """Returns an offset in step 0 and notes how far it moves each step."""
        step = offset.coefficient(self.time)
        start = offset - index(self.time) * step
        self._apart(start)
        if (row := self.row.get(buffer)) is not None:
            low, high = _within(start, guards)
            if step != row or low // row != high // row:
                raise _Mixed(f"it reads other time steps of '{buffer.rstrip('~')}'")
        if moves.setdefault(buffer, step) != step:
            raise _Mixed(f"it reads '{buffer.rstrip('~')}' both step by step and as a whole")
        return start

    def _free(self, guards: Guards) -> None:
        for guard in guards:
            self._apart(guard.index)

    def _apart(self, i: Index) -> None:
        if self.time in axes_of(i):
            raise _Mixed("what it does depends on the number of the time step")


def _points(offset: Index, axis: Axis, row: int) -> int:
    """Returns how far an axis goes in a row of a buffer, 0 where it does not go from row to row."""
    for atom, step in offset.terms:
        by = atom.by if isinstance(atom, Div) and atom.of == index(axis) else 1
        if (atom == axis or by > 1) and step and row % step == 0:
            return by * (row // step)
    return 0


def _within(offset: Index, guards: Guards) -> tuple[int, int]:
    """Returns the least and the greatest value of an offset where its guards hold."""
    low = high = 0
    for guard in guards:
        axis, factor = next(
            ((a, c) for a, c in guard.index.terms if isinstance(a, Axis)), (None, 1)
        )
        times = offset.coefficient(axis) // factor if axis is not None else 0
        rest = offset - guard.index * times
        if times > 0 and not axes_of(rest) & axes_of(guard.index):
            offset = rest
            low, high = low + times * guard.low, high + times * (guard.high - 1)
    least, greatest = bounds(offset)
    return low + least, high + greatest
