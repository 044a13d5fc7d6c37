"""Does work in several processes: a compiler holds one lock for long, so threads would wait.

They talk in pickles, through pipes that nobody else has: what is unpickled is never a file's.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_HEAD, _MARK = struct.Struct("<8sQ"), b"netdef-2"
_START = "import sys; sys.path.insert(0, sys.argv[1]); from compiler.helpers import serve; serve()"


def run_all(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    processes: int,
    cost: Callable[[Item], float],
) -> list[Result]:
    """Returns what `work`, a function of a module, makes of each item; the costliest come first.

    `processes`: how many work on it, this one included.
    """
    shared = _Work(work, items, cost)
    with ExitStack() as stack:
        helpers = [h for h in (_start() for _ in range(processes - 1)) if h is not None]
        for helper in helpers:
            stack.callback(_stop, helper)
        threads = [threading.Thread(target=shared.by, args=(h,), daemon=True) for h in helpers]
        for thread in threads:
            thread.start()
        shared.here()
        for thread in threads:
            thread.join()
        shared.here()  # what a helper left undone
    return [shared.done[n] for n in range(len(items))]


def processors() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Work:
    """Items that are left, and what has been made of the others."""

    def __init__(
        self, work: Callable[[Any], Any], items: Sequence[Any], cost: Callable[[Any], float]
    ) -> None:
        self.work, self.items = work, items
        self.left = sorted(range(len(items)), key=lambda n: cost(items[n]))
        self.done: dict[int, Any] = {}

    def here(self) -> None:
        """Works in this process while there is something left."""
        while (n := self._next()) is not None:
            self.done[n] = self.work(self.items[n])

    def by(self, helper: subprocess.Popen[bytes]) -> None:
        """Has a helper work; if it fails, its item is left to others."""
        assert helper.stdin is not None and helper.stdout is not None
        first = [self.work]
        while (n := self._next()) is not None:
            made = None
            with suppress(OSError, ValueError):
                _send(helper.stdin, [*first, self.items[n]])
                made = _receive(helper.stdout)
            if made is None:
                self.left.append(n)
                return
            (self.done[n],), first = made, []

    def _next(self) -> int | None:
        try:
            return self.left.pop()
        except IndexError:
            return None


def _start() -> subprocess.Popen[bytes] | None:
    """Starts a helper; None where there is no interpreter to start it with."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    command = [sys.executable, "-c", _START, str(Path(__file__).resolve().parents[1])]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None


def _stop(helper: subprocess.Popen[bytes]) -> None:
    helper.kill()  # it keeps nothing that could be lost
    helper.wait()
    for stream in (helper.stdin, helper.stdout):
        with suppress(OSError):
            if stream is not None:
                stream.close()


def serve() -> None:
    """Runs a helper: items come in on standard input, the first behind the work; results go out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a compiler prints is no result
    work: list[Callable[[Any], Any]] = []
    while (message := _receive(sys.stdin.buffer)) is not None:
        *given, item = message
        work = given or work
        _send(out, [work[0](item)])


def _send(stream: IO[bytes], content: list[Any]) -> None:
    data = pickle.dumps(content)
    stream.write(_HEAD.pack(_MARK, len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> list[Any] | None:
    """Returns the next message, None at the end of the stream or if it is something else."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(_MARK):
        return None
    _, size = _HEAD.unpack(head)
    data = stream.read(size)
    return pickle.loads(data) if len(data) == size else None
