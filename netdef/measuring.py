"""Times steps of an executable, and each kernel in them where the device can tell."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.program import KernelInfo, Program, Way

if TYPE_CHECKING:
    from runtime.executable import Array, Executable


@dataclass(frozen=True)
class Measured:
    """Steps of one program. `parts` is seconds by step, thread and part (`Executable.time`)."""

    program: Program
    times: list[float]
    parts: Array | None

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    def kernels(self) -> list[float | None]:
        """Returns the seconds of each kernel in turn: the mean of the threads, the median step."""
        kernels = sum(len(launch.kernels) for launch in self.program.launches)
        if self.parts is None:
            return [None] * kernels
        waits = {i for i, kernel in enumerate(self._owners()) if kernel is None}
        middle = np.median(self.parts.mean(axis=1), axis=0)
        return [float(t) for i, t in enumerate(middle) if i not in waits]

    def least(self) -> dict[str, float]:
        """Returns the seconds of each kernel's slowest thread, in the step where they are least."""
        if self.parts is None:
            return {}
        least = self.parts.max(axis=1).min(axis=0)
        pairs = zip(self._owners(), least, strict=True)
        return {kernel.name: float(t) for kernel, t in pairs if kernel is not None}

    def waiting(self) -> float | None:
        """Returns the seconds of a step in which a thread waits for others, the mean of them."""
        if self.parts is None:
            return None
        waits = [i for i, kernel in enumerate(self._owners()) if kernel is None]
        return float(np.median(self.parts[:, :, waits].sum(axis=2).mean(axis=1)))

    def _owners(self) -> list[KernelInfo | None]:
        """Returns what each part of a step is: a kernel, or a wait."""
        found: list[KernelInfo | None] = [None]
        for launch in self.program.launches:
            found += [*launch.kernels, None]
        return found

    def trace(self) -> dict[str, Any]:
        """Returns the fastest step in Chrome's trace format, a row a thread, an event a kernel.

        Where the device does not time kernels, the step is split by their counted work.
        """
        best = self.times.index(min(self.times))
        owners = self._owners()
        if self.parts is not None:
            rows = self.parts[best]
        else:
            work = np.array([0 if k is None else k.flops + k.bytes for k in owners], np.float64)
            rows = (self.times[best] * work / max(work.sum(), 1.0))[None]
        events: list[dict[str, Any]] = []
        for thread, row in enumerate(rows):
            who = {"pid": 1, "tid": thread}
            name = {"name": f"thread {thread}"}
            events.append({"ph": "M", "name": "thread_name", **who, "args": name})
            ends = np.cumsum(row)
            for kernel, length, end in zip(owners, row, ends, strict=True):
                if kernel is not None and length > 0:
                    when = {"ts": 1e6 * float(end - length), "dur": 1e6 * float(length)}
                    events.append({**_event(kernel), **who, **when})
        how = "measured" if self.parts is not None else "split by counted flops and bytes"
        facts = {"net": self.program.name, "kernels": how}
        return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": facts}


def _event(kernel: KernelInfo) -> dict[str, Any]:
    counts = {"Mflop": kernel.flops / 1e6, "MB": kernel.bytes / 1e6}
    args = {"layers": "+".join(kernel.layers), "kind": kernel.kind, **counts}
    return {"ph": "X", "name": kernel.name, "cat": kernel.way, "args": args}


@dataclass
class LayerTime:
    """What the kernels of a layer take, forward and backward; None where they are not timed."""

    name: str
    others: dict[str, None] = field(default_factory=dict)  # layers that its kernels compute, too
    seconds: dict[Way, float | None] = field(default_factory=dict)
    flops: dict[Way, int] = field(default_factory=dict)
    bytes: dict[Way, int] = field(default_factory=dict)


def by_layer(program: Program, seconds: list[float | None]) -> list[LayerTime]:
    """Returns the layers in the net's order, less those that are computed within others alone.

    A kernel of several layers counts for the first: the one whose sums it makes.
    """
    found: dict[str, LayerTime] = {}
    kernels = [k for launch in program.launches for k in launch.kernels]
    for kernel, taken in zip(kernels, seconds, strict=True):
        if not kernel.layers:
            continue
        one = found.setdefault(kernel.layers[0], LayerTime(kernel.layers[0]))
        one.others |= dict.fromkeys(kernel.layers[1:])
        before = one.seconds.get(kernel.way, 0.0)
        both = None if taken is None or before is None else before + taken
        one.seconds[kernel.way] = both
        one.flops[kernel.way] = one.flops.get(kernel.way, 0) + kernel.flops
        one.bytes[kernel.way] = one.bytes.get(kernel.way, 0) + kernel.bytes
    order = {layer.layer: n for n, layer in enumerate(program.layers)}
    return sorted(found.values(), key=lambda one: order.get(one.name, len(order)))


def measure(exe: Executable, iterations: int) -> Measured:
    """Times so many steps, after a few that do not count."""
    for _ in range(min(3, iterations)):
        exe.run()
    exe.synchronize()
    times, parts = zip(*(exe.time() for _ in range(iterations)), strict=True)
    timed = [rows for rows in parts if rows is not None]
    return Measured(exe.program, [*times], np.array(timed) if timed else None)


def fill_inputs(exe: Executable, first: dict[str, Any]) -> None:
    """Gives inputs and weights values: zeros would be faster than anything real."""
    from runtime.params import initialise

    initialise(exe, 1, first)
    random = np.random.default_rng(1)
    labels = {top for feed in exe.program.feeds for top in feed.tops[1:]}
    for name, tensor in exe.program.tensors.items():
        if tensor.role == "input":
            value = random.random(tensor.shape, np.float32)
            exe.write(name, np.zeros(tensor.shape, np.float32) if name in labels else value)
    if "lr" in exe.program.tensors:
        exe.write("lr", 1e-6)
