"""Time from process start to the end of the first training step."""

from __future__ import annotations

import compileall
import site
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.cases import ROOT, case_of, rates
from bench.measure import Say
from bench.peer import Job
from bench.plain_net import plain_net
from bench.side import LeftOut, Side

COLUMNS = ("net", "peer", "cold s", "warm s", "min-max", "resident MB")
ROOMS = ("bench", "compiler", "netdef", "runtime", "schemas")
# What decides where netdef (in the home folder), Triton and PyTorch's compiler keep their caches.
CACHES = ("HOME", "USERPROFILE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


@dataclass(slots=True)
class Startup:
    """One peer on one net: the first run with empty caches, then runs with what it left."""

    net: str
    peer: str
    cold: float
    warm: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    def plain(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {name: getattr(self, name) for name in Startup.__dataclass_fields__}


def measure(
    nets: Sequence[str], peers: Sequence[str], threads: int, rounds: int, say: Say
) -> list[Startup]:
    """Starts each peer on each net with empty caches, then `rounds` times with full ones.

    netdef has bytecode, as an installed package has, even where Python is told to write none. The
    system's page cache is warm in all of them after the first.
    """
    for room in ROOMS:
        compileall.compile_dir(ROOT / room, quiet=1)
    found = []
    for net in nets:
        case = case_of(net)
        layers = plain_net(case, "train")
        for peer in peers:
            job = Job(peer, case, "train", threads, rates=rates(case), layers=layers)
            with tempfile.TemporaryDirectory() as folder:
                env = {name: f"{folder}/{name.lower()}" for name in CACHES}
                env["PYTHONUSERBASE"] = site.getuserbase()  # packages in the true home folder
                try:
                    cold, _ = _once(job, env)
                    runs = [_once(job, env) for _ in range(rounds)]
                except LeftOut as reason:
                    say(f"{net}: {peer} is left out: {reason}")
                    continue
            found.append(Startup(net, peer, cold, [s for s, _ in runs], runs[-1][1]))
    return found


def _once(job: Job, env: dict[str, str]) -> tuple[float, int | None]:
    side = Side(job, env)
    try:
        return side.first_step_s, side.ask("facts")["peak_bytes"]
    finally:
        side.stop()


def as_rows(found: Sequence[Startup]) -> list[tuple[str, ...]]:
    """Returns the table's rows."""
    return [
        (
            one.net,
            one.peer,
            f"{one.cold:.2f}",
            f"{statistics.median(one.warm):.2f}" if one.warm else "",
            f"{min(one.warm):.2f}-{max(one.warm):.2f}" if one.warm else "",
            f"{one.peak_bytes / 2**20:,.0f}" if one.peak_bytes else "",
        )
        for one in found
    ]
