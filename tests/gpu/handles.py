"""What the driver made of Python hands out: streams, events, modules, graphs; its statuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

from tests.gpu.simulator import Operation

STATIC_SHARED = 48 * 1024  # bytes that a launch may have without asking


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_INITIALIZED = 3
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE = 720
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900


class Fault(Exception):
    """Raised by a kernel that reads or writes outside of its memory."""


@dataclass(frozen=True)
class Kernel:
    """What is in a module under a name. `aligned`: the pointers that are multiples of 16 bytes.

    `waits`: it waits for the launch before it. Machine code is asked when that matters.
    `scratch`: whether it makes descriptors in scratch memory.
    """

    run: Callable[[list[int]], None]
    pointers: int
    aligned: Sequence[bool] = ()
    threads: int = 128
    milliseconds: float = 1.0
    waits: bool = False
    scratch: bool = False


@dataclass(eq=False)
class Handle:
    alive: bool = field(default=True, init=False)


@dataclass(eq=False)
class Stream(Handle):
    """`bits`: all operations so far, and what the next one has to wait for."""

    bits: int = 0
    capture: list[Node] | None = None


@dataclass(eq=False)
class Event(Handle):
    timing: bool
    last: Operation | None = None
    time: float = 0.0


@dataclass(eq=False)
class Module(Handle):
    image: bytes


@dataclass(eq=False)
class Function(Handle):
    module: Module
    name: str
    kernel: Kernel
    shared: int = STATIC_SHARED  # the most dynamic shared memory of a launch

    @cached_property
    def waits(self) -> bool:
        """Whether it waits for the launch before it, before it touches memory."""
        from compiler.triton_source.checks import waits  # a test of `netdef run` has no compiler

        code = self.module.image
        return self.kernel.waits or (code.startswith(b"\x7fELF") and waits(code))


@dataclass(frozen=True)
class Node:
    """A launch in a graph, or the record of an event."""

    function: Function | None
    pointers: list[int]
    event: Event | None = None
    grid: int = 1
    shared: int = 0


@dataclass(eq=False)
class Graph(Handle):
    nodes: list[Node]


@dataclass(eq=False)
class GraphExec(Handle):
    nodes: list[Node]
