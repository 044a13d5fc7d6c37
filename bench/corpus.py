"""Checks a folder of real prototxt files and counts what passes and what does not."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from netdef.cli.checking import judge

# What a file may need that is not the fault of reading it.
_UNSUPPORTED = (
    (re.compile(r"unknown layer type '([^']*)'"), "type {}"),
    (re.compile(r"unknown field '([^']*)'"), "field {}"),
)


@dataclass
class Tally:
    """What became of the files, by path."""

    passed: list[Path] = field(default_factory=list)
    unsupported: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    crashed: dict[Path, str] = field(default_factory=dict)
    seconds: float = 0.0


def check_corpus(root: Path) -> Tally:
    """Runs `netdef check` over every net and solver below a folder."""
    tally = Tally()
    begun = time.perf_counter()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".prototxt", ".pt")):
        try:
            verdict = judge(str(path), {})
        except Exception:  # a bug of ours: that is what this is to find
            tally.crashed[path] = traceback.format_exc()
            continue
        if not verdict.errors:
            tally.passed.append(path)
            continue
        texts = [f"{e.message} {e.hint or ''}" for e in verdict.errors]
        reasons = [_reason(text) for text in texts]
        if any(r is None for r in reasons):
            tally.failed[path] = texts[reasons.index(None)]
        else:
            tally.unsupported[path] = tuple(sorted({r for r in reasons if r is not None}))
    tally.seconds = time.perf_counter() - begun
    return tally


def _reason(text: str) -> str | None:
    for pattern, name in _UNSUPPORTED:
        if (match := pattern.search(text)) is not None:
            return name.format(*match.groups())
    return None


def report(tally: Tally, root: Path) -> str:
    """Returns the table: counts, then which types and fields are missing how often."""
    counts = {
        "pass": len(tally.passed),
        "unsupported": len(tally.unsupported),
        "fail": len(tally.failed),
        "traceback": len(tally.crashed),
    }
    lines = [f"{name:12} {count:5}" for name, count in counts.items()]
    lines.append(f"{'all':12} {sum(counts.values()):5} in {tally.seconds:.1f} s")
    missing = Counter(reason for reasons in tally.unsupported.values() for reason in reasons)
    lines += ["", "unsupported, files:"]
    lines += [f"{count:5}  {reason}" for reason, count in missing.most_common()]
    if tally.failed:
        lines += ["", "failed:"]
        lines += [f"  {path.relative_to(root)}: {why}" for path, why in tally.failed.items()]
    lines += [f"  {path}:\n{trace}" for path, trace in tally.crashed.items()]
    return "\n".join(lines)
