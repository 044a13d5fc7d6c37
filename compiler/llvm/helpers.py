"""Compiles modules in several processes: LLVM holds one lock, so threads would wait."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from compiler.llvm.host import Host
from compiler.llvm.native import compile_object

# A helper takes 0.15 s to start, in which one process compiles some 80 kB of text.
_WORTH = 150_000
_HEAD, _MARK = struct.Struct("<8sQ"), b"netdef-1"
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from compiler.llvm.helpers import serve; serve()"
)


def compile_all(modules: Sequence[str], host: Host, processes: int | None = None) -> list[bytes]:
    """Returns the object code of each module.

    `processes`: how many work on it, this one included; None: as many as are worth it.
    """
    if processes is None:
        processes = min(_processors(), 1 + sum(map(len, modules)) // _WORTH)
    work = _Work(modules)
    with ExitStack() as stack:
        helpers = [h for h in (_start(host) for _ in range(processes - 1)) if h is not None]
        for helper in helpers:
            stack.callback(_stop, helper)
        threads = [threading.Thread(target=work.by, args=(h,), daemon=True) for h in helpers]
        for thread in threads:
            thread.start()
        work.here(host)
        for thread in threads:
            thread.join()
        work.here(host)  # what a helper left undone
    return [work.done[n] for n in range(len(modules))]


class _Work:
    """Modules to compile, the longest first, and what has been made of them."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = modules
        self.left = sorted(range(len(modules)), key=lambda n: len(modules[n]))
        self.done: dict[int, bytes] = {}

    def here(self, host: Host) -> None:
        """Compiles in this process while there is something left."""
        while (n := self._next()) is not None:
            self.done[n] = compile_object(self.modules[n], host)

    def by(self, helper: subprocess.Popen[bytes]) -> None:
        """Has a helper compile; if it fails, its module is left to others."""
        assert helper.stdin is not None and helper.stdout is not None
        while (n := self._next()) is not None:
            made = None
            with suppress(OSError, ValueError):
                _send(helper.stdin, self.modules[n].encode())
                made = _receive(helper.stdout)
            if made is None:
                self.left.append(n)
                return
            self.done[n] = made

    def _next(self) -> int | None:
        try:
            return self.left.pop()
        except IndexError:
            return None


def _start(host: Host) -> subprocess.Popen[bytes] | None:
    """Starts a helper; None where there is no interpreter to start it with."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _START, str(root), json.dumps(asdict(host))]
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
    """Runs a helper: modules come in on standard input, object code goes out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    host = Host(**json.loads(sys.argv[2]))
    while (text := _receive(sys.stdin.buffer)) is not None:
        _send(sys.stdout.buffer, compile_object(text.decode(), host))


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(_HEAD.pack(_MARK, len(content)) + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """Returns the next message, None at the end of the stream or if it is something else."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(_MARK):
        return None
    _, size = _HEAD.unpack(head)
    content = stream.read(size)
    return content if len(content) == size else None


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
