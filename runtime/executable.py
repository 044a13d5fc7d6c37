"""Executable: a program loaded on a device, and what may be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from schemas.host import Host
from schemas.program import Program

Array = np.ndarray[Any, Any]


class Memory(Protocol):
    """What holds the tensors of a program: an executable, or the content of a file to be."""

    @property
    def program(self) -> Program: ...

    def write(self, name: str, value: Array | float | int) -> None:
        """Copies a value to a tensor of the program; takes part in the next `run`."""
        ...


class Executable(Memory, Protocol):
    """One Program on one device.

    Every backend has one: `cpu` runs a native function, `triton` replays a CUDA graph, `reference`
    evaluates the graph with NumPy. Names are those of `Program.tensors`: inputs and outputs by
    blob name, learned blobs by key (`conv1/weight`), states by key, and the scalars that change
    from step to step (`lr`, `iteration`, `seed_lo`, `seed_hi`). Arrays are in Caffe's shape and
    order whatever the layout on the device.
    """

    def read(self, name: str) -> Array:
        """Returns a copy of a tensor, after all runs so far."""
        ...

    def run(self, log: tuple[str, ...] = ()) -> None:
        """Runs one step; may return before the device is done.

        The single-element outputs named in `log` are remembered as of this step, without waiting.
        """
        ...

    def drain(self) -> list[Mapping[str, float]]:
        """Waits, and returns what was logged since the last call, oldest first."""
        ...

    def time(self) -> tuple[float, Array | None]:
        """Runs a step; returns its seconds, and how each thread (a row) spent them.

        The columns: how much later than others it began, then for each launch its kernels in order
        and the wait for the other threads. None where the device cannot tell.
        """
        ...

    def synchronize(self) -> None:
        """Waits until the device has done all runs."""
        ...

    def close(self) -> None:
        """Frees the device's memory and threads; the executable is not used again."""
        ...


class Device(Protocol):
    """Something that programs run on. Memory of persistent slots is shared by name."""

    name: str

    def load(
        self,
        program: Program,
        share: Executable | None = None,
        hosts: Mapping[str, Host] | None = None,
    ) -> Executable:
        """Allocates and loads a program; `hosts` are the Python layers that it calls.

        Persistent slots that `share` also has, by name and size, are the same memory: a solver's
        test net sees the weights of its training net.
        """
        ...
