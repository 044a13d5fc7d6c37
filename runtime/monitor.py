"""Monitor: what a run shows and records: metrics, log lines, a progress bar."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runtime.files import write_whole
from schemas.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

METRICS = "metrics.jsonl"
Outputs = Mapping[str, float | list[float]]


def new_run_folder(net: str, name: str | None = None, root: Path = Path("runs")) -> Path:
    """Makes a folder for one run: ROOT/NAME, or ROOT/NET-DATE-TIME without a name.

    Raises UsageError if a run with this name has already recorded something there.
    """
    stem = name or re.sub(r"[^\w.-]+", "_", net) + time.strftime("-%Y%m%d-%H%M%S")
    folder = root / stem
    count = 1
    while name is None and folder.exists():  # two runs within one second
        count += 1
        folder = root / f"{stem}-{count}"
    if (folder / METRICS).exists():
        hint = "choose another name, or --resume one of its snapshots"
        raise UsageError(f"there is already a run in {folder}", hint=hint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror or error}") from None
    return folder


class Monitor:
    """Shows the progress of training and keeps its metrics in FOLDER/metrics.jsonl.

    On a terminal there is a progress bar, with test results printed above it; elsewhere one plain
    line for each displayed iteration and each test. `quiet` shows nothing. Without a folder nothing
    is recorded. Nothing is written before something happens.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        quiet: bool = False,
        stream: IO[str] | None = None,
        bar: bool | None = None,
    ) -> None:
        self.folder = folder
        self.lines = 0  # recorded so far
        self._quiet = quiet
        self._stream = stream
        self._progress: Progress | None = None
        self._wants_bar = (stream or sys.stdout).isatty() if bar is None else bar

    def write_config(self, config: Mapping[str, Any], name: str = "solver.json") -> None:
        """Records the resolved configuration of the run."""
        if self.folder is not None:
            write_whole(self.folder / name, (json.dumps(config, indent=1) + "\n").encode())

    def start(self, iteration: int, total: int) -> None:
        """Begins to show progress from `iteration` to `total`."""
        if self._quiet or not self._wants_bar or self._progress is not None:
            return
        # Only for a terminal: it takes a tenth of a short run to load.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
        )
        self._task = self._progress.add_task("train", total=total, completed=iteration, news="")
        self._progress.start()

    @property
    def live(self) -> bool:
        """Returns whether there is a bar that wants to hear of every step."""
        return self._progress is not None

    def advance(self, iteration: int) -> None:
        """Moves the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=iteration)

    def train(
        self,
        iteration: int,
        loss: float,
        rate: float,
        speed: float | None,
        outputs: Outputs,
    ) -> None:
        """Shows and records a displayed iteration; `speed` is in iterations per second."""
        self._record(
            {
                "phase": "TRAIN",
                "iteration": iteration,
                "loss": loss,
                "lr": rate,
                "iterations_per_second": speed,
                "outputs": dict(outputs),
            }
        )
        pace = "" if speed is None else f", {_pace(speed)} it/s"
        # A net with one output has its loss there: no need to say it twice.
        more = f", {_listed(outputs)}" if len(outputs) > 1 else ""
        if self._progress is not None:
            news = f"loss = {loss:.4g}, lr = {rate:.4g}{pace}"
            self._progress.update(self._task, completed=iteration, news=news)
        else:
            self.note(f"Iteration {iteration}, loss = {loss:.6g}, lr = {rate:.6g}{pace}{more}")

    def test(self, iteration: int, net: int, outputs: Outputs) -> None:
        """Shows and records the mean outputs of a test net."""
        self._record(
            {"phase": "TEST", "iteration": iteration, "net": net, "outputs": dict(outputs)}
        )
        which = f"test #{net}" if net else "test"
        self.note(f"Iteration {iteration}, {which} {_listed(outputs)}")

    def note(self, text: str) -> None:
        """Shows a line."""
        if self._quiet:
            return
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:  # sys.stdout is looked up now: it may have been replaced since
            print(text, file=self._stream or sys.stdout, flush=True)

    def rewind(self, iteration: int) -> None:
        """Cuts the metrics of `iteration` and later, which a resumed run will record again."""
        path = self.folder / METRICS if self.folder else None
        if path is None or not path.exists():
            return
        kept = [line for line in path.read_bytes().splitlines() if _before(line, iteration)]
        write_whole(path, b"".join(line + b"\n" for line in kept))
        self.lines = len(kept)

    def close(self) -> None:
        """Ends the progress bar; `start` begins another."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _record(self, fields: Mapping[str, Any]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(fields), allow_nan=False) + "\n")
        self.lines += 1


def _finite(value: Any) -> Any:
    """Returns JSON data with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _before(line: bytes, iteration: int) -> bool:
    """Returns whether a line of metrics is whole and of an earlier iteration."""
    try:
        return int(json.loads(line)["iteration"]) < iteration
    except (ValueError, KeyError, TypeError):  # cut short by a crash
        return False


def _listed(outputs: Outputs) -> str:
    return ", ".join(f"{name} = {_number(value)}" for name, value in outputs.items())


def _number(value: float | list[float]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f"{x:.4g}" for x in value) + "]"
    return f"{value:.4g}"


def _pace(speed: float) -> str:
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"
