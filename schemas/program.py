"""A compiled Program: launches in order, buffers, tensors, code, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np

from schemas.params import Feed, LayerBlobs, ParamInfo, Sink, StateInfo

Dtype = Literal["f32", "f64", "bf16", "i32", "u8", "bool"]
ITEMSIZE: dict[str, int] = {"f32": 4, "f64": 8, "bf16": 2, "i32": 4, "u8": 1, "bool": 1}

# The slots of what lives for a step: the scratch arena and, apart on some backends, the inputs.
ARENA, INPUTS = "arena", "inputs"

# Before the name of an output that is also an input's: a layer worked on it in place.
CHANGED = "changed:"

# What a kernel is there for: what a run gives back and a layer's statistics; gradients; the solver.
Way = Literal["forward", "backward", "update"]
Role = Literal["input", "param", "state", "scalar", "output", "inner", "packed"]

# Float32 numbers of which long runs are equal: each with how often it stands there.
Runs = tuple[tuple[float, int], ...]


def written_out(runs: Runs) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns all the numbers."""
    numbers = np.array([number for number, _ in runs], np.float32)
    return np.repeat(numbers, [count for _, count in runs])


@dataclass(frozen=True, slots=True)
class Slot:
    """One allocation: the scratch arena, or a persistent block that outlives a step.

    Persistent slots with the same name and size are shared between the Programs of one solver
    (the parameters of the training net and of its test net are one block of memory).
    """

    name: str
    nbytes: int
    persistent: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array that the outside reads or writes: where it lies and how.

    `shape` is what the user sees, in Caffe's axis order; `strides` (in elements) and `offset` (in
    bytes) say where each element lies in the slot. `view` is the shape that `strides` belong to,
    with `shape` a row-major reshape of it (an InnerProduct weight (O, C*H*W) lies as (O, C, H, W)).
    `copy` is a slot that holds the same elements as bf16: who writes the tensor writes both.
    """

    name: str
    role: Role
    dtype: Dtype
    shape: tuple[int, ...]
    slot: str
    offset: int
    view: tuple[int, ...]
    strides: tuple[int, ...]
    copy: str | None = None


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """What one kernel is and where it came from; for people, not needed to run it."""

    name: str
    kind: str
    layers: tuple[str, ...]
    places: tuple[str, ...]  # FILE:LINE of the spec
    flops: int
    bytes: int
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    way: Way = "forward"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A loop over time: its launches stand side by side, and all of them run once a time step.

    The steps run from 0 up, or down to 0 if `backwards`.
    """

    loop: str
    count: int
    backwards: bool


@dataclass(frozen=True, slots=True)
class HostCall:
    """A call of a Python layer in the middle of a step, with a block of f32 in and one out."""

    layer: str
    way: Literal["forward", "backward"]
    reads: int  # elements of the block that goes in; 0: there is none
    writes: int  # elements of the block that comes out
    wanted: tuple[bool, ...] = ()  # backward: which of the gradients will be read


@dataclass(frozen=True, slots=True)
class Launch:
    """Kernels that may run at the same time: nothing in a launch depends on another part of it.

    Where meta's `global_scratch` is not 0, the last pointer is that of the scratch memory.
    One of a loop has the pointers of time step 0; in step t each of them is t * `moves` further on.
    A launch with a `call` runs no code but calls a Python layer; its args are the block that comes
    out and then, if there is one, the block that goes in.
    """

    name: str
    kernels: tuple[KernelInfo, ...]
    code: str = ""  # key into Program.code, for backends with one binary a launch
    args: tuple[tuple[str, int], ...] = ()  # (slot, byte offset) of each pointer argument
    meta: dict[str, Any] = field(default_factory=dict)  # grid, num_warps, shared ...
    call: HostCall | None = None
    repeat: Repeat | None = None
    moves: tuple[int, ...] = ()  # bytes, one for each of `args`; nothing outside of a loop

    def args_at(self, t: int) -> tuple[tuple[str, int], ...]:
        """Returns the pointer arguments in time step t."""
        if self.repeat is None:
            return self.args
        moved = zip(self.args, self.moves, strict=True)
        return tuple((slot, offset + t * move) for (slot, offset), move in moved)


@dataclass(frozen=True, slots=True)
class Program:
    """One step, ready to run: plain data, serialisable, the same for every backend.

    `code` maps names to machine code (or cubins); `text` keeps every readable stage by file name
    (`conv1.py`, `step.ll`, ...), for `netdef inspect`.
    """

    name: str
    target: str
    launches: tuple[Launch, ...]
    slots: tuple[Slot, ...]
    tensors: dict[str, Tensor]
    params: tuple[ParamInfo, ...] = ()
    states: tuple[StateInfo, ...] = ()
    layers: tuple[LayerBlobs, ...] = ()  # all layers of the net, in order
    feeds: tuple[Feed, ...] = ()
    sinks: tuple[Sink, ...] = ()
    outputs: tuple[str, ...] = ()  # net outputs, in the order in which they are shown
    loss_weights: dict[str, float] = field(default_factory=dict)  # output -> its weight in the loss
    initial: dict[str, Runs] = field(default_factory=dict)  # slot -> first content, else zeros
    # Tensor -> its first values, float32 in the user's order; only in a program that stands alone.
    weights: dict[str, bytes] = field(default_factory=dict)
    code: dict[str, bytes] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def runs(self) -> Iterator[tuple[Launch, int]]:
        """Yields all launches of a step in order, those of loops again and again, with their t."""
        for repeat, group in groupby(self.launches, key=lambda launch: launch.repeat):
            launches = tuple(group)
            steps = range(repeat.count) if repeat is not None else range(1)
            for t in reversed(steps) if repeat is not None and repeat.backwards else steps:
                yield from ((launch, t) for launch in launches)

    @property
    def python_layers(self) -> tuple[str, ...]:
        """Returns the layers that are Python code: without them the program does not run."""
        return tuple(dict.fromkeys(one.call.layer for one in self.launches if one.call))

    @property
    def peak_bytes(self) -> int:
        """Returns all memory the program takes: the arena and the persistent slots."""
        return sum(slot.nbytes for slot in self.slots)
