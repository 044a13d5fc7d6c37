"""A linear model in NumPy that fulfils Executable, for tests of the training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.executable import Array
from schemas.params import Feed, Filler, ParamInfo, StateInfo
from schemas.philox import uniform
from schemas.program import Dtype, Program, Role, Slot, Tensor

FEATURES = 64
Memory = dict[str, Array]


def feed_of(phase: str, batch: int = 16, **options: Any) -> Feed:
    """Returns a Data layer that reads the embedded 8 x 8 digits."""
    return Feed(
        "data",
        "Data",
        ("data", "label"),
        ((batch, 1, 8, 8), (batch,)),
        {"source": "digits8", "batch_size": batch, "scale": 1 / 16, **options},
        phase,
    )


def program_of(kind: str, feed: Feed) -> Program:
    """Returns a program of y = data . weight with squared loss; `kind` as for FakeExecutable."""
    tensors: dict[str, Tensor] = {}

    def add(name: str, role: Role, shape: tuple[int, ...] = (), dtype: Dtype = "f32") -> None:
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        tensors[name] = Tensor(name, role, dtype, shape, role, 0, shape, strides)

    feeds = () if kind == "apply" else (feed,)
    for one in feeds:
        for top, shape in zip(one.tops, one.shapes, strict=True):
            add(top, "input", shape)
    if kind != "apply":
        add("loss", "output")
        add("error", "output", (2,)) if kind == "test" else None
    add("ip/weight", "param", (FEATURES,))
    states = [] if kind == "test" else ["momentum"]
    states += ["accumulated"] if kind in ("apply", "accumulate") else []
    for state in states:
        add(state, "state", (FEATURES,))
    for scalar in ("lr", "rate_scale", "first"):
        add(scalar, "scalar")
    for scalar in ("iteration", "seed_lo", "seed_hi"):
        add(scalar, "scalar", (), "i32")
    return Program(
        kind,
        "fake",
        (),
        (Slot("input", 0, False),),
        tensors,
        params=(ParamInfo("ip/weight", "ip", "weight", (FEATURES,), Filler("uniform", max=0.1)),),
        states=tuple(StateInfo(key, (FEATURES,)) for key in states),
        feeds=feeds,
        outputs=tuple(n for n, t in tensors.items() if t.role == "output"),
        loss_weights={} if kind == "apply" else {"loss": 1.0},
    )


class FakeExecutable:
    """`kind` is step, accumulate, apply or test; `memory` is what the programs share."""

    def __init__(self, kind: str, feed: Feed, memory: Memory | None = None) -> None:
        self.kind = kind
        self.program = program_of(kind, feed)
        self.memory = memory if memory is not None else {}
        for key, tensor in self.program.tensors.items():
            self.memory.setdefault(key, np.zeros(tensor.shape, np.float32))
        self.own: Memory = {}  # what this program does not share
        self.logged: list[Mapping[str, float]] = []
        self.scalars: list[dict[str, float]] = []  # as of each run
        self.runs = 0

    def _place(self, name: str) -> Memory:
        lasting = self.program.tensors[name].role in ("param", "state")
        return self.memory if lasting else self.own

    def write(self, name: str, value: Array | float | int) -> None:
        tensor = self.program.tensors[name]
        dtype = np.int32 if tensor.dtype == "i32" else np.float32
        array = np.array(value, dtype)
        assert array.shape == tensor.shape, (name, array.shape, tensor.shape)
        self._place(name)[name] = array

    def read(self, name: str) -> Array:
        return self._place(name)[name].copy()

    @np.errstate(all="ignore")  # a run that diverges is one of the tests
    def run(self, log: tuple[str, ...] = ()) -> None:
        self.runs += 1
        names = [n for n, t in self.program.tensors.items() if t.role == "scalar"]
        self.scalars.append({n: float(self.own[n]) for n in names})
        if self.kind == "apply":
            return self._update(self.memory["accumulated"])
        data = self.own["data"].reshape(-1, FEATURES)
        difference = data @ self.memory["ip/weight"] - self.own["label"]
        self.own["loss"] = np.float32((difference**2).mean() / 2)
        self.own["error"] = np.array([difference.mean(), 1], np.float32)
        if log:
            self.logged.append({name: float(self.own[name]) for name in log})
        if self.kind == "test":
            return None
        # Noise as dropout has it: from the seed and the counter alone.
        seed = int(self.own["seed_lo"]) & 0xFFFFFFFF
        mask = uniform(seed, 7, int(self.own["iteration"]), FEATURES) < 0.5
        gradient = (difference[:, None] * data).mean(0) * mask
        if self.kind == "step":
            return self._update(gradient)
        kept = self.memory["accumulated"] * (1 - self.own["first"])
        self.memory["accumulated"] = (kept + gradient).astype(np.float32)

    def _update(self, gradient: Array) -> None:
        momentum = self.memory["momentum"]
        momentum = np.float32(0.9) * momentum + self.own["lr"] * gradient
        self.memory["momentum"] = momentum.astype(np.float32)
        self.memory["ip/weight"] = (self.memory["ip/weight"] - momentum).astype(np.float32)

    def drain(self) -> list[Mapping[str, float]]:
        logged, self.logged = self.logged, []
        return logged

    def synchronize(self) -> None: ...

    def close(self) -> None: ...
