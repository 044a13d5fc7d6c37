"""What the native step calls: Python layers, and how its threads wait for one another."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runtime.calls import Call
from runtime.executable import Array
from schemas.program import Launch, Program

_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)


class CpuCalls:
    """The calls of a program as a C function; what a layer raises waits for the step to end."""

    def __init__(
        self, program: Program, slots: Mapping[str, Array], calls: Mapping[int, Call]
    ) -> None:
        self._calls = {i: _bound(program.launches[i], slots, c) for i, c in calls.items()}
        self._failed = False
        self._error: BaseException | None = None
        self._function = _FUNCTION(self._run)
        self._yield, self._nap = _waits()
        self._wait: Array = np.zeros(1, np.uint64)

    def attach(self, wait: Array, call: Array) -> None:
        """Writes the addresses of the functions to where the native step reads them."""
        self._wait = wait
        wait[0] = self._yield
        call[0] = _address(self._function)

    def _run(self, launch: int) -> int:
        """Makes a call; returns 0 where it fails, and the step is left. Nothing may leave this."""
        self._failed = True
        try:
            self._wait[0] = self._nap  # the layer may take long, and may have threads of its own
            self._calls[launch]()
            self._failed = False
        except BaseException as error:
            self._error = error
        self._wait[0] = self._yield
        return 0 if self._failed else 1

    def check(self) -> None:
        """Raises what a layer has raised in the step that is over."""
        if self._failed:
            error, self._error, self._failed = self._error, None, False
            raise error or KeyboardInterrupt  # which came before the layer's own code


def _bound(launch: Launch, slots: Mapping[str, Array], call: Call) -> Callable[[], None]:
    """Returns the call on the memory that its blocks lie in."""
    assert launch.call is not None
    sizes = (launch.call.writes, launch.call.reads)
    out, *given = (
        slots[slot][offset : offset + 4 * size].view(np.float32)
        for (slot, offset), size in zip(launch.args, sizes, strict=False)
    )
    values = given[0] if given else np.zeros(0, np.float32)

    def run() -> None:
        made = call(values)
        out[: made.size] = made

    return run


def _waits() -> tuple[int, int]:
    """Returns the addresses of two C functions that take a number, for threads that wait.

    The first gives the processor to another thread, whatever the number; the second sleeps for so
    many microseconds, where the system can.
    """
    if sys.platform == "win32":
        once = _address(ctypes.WinDLL("kernel32").SwitchToThread)
        return once, once
    library = ctypes.CDLL(None)
    once = _address(library.sched_yield)
    nap = getattr(library, "usleep", None)
    return once, once if nap is None else _address(nap)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
