"""Runs a Kernel with NumPy, straight from its definition: the oracle of the code generators."""

from __future__ import annotations

import numpy as np

from compiler.index import Axis, Div, Index, axes_of
from compiler.kernel import (
    SCALAR_BUFFER,
    SCALARS,
    Acc,
    Const,
    Entry,
    Expr,
    Guarded,
    Kernel,
    Load,
    Op,
    Position,
    Random,
    Reduce,
)
from compiler.prims.registry import PRIMITIVES, Env
from compiler.schedule import Loop
from schemas.philox import philox

TYPES = {"f32": np.float32, "i32": np.int32, "bool": np.bool_, "u8": np.uint8}


class _Grid:
    """Values of the axes in play, as arrays that broadcast against each other."""

    def __init__(self, axes):
        self.axes = list(axes)
        self.values = {}
        for i, axis in enumerate(self.axes):
            shape = [1] * len(self.axes)
            shape[i] = axis.size
            self.values[axis] = np.arange(axis.size, dtype=np.int64).reshape(shape)

    def index(self, i: Index):
        total = np.int64(i.const)
        for atom, factor in i.terms:
            if isinstance(atom, Axis):
                value = self.values[atom]
            else:
                inner = self.index(atom.of)
                value = inner // atom.by if isinstance(atom, Div) else inner % atom.by
            total = total + value * factor
        return total

    def holds(self, guards):
        ok = np.True_
        for g in guards:
            i = self.index(g.index)
            ok = ok & (i >= g.low) & (i < g.high)
        return ok


def _value(e: Expr, grid: _Grid, buffers, accs):
    if isinstance(e, Const):
        return TYPES[e.dtype](e.value)
    if isinstance(e, Acc):
        acc = accs[e.id]
        return acc.reshape(acc.shape + (1,) * (len(grid.axes) - acc.ndim))
    if isinstance(e, Position):
        return np.asarray(grid.index(e.index)).astype(np.int32)
    if isinstance(e, Entry):
        return np.array(e.matrix, np.float32)[grid.index(e.row), grid.index(e.column)]
    if isinstance(e, Load):
        offset = np.asarray(grid.index(e.offset))
        flat = buffers[e.buffer].reshape(-1)
        if not e.guards:
            assert offset.min() >= 0 and offset.max() < flat.size, (e, flat.size)
            return flat[offset]
        ok = grid.holds(e.guards)
        offset, ok = np.broadcast_arrays(offset, ok)
        inside = np.where(ok, offset, 0)
        assert inside.min() >= 0 and inside.max() < flat.size, (e, flat.size)
        return np.where(ok, flat[inside], flat.dtype.type(e.other))
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
    assert isinstance(e, Op)
    args = tuple(np.asarray(_value(a, grid, buffers, accs)) for a in e.args)

    class FakeNode:
        attrs = e.attrs if e.name != "cast" else (("dtype", e.dtype),)
        dtype = e.dtype

        def attr(self, name):
            return dict(e.attrs)[name]

    return PRIMITIVES[e.name].evaluate(FakeNode(), args, Env(float_dtype=np.float32))


def run_kernel(kernel: Kernel, buffers: dict[str, np.ndarray]) -> None:
    """Runs the kernel in place on flat arrays by buffer name (float32 throughout)."""
    accs: dict[int, np.ndarray] = {}
    n = len(kernel.space)
    later = []
    for s in kernel.body:
        grid = _Grid((*kernel.space, *(a for a in s.axes if a not in kernel.space)))
        shape = tuple(a.size for a in grid.axes)
        value = np.broadcast_to(_value(s.value, grid, buffers, accs), shape)
        if isinstance(s, Reduce) and s.axes and s.axes == kernel.rows:  # all rows get the sum
            total = value.sum(kernel.space.index(s.axes[0]), dtype=np.float64, keepdims=True)
            accs[s.id] = np.broadcast_to(total.astype(TYPES[s.dtype]), shape)
            continue
        if not isinstance(s, Reduce):
            offset = np.broadcast_to(grid.index(s.offset), shape)
            if kernel.rows and not axes_of(s.offset).issuperset(kernel.rows):  # once for all rows
                first = [slice(1) if a in kernel.rows else slice(None) for a in grid.axes]
                offset, value = offset[tuple(first)], value[tuple(first)]
            offset = offset.reshape(-1)
            assert len(np.unique(offset)) == offset.size, "two points store to one place"
            later.append((buffers[s.buffer].reshape(-1), offset, value.reshape(-1).copy()))
            continue
        inner = value.reshape(shape[:n] + (-1,))
        if s.op == "sum":
            accs[s.id] = inner.sum(-1, dtype=np.float64).astype(TYPES[s.dtype])
        elif s.op == "max":
            accs[s.id] = inner.max(-1)
        else:
            payload = np.broadcast_to(_value(s.payload, grid, buffers, accs), shape)
            best = inner.argmax(-1)[..., None]
            accs[s.id] = np.take_along_axis(payload.reshape(inner.shape), best, -1)[..., 0]
    for target, offset, value in later:
        target[offset] = value


def place_parts(schedule, buffers: dict[str, np.ndarray]) -> None:
    """Makes parts of a buffer views of it."""
    for name, buffer in schedule.buffers.items():
        if buffer.base is not None:
            buffers[name] = buffers[buffer.base][buffer.shift :]


def run_schedule(schedule, buffers: dict[str, np.ndarray]) -> None:
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
