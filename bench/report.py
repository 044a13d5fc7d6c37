"""Shows comparisons as a table and writes them as JSON."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import OURS, Comparison, Result
from runtime.files import write_whole

COLUMNS = (
    "net", "mode", "precision", "batch", "peer", "ms", "min-max", "items/s", "GFLOP/s",
    "of ceiling", "of floor",
    "peak MB", "first step s", "difference", "netdef / best", "of minima",
)  # fmt: skip
Row = tuple[str, ...]


def rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """Returns the table: a row for each peer of each net."""
    return [_row(c, r) for c in comparisons for r in c.results if r.ms]


def _row(comparison: Comparison, result: Result) -> Row:
    gflop, ceiling = comparison.gflop, comparison.ceiling_gflops
    speed = gflop / result.median * 1e3 if gflop else None
    device = result.facts.get("device_bytes")
    memory = device if device is not None else result.peak_bytes
    ratio = minima = ""
    if result.peer == OURS and comparison.ratio:
        ratio = f"{statistics.median(comparison.ratio):.2f} ({comparison.best})"
        minima = f"{comparison.ratio_of_minima:.2f}"
    return (
        comparison.net,
        comparison.mode,
        comparison.precision,
        str(comparison.batch),
        result.peer,
        f"{result.median:.3g}",
        f"{min(result.ms):.3g}-{max(result.ms):.3g}",
        f"{comparison.batch / result.median * 1e3:,.0f}",
        f"{speed:,.0f}" if speed else "",
        f"{speed / ceiling:.0%}" if speed and ceiling else "",
        f"{comparison.floor_ms / result.median:.0%}" if comparison.floor_ms else "",
        f"{memory / 2**20:,.0f}" if memory else "",
        f"{result.first_step_s:.2f}",
        "" if result.difference is None else f"{result.difference:.0e}",
        ratio,
        minima,
    )


def show(table: Sequence[Row], columns: Row = COLUMNS, console: Console | None = None) -> None:
    """Prints a table: drawn by rich on a terminal, columns of plain text elsewhere."""
    console = console or Console(file=sys.stdout)
    if console.is_terminal:
        drawn = Table(*columns)
        for row in table:
            drawn.add_row(*row)
        console.print(drawn)
        return
    widths = [max(len(line[i]) for line in (columns, *table)) for i in range(len(columns))]
    for line in (columns, *table):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        console.file.write("  ".join(cells).rstrip() + "\n")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison as plain data: all rounds, and the medians of what they give."""
    plain = asdict(comparison)
    plain["gflop"], plain["floor_ms"] = comparison.gflop, comparison.floor_ms
    plain["ratio_median"] = statistics.median(comparison.ratio) if comparison.ratio else None
    for result, given in zip(plain["results"], comparison.results, strict=True):
        result["median_ms"] = given.median if given.ms else None
        if len(result["values"]) > 3:  # outputs are there to be compared, not to be kept
            result["values"] = []
    return plain


def from_json(plain: Mapping[str, Any]) -> Comparison:
    """Returns the comparison that `as_json` wrote."""
    known = {f.name: plain[f.name] for f in fields(Comparison)}
    of_result = [f.name for f in fields(Result)]
    known["results"] = [Result(**{n: one[n] for n in of_result}) for one in plain["results"]]
    return Comparison(**known)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a document; its folder is made if needed. Infinite differences become null.

    Who is killed meanwhile leaves the file as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(document), indent=1, allow_nan=False)
    write_whole(path, f"{text}\n".encode())


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value in (float("inf"), float("-inf")) or value != value:
        return None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
