"""Where a value of a spec stands: file, line, column."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a spec file; lines and columns count from 1.

    `text` is the whole source line, kept so that an error can show it without reading the file
    again (the file may be standard input or a string). It takes no part in comparison.
    """

    file: str
    line: int
    column: int
    length: int = 1
    text: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        if self.file.startswith("--"):  # an option's value: it is named by what was written
            return f"{self.file} {self.text}"
        return f"{self.file}:{self.line}:{self.column}"

    def excerpt(self, indent: str = "    ") -> str:
        """Returns the source line with a caret below the column, or "" where there is no text."""
        if not self.text.strip():
            return ""
        # A minified file may hold a whole net on one line: show a window around the column.
        start = max(0, self.column - 61) if len(self.text) > 120 else 0
        line = self.text[start : start + 120]
        gap = "".join("\t" if c == "\t" else " " for c in line[: self.column - 1 - start])
        return f"{indent}{line}\n{indent}{gap}^"
