"""Turns SIGINT and SIGHUP into requests that a training loop meets between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol


class Stoppable(Protocol):
    """What can be asked to stop or to take a snapshot."""

    def request_stop(self) -> None: ...

    def request_snapshot(self) -> None: ...


@contextmanager
def catch_signals(loop: Stoppable) -> Iterator[None]:
    """Within it, SIGINT asks `loop` to stop, SIGHUP for a snapshot; the old handlers come back.

    A second SIGINT raises KeyboardInterrupt at once. Does nothing outside the main thread, where
    Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        loop.request_stop()

    def on_hangup(number: int, frame: FrameType | None) -> None:
        loop.request_snapshot()

    handlers: dict[int, Any] = {signal.SIGINT: on_interrupt}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        handlers[signal.SIGHUP] = on_hangup
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
