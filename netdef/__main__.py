"""The command `netdef`, which `python -m netdef` stands for, too."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from netdef.interrupts import INTERRUPTED, watch


def main() -> None:
    """Runs the command line and ends the process with its exit status."""
    # Until the command line is loaded, Ctrl-C ends the process: nothing is open that must be
    # closed, and an exception amid the imports would be shown as a traceback.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored (nohup)
    if ours:
        signal.signal(signal.SIGINT, _leave)
    from netdef.cli import cli

    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            watch()
        cli(prog_name="netdef")
    except KeyboardInterrupt:  # before or after the command itself, which reports it
        sys.exit(INTERRUPTED)
    finally:  # another one would end the end amid a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
