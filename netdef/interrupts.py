"""Ctrl-C ends a command within a second, whatever it is doing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_GRACE = 0.7  # seconds in which a command may end by itself
_AGAIN = 0.02  # seconds after which an interrupt that nobody heard is raised again


def watch() -> None:
    """Ends the process soon after Ctrl-C, should it not end by itself.

    Python raises KeyboardInterrupt between two instructions: late, if one of them is a long native
    call, and in vain, if they are of a callback whose exceptions nobody hears (the clearing of a
    weak reference).
    """
    sys.unraisablehook = _unheard
    if os.name == "nt":  # where a pipe cannot be told of signals
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader,), name="netdef-interrupts", daemon=True).start()


def _wait(reader: int) -> None:
    count = 0
    while True:
        count += os.read(reader, 1)[0] == signal.SIGINT
        # What has a handler of its own ends in its own time (runtime/signals.py), but only once.
        if count > 1 or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            _wait_for_the_end()
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # it is not about to end
                os.write(2, b"interrupted\n")
                os._exit(INTERRUPTED)


def _wait_for_the_end() -> None:
    """Waits for the grace, without the time in which others have the processors."""
    begun = time.monotonic() - _kept_waiting()
    while time.monotonic() - _kept_waiting() < begun + _GRACE:
        time.sleep(0.05)


def _kept_waiting() -> float:
    """Returns how long the main thread has waited for a processor, where the system tells it."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


def _unheard(args: UnraisableHookArgs) -> None:
    if not issubclass(args.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(args)
    elif os.name != "nt":  # so that the work is left, and closes what it has open
        words = threading.main_thread().ident, signal.SIGINT
        again = threading.Timer(_AGAIN, signal.pthread_kill, words)
        again.daemon = True
        again.start()
