"""Runs a Kernel with NumPy, straight from its definition: the oracle of the code generators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from compiler.kernels.index import Axis, Div, Index, axes_of
from compiler.kernels.kernel import (
    SCALAR_BUFFER,
    SCALARS,
    Acc,
    Const,
    Entry,
    Expr,
    Factor,
    Guarded,
    Guards,
    Kernel,
    Load,
    Op,
    Position,
    Random,
    Reduce,
    Store,
)
from compiler.kernels.schedule import Loop, Schedule
from compiler.prims.registry import PRIMITIVES, Env
from schemas.philox import philox

Array = np.ndarray[Any, Any]
Buffers = dict[str, Array]
TYPES: dict[str, Any] = {"f32": np.float32, "i32": np.int32, "bool": np.bool_, "u8": np.uint8}


class _Grid:
    """Values of the axes in play, as arrays that broadcast against each other.

    Axes that `points` has values for stand together: dimension 0 goes through these points.
    """

    def __init__(self, axes: Iterable[Axis], points: Mapping[Axis, Array] | None = None) -> None:
        points = points or {}
        self.axes = [a for a in axes if a not in points]
        lead = tuple(len(p) for p in points.values())[:1]
        self.shape = (*lead, *(a.size for a in self.axes))
        self.values = {a: self._along(0, p) for a, p in points.items()}
        for i, axis in enumerate(self.axes, len(lead)):
            self.values[axis] = self._along(i, np.arange(axis.size, dtype=np.int64))

    def _along(self, dimension: int, values: Array) -> Array:
        shape = [1] * len(self.shape)
        shape[dimension] = len(values)
        return values.reshape(shape)

    def index(self, i: Index) -> Any:
        total: Any = np.int64(i.const)
        for atom, factor in i.terms:
            if isinstance(atom, Axis):
                value = self.values[atom]
            else:
                inner = self.index(atom.of)
                value = inner // atom.by if isinstance(atom, Div) else inner % atom.by
            total = total + value * factor
        return total

    def holds(self, guards: Guards) -> Any:
        ok: Any = np.True_
        for g in guards:
            i = self.index(g.index)
            ok = ok & (i >= g.low) & (i < g.high)
        return ok


def _value(e: Expr, grid: _Grid, buffers: Buffers, accs: dict[int, Array]) -> Any:
    if isinstance(e, Const):
        return TYPES[e.dtype](e.value)
    if isinstance(e, Acc):
        acc = accs[e.id]
        return acc.reshape(acc.shape + (1,) * (len(grid.shape) - acc.ndim))
    if isinstance(e, Position):
        return np.asarray(grid.index(e.index)).astype(np.int32)
    if isinstance(e, Entry):
        return np.array(e.matrix, np.float32)[grid.index(e.row), grid.index(e.column)]
    if isinstance(e, Load):
        offset = np.asarray(grid.index(e.offset))
        flat = buffers[e.buffer].reshape(-1)
        if not e.guards:
            assert offset.min() >= 0 and offset.max() < flat.size, (e, flat.size)
            return _widened(flat[offset], e)
        ok = grid.holds(e.guards)
        offset, ok = np.broadcast_arrays(offset, ok)
        inside = np.where(ok, offset, 0)
        assert inside.min() >= 0 and inside.max() < flat.size, (e, flat.size)
        value = _widened(flat[inside], e)
        return np.where(ok, value, value.dtype.type(e.other))
    if isinstance(e, Guarded):
        with np.errstate(all="ignore"):
            value = _value(e.value, grid, buffers, accs)
        return np.where(grid.holds(e.guards), value, TYPES[e.dtype](e.other))
    if isinstance(e, Random):
        element = np.asarray(grid.index(e.element))
        words = buffers[SCALAR_BUFFER].reshape(-1).view(np.uint32)
        it, lo, hi = (int(words[SCALARS[n][0]]) for n in ("iteration", "seed_lo", "seed_hi"))
        word = philox(lo | hi << 32, element.reshape(-1), 0, it, e.stream)[0]
        return ((word >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)).reshape(
            element.shape
        )
    if isinstance(e, Factor):
        return _value(e.value, grid, buffers, accs)
    assert isinstance(e, Op)
    args = tuple(np.asarray(_value(a, grid, buffers, accs)) for a in e.args)
    node: Any = _Applied(e)
    return PRIMITIVES[e.name].evaluate(node, args, Env(float_dtype=np.float32))


class _Applied:
    """An Op as the NumPy evaluation of its primitive reads a node."""

    def __init__(self, op: Op) -> None:
        self.attrs = op.attrs if op.name != "cast" else (("dtype", op.dtype),)
        self.dtype = op.dtype

    def attr(self, name: str) -> Any:
        return dict(self.attrs)[name]


def _widened(bits: Array, load: Load) -> Array:
    """Returns what was loaded as numbers: bf16 is the upper half of f32, held as u16; u8 an i32."""
    if load.dtype == "u8":
        return bits.astype(np.int32)
    return (bits.astype(np.uint32) << 16).view(np.float32) if load.dtype == "bf16" else bits


def run_kernel(kernel: Kernel, buffers: Buffers) -> None:
    """Runs the kernel in place on flat arrays by buffer name (float32 throughout)."""
    for store, offset, value in stored(kernel, buffers):
        buffers[store.buffer].reshape(-1)[offset] = value
    for join in kernel.joins:
        run_kernel(join, buffers)


def stored(
    kernel: Kernel,
    buffers: Buffers,
    points: Mapping[Axis, Array] | None = None,
    doubt: float = 0.0,
) -> list[tuple[Store, Array, Array]]:
    """Returns each Store with the places in its buffer and the numbers that belong there.

    With `points`, some positions of each axis of the space, only what these points store. Every sum
    is off by `doubt` of the root of its squared terms, as sums of rounded terms are.
    """
    accs: dict[int, Array] = {}
    found = []
    for s in kernel.body:
        free = [a for a in s.axes if a not in kernel.space]
        grid = _Grid((*kernel.space, *free), points)
        n, lead = len(grid.shape) - len(free), len(grid.shape) - len(grid.axes)
        value = np.broadcast_to(_value(s.value, grid, buffers, accs), grid.shape)
        rows = [lead + grid.axes.index(a) for a in kernel.rows]
        if not isinstance(s, Reduce):
            offset = np.broadcast_to(grid.index(s.offset), grid.shape)
            kept = np.broadcast_to(grid.holds(s.guards), grid.shape)
            if kernel.rows and not axes_of(s.offset).issuperset(kernel.rows):  # once for all rows
                first = [slice(1) if i in rows else slice(None) for i in range(len(grid.shape))]
                offset, value, kept = (x[tuple(first)] for x in (offset, value, kept))
            offset = offset[kept]
            assert len(np.unique(offset)) == offset.size, "two points store to one place"
            found.append((s, offset, value[kept]))
            continue
        over = tuple(rows) if s.axes and s.axes == kernel.rows else tuple(range(n, value.ndim))
        payload = _value(s.payload, grid, buffers, accs) if s.payload is not None else value
        total = _fold(s, value, np.broadcast_to(payload, grid.shape), over, doubt)
        if over == tuple(rows):  # all points along these axes get the result
            accs[s.id] = np.broadcast_to(np.expand_dims(total, over), grid.shape)
        else:
            accs[s.id] = total
    return found


def _fold(s: Reduce, value: Array, payload: Array, over: tuple[int, ...], doubt: float) -> Array:
    """Returns the result of a Reduce over these dimensions."""
    lined = [np.moveaxis(x, over, range(-len(over), 0)) for x in (value, payload)]
    inner, payload = (x.reshape(*x.shape[: x.ndim - len(over)], -1) for x in lined)
    if s.op == "sum":
        return _sum(inner, doubt).astype(TYPES[s.dtype])
    if s.op == "max":
        largest: Array = inner.max(-1)
        return largest
    return np.take_along_axis(payload, inner.argmax(-1)[..., None], -1)[..., 0]


def _sum(terms: Array, doubt: float) -> Array:
    total: Array = terms.sum(-1, dtype=np.float64)
    if doubt:
        total += doubt * np.sqrt(np.square(terms, dtype=np.float64).sum(-1))
    return total


def place_parts(schedule: Schedule, buffers: Buffers) -> None:
    """Makes parts of a buffer views of it."""
    for name, buffer in schedule.buffers.items():
        if buffer.base is not None:
            buffers[name] = buffers[buffer.base][buffer.shift :]


def run_schedule(schedule: Schedule, buffers: Buffers) -> None:
    """Runs all launches."""
    place_parts(schedule, buffers)
    for launch in schedule.launches:
        if not isinstance(launch, Loop):
            for kernel in launch:
                run_kernel(kernel, buffers)
            continue
        steps = range(launch.count)
        for t in reversed(steps) if launch.backwards else steps:
            for row in launch.rows:
                for kernel in row:
                    moves = launch.moves.get(kernel.name, {})
                    here = {b: buffers[b][moves.get(b, 0) * t :] for b in buffers}
                    run_kernel(kernel, here)
