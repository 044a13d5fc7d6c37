"""Prints tables, numbers and JSON: boxes on a terminal, plain text elsewhere."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from schemas.program import Program

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def own_name() -> str:
    """Returns the word that calls netdef from here, so that a printed command can be pasted back.

    That is `netdef` where the shell finds it, else the path it was called by (`.venv/bin/netdef`).
    """
    called = Path(sys.argv[0])
    if not called.name.startswith("netdef") or not called.exists():
        return "netdef"  # a test, or another program
    found = shutil.which("netdef")
    if found is not None and Path(found).resolve() == called.resolve():
        return "netdef"
    here = Path.cwd()
    return str(called.relative_to(here)) if called.is_relative_to(here) else str(called)


def launches(program: Program) -> str:
    """Returns `15 launches`; with loops over time `16 launches (261 with every time step)`."""
    count, whole = len(program.launches), sum(1 for _ in program.runs())
    return amount(count, "launch") + (f" ({whole} with every time step)" if whole > count else "")


def print_json(document: Any) -> None:
    """Prints one JSON document."""
    print(json_text(document), end="")


def json_text(document: Any) -> str:
    """Returns a JSON document; NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_plain(document), indent=1, allow_nan=False) + "\n"


def check_ending(path: str, ending: str) -> None:
    """Raises UsageError for a name that ends otherwise: a net's, say, which would be lost."""
    from schemas.errors import UsageError

    if Path(path).suffix.lower() != ending:
        hint = f"give a name that ends in {ending}"
        raise UsageError(f"'{path}' is no name for what is written", hint=hint)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file whole, with the folders it needs. Raises UsageError."""
    from runtime.files import write_whole
    from schemas.errors import UsageError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from None


def print_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] | None = None,
    right: Sequence[str] = (),
) -> None:
    """Prints rows under heads; the columns named in `right` are numbers and stand to the right."""
    if sys.stdout.isatty():
        _rich_table(heads, rows, total, right)
        return
    lines = [list(heads), *map(list, rows), *([list(total)] if total else [])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for number, line in enumerate(lines):
        if total and number == len(lines) - 1:
            print("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = (
            cell.rjust(width) if head in right else cell.ljust(width)
            for cell, width, head in zip(line, widths, heads, strict=True)
        )
        print("  ".join(cells).rstrip())


def _rich_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] | None,
    right: Sequence[str],
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, show_footer=total is not None, show_edge=False, padding=(0, 1, 0, 0)
    )
    for i, head in enumerate(heads):
        foot = Text(total[i] if total else "", style="bold")
        side: Literal["left", "right"] = "right" if head in right else "left"
        table.add_column(head, foot, justify=side, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: names may hold [brackets]
    Console().print(table)


def count(number: int) -> str:
    """Returns 431080 as 431,080."""
    return f"{number:,}"


def short(number: int) -> str:
    """Returns a number to three digits: 850, 61.0 M, 3.86 G."""
    for power, unit in ((12, " T"), (9, " G"), (6, " M"), (3, " k")):
        if number >= 10**power:
            value = number / 10**power
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}{unit}"
    return str(number)


def amount(number: int, noun: str) -> str:
    """Returns `1 layer`, `9 layers`, `2 launches`."""
    end = "es" if noun.endswith(("ch", "sh", "ss")) else "s"
    return f"{number:,} {noun}{end * (number != 1)}"


def size(nbytes: float) -> str:
    """Returns a number of bytes in the unit that suits it: 1.6 MiB."""
    unit = 0
    while abs(nbytes) >= 1024 and unit < len(UNITS) - 1:
        nbytes /= 1024
        unit += 1
    return f"{nbytes:.0f} B" if unit == 0 else f"{nbytes:.1f} {UNITS[unit]}"


def seconds(value: float) -> str:
    """Returns a duration as one would say it: 0.42 s, 12.3 s, 3 min 20 s, 2 h 5 min."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    minutes = round(value / 60) if value >= 3600 else int(value / 60)
    if value < 3600:
        return f"{minutes} min {value - 60 * minutes:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape as 64x20x24x24; a single number as `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
