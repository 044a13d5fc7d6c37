"""Every mistake a user can make, as exceptions with a place and a hint.

    NetError                a user's mistake; the command line prints it and exits with 2
      SpecError             the text of a spec: syntax, wrong type, wrong value
        UnknownField        a field that nothing here reads; a lenient reader passes it over
      GraphError            how layers connect: missing bottom, duplicate top, cycle
        StageError          a layer reads what is made only in another phase or stage
      ShapeError            shapes that do not fit each other
      SourceError           a data source or weight file: missing, unreadable, wrong content
      Question              what data that is not here can tell, or code that may not run; no
                            mistake in a check, which assumes an answer or leaves out what follows
      ResourceError         a net larger than the machine
      SnapshotError         a snapshot that cannot be written or resumed
      BackendError          a backend, device or package that is not there
        PrecisionError      a precision that a backend does not compute in
      UsageError            an option or argument of the command line or the API
      NetErrors             several of the above, found in one stage

A bug of ours is an `assert` or a builtin exception, never a `NetError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from schemas.span import Span


class NetError(Exception):
    """A user's mistake: what is wrong, where, and what to do about it."""

    def __init__(self, message: str, span: Span | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.hint = hint

    def render(self, severity: str = "error") -> str:
        """Returns `FILE:LINE:COL: error: message`, the source line with a caret, and the hint."""
        place = f"{self.span}: " if self.span else ""
        lines = [f"{place}{severity}: {self.message}"]
        if self.span and (excerpt := self.span.excerpt()):
            lines.append(excerpt)
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()

    def flatten(self) -> tuple[NetError, ...]:
        """Returns the single errors this one stands for."""
        return (self,)


class SpecError(NetError):
    """The text of a spec is wrong."""


class UnknownField(SpecError):
    """A field that nothing here reads: a typing mistake, or another program's."""


class GraphError(NetError):
    """The layers of a net do not connect."""


class StageError(GraphError):
    """A layer reads what is made only in another phase or stage."""


class ShapeError(NetError):
    """Shapes do not fit each other."""


class SourceError(NetError):
    """A data source or a weight file cannot be used."""


class Question(NetError):
    """What data that is not here can tell, or code that may not run; asked in a check.

    `message` also says what the check assumes. `refusal` is the mistake where an answer is needed.
    """

    def __init__(
        self,
        message: str,
        span: Span | None = None,
        hint: str | None = None,
        refusal: NetError | None = None,
    ) -> None:
        super().__init__(message, span, hint)
        self.refusal = refusal or SourceError(message, span, hint)

    def render(self, severity: str = "error") -> str:
        return super().render("question")


class ResourceError(NetError):
    """The net does not fit the machine."""


class SnapshotError(NetError):
    """A snapshot cannot be written or resumed."""


class BackendError(NetError):
    """A backend, a device or an optional package is missing."""


class PrecisionError(BackendError):
    """A backend does not compute in the precision asked for."""


class UsageError(NetError):
    """An option or an argument is wrong."""


class NetErrors(NetError):
    """Several errors of one stage."""

    def __init__(self, errors: Sequence[NetError]) -> None:
        self.errors = tuple(e for error in errors for e in error.flatten())
        super().__init__(f"{len(self.errors)} errors")

    def render(self, severity: str = "error") -> str:
        return "\n".join(error.render(severity) for error in self.errors)

    def flatten(self) -> tuple[NetError, ...]:
        return self.errors


class Diagnostics:
    """Collects the errors and warnings of one stage, so that the user sees all of them at once.

    `lenient`: fields that nothing here reads are warnings.
    """

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient
        self.errors: list[NetError] = []
        self.warnings: list[NetError] = []

    def error(self, error: NetError) -> None:
        for one in error.flatten():
            passed = self.lenient and isinstance(one, UnknownField)
            (self.warnings if passed else self.errors).append(one)

    def warn(self, warning: NetError) -> None:
        self.warnings.append(warning)

    def raise_if_any(self) -> None:
        """Raises what was collected: the error itself if there is one, else `NetErrors`."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise NetErrors(self.errors)


def near(word: str, known: Iterable[str]) -> str | None:
    """Returns the known word that the user most likely meant, ignoring case, or None."""
    folded = {k.casefold(): k for k in known}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Returns `did you mean 'x'?`, or the known words if few, or None."""
    known = sorted(known)
    if (match := near(word, known)) is not None:
        return f"did you mean '{match}'?"
    return f"known: {', '.join(known)}" if 0 < len(known) <= 24 else None
