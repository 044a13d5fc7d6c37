"""What every command ends with: messages, exit statuses, broken pipes."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from netdef.interrupts import INTERRUPTED
from schemas.errors import NetError, did_you_mean

MISTAKE = 2  # the user's; 1 is a bug of ours
SHOWN = 2  # warnings of a file, where they are not what was asked for


class Guarded(click.Group):
    """A group whose commands never show a traceback for a mistake of the user.

    A command returns its exit status, or None for 0. `homes` says where each is defined
    (MODULE:NAME), so that only the one that is called is loaded. They are listed in that order:
    the first thing to do first.
    """

    def __init__(self, *args: Any, homes: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.homes:
            return None
        module, _, name = self.homes[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(module), name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in self.homes:
            near = difflib.get_close_matches(args[0], self.homes, n=1)
            hint = f"did you mean 'netdef {near[0]}'?" if near else "'netdef --help' lists them"
            raise NetError(f"there is no command '{args[0]}'", hint=hint)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe is still caught
            return status
        except BrokenPipeError:  # which click would take for a failure
            return _closed_pipe()

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        warnings.showwarning = _show_warning
        _write_anything()
        try:
            status = super().main(*args, **kwargs)
        except NetError as error:
            status = report(error)
        except click.ClickException as error:
            status = _usage(error)
        except (click.Abort, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            status = INTERRUPTED
        except OSError as error:
            status = _system(error)
        except MemoryError:
            status = report(NetError("there is not enough memory"))
        except Exception:
            status = _bug()
        sys.exit(status if isinstance(status, int) else 0)


def _write_anything() -> None:
    """Lets names be printed that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def report(error: NetError) -> int:
    """Prints an error, and how many it was if it was several; returns the exit status."""
    print(error.render(), file=sys.stderr)
    count = len(error.flatten())
    if count > 1:
        print(f"{count} errors", file=sys.stderr)
    return MISTAKE


def warn(warnings: Iterable[NetError | str], file: str | None = None) -> int:
    """Prints each distinct warning once; returns how many there were.

    Of those of a `file` that is only to be shown, the first; `netdef check` has the others.
    """
    texts = (w if isinstance(w, NetError) else NetError(w) for w in warnings)
    distinct = list(dict.fromkeys(w.render("warning") for w in texts))
    first = distinct if file is None or len(distinct) <= SHOWN else distinct[:SHOWN]
    for text in first:
        print(text, file=sys.stderr)
    if len(first) < len(distinct):
        more = f"{len(distinct) - len(first)} more warnings"
        print(f"{more}: 'netdef check {file}' shows them\n", file=sys.stderr)
    return len(distinct)


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """Prints a warning of Python's as one of ours: where in our code it comes from helps nobody."""
    print(NetError(str(message)).render("warning"), file=sys.stderr)


def _usage(error: click.ClickException) -> int:
    """Prints click's complaint about arguments in our own form."""
    if isinstance(error, NoArgsIsHelpError):  # the help itself
        error.show()
        return MISTAKE
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "netdef"
    hint = f"'{path} --help' explains it"
    if isinstance(error, click.NoSuchOption):
        message = f"no such option '{error.option_name}'"
        hint = did_you_mean(error.option_name, error.possibilities or ()) or hint
    return report(NetError(message[:1].lower() + message[1:], hint=hint))


def _system(error: OSError) -> int:
    """Prints what the system refused: a full disk, a missing right."""
    if error.filename is None and error.errno is None:
        return _bug()
    about = f"'{error.filename}': " if error.filename is not None else ""
    return report(NetError(f"{about}{error.strerror or error}"))


def _closed_pipe() -> int:
    """The reader of our output is gone (`netdef layers | head`): end without a word."""
    # Python would write what is still buffered at exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + getattr(signal, "SIGPIPE", 13)


def _bug() -> int:
    print(
        "netdef failed; this is a bug in netdef, not in your files. "
        "Please report it with the lines below.\n",
        file=sys.stderr,
    )
    traceback.print_exc()
    return 1
