"""A program of one launch for CudaDevice, and what the launch computes."""

from __future__ import annotations

import numpy as np

from schemas.program import INPUTS, Launch, Program, Slot, Tensor
from tests.gpu.fake_driver import floats

META = {"grid": [1, 1, 1], "threads": 128, "shared": 70000, "name": "step"}
META |= {"global_scratch": 0, "profile_scratch": 0}


def tensor(name, role, shape, slot, offset=0, strides=None, dtype="f32") -> Tensor:
    strides = strides or tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    return Tensor(name, role, dtype, shape, slot, offset, shape, strides)


def program(target="sm_90", **more) -> Program:
    """params += lr * x (6 numbers in the order NHWC); loss = sum(params)."""
    tensors = [
        tensor("x", "input", (1, 2, 3), INPUTS, 16, (6, 1, 2)),
        tensor("column", "input", (3,), "arena", 64, (2,)),
        tensor("loss", "output", (), "arena", 256),
        tensor("w", "param", (6,), "params"),
        tensor("lr", "scalar", (), "scalars", 12),
        tensor("seed_lo", "scalar", (), "scalars", 4, dtype="i32"),
    ]
    slots = (Slot("arena", 512, False), Slot(INPUTS, 512, False), Slot("params", 24, True))
    slots += (Slot("scalars", 24, True),)
    args = ((INPUTS, 16), ("params", 0), ("scalars", 12), ("arena", 256))
    launch = Launch("step", (), "step", args, dict(META))
    fields = {"launches": (launch,), "slots": slots, "code": {"step": b"cubin"}}
    fields["tensors"] = {t.name: t for t in tensors}
    fields["initial"] = {"params": ((1.0, 6),)}
    return Program("net", target, **(fields | more))


def step(pointers) -> None:
    x, w, lr, loss = (floats(p, n) for p, n in zip(pointers, (6, 6, 1, 1), strict=True))
    w += lr[0] * x
    loss[0] = w.sum()
