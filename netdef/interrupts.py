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
            time.sleep(_GRACE)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # it is not about to end
                os.write(2, b"interrupted\n")
                os._exit(INTERRUPTED)


def _unheard(args: UnraisableHookArgs) -> None:
    if not issubclass(args.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(args)
