"""A loop over time, built by hand: its kernels read what other points of a step have written."""

from __future__ import annotations

from compiler.kernels.index import Axis, index
from compiler.kernels.kernel import Expr, Kernel, Load, Store
from compiler.kernels.schedule import Loop
from tests.backends import hand_kernels as hand

STEPS, ROW = 6, 5


def fill(row: int = ROW) -> Kernel:
    """Touches all steps of the sequences, before the loop."""
    (whole,) = hand.axes("i", STEPS * row)
    x = Load("x", index(whole), "f32")
    return Kernel("fill", (whole,), tuple(Store(y, index(whole), x, "f32") for y in ("y", "z")))


def hand_loop(backwards: bool, row: int = ROW) -> Loop:
    """state = 0.5 * state + x[t]; then y[t] = turned + x[t] and z[t] = turned + x[0] side by side.

    `turned` is the state from its end to its start.
    """
    (i,) = hand.axes("i", row)
    x, turned = Load("x", index(i), "f32"), Load("state", index(i) * -1 + (row - 1), "f32")
    half = hand.op("mul", Load("state", index(i), "f32"), hand.Const(0.5))
    first = _kernel("blend", i, "state", hand.op("add", half, x))
    moving = _kernel("moving", i, "y", hand.op("add", turned, x))
    fixed = _kernel("fixed", i, "z", hand.op("add", turned, x))
    moves = {"blend": {"x": row}, "moving": {"x": row, "y": row}, "fixed": {"z": row}}
    rows = ((first,), (moving, fixed))
    return Loop("loop", STEPS, backwards, (first, moving, fixed), frozenset(), moves, rows)


def _kernel(name: str, i: Axis, to: str, value: Expr) -> Kernel:
    return Kernel(name, (i,), (Store(to, index(i), value, "f32"),))
