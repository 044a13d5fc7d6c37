"""Feeder: writes the next batch of every data layer to an executable."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from runtime.data import Prefetcher, Source, open_source
from runtime.executable import Executable
from schemas.params import Feed

Opener = Callable[[Feed, int], Source | None]


class Feeder:
    """The data sources of one executable, each with its own prefetch thread.

    Layers without a source (Input) give zeros: the caller may write over them. `role` (`train`,
    `test0`) begins the names of the positions.
    """

    def __init__(self, exe: Executable, seed: int, role: str, opener: Opener = open_source) -> None:
        self.exe = exe
        self._sources: dict[str, Prefetcher] = {}
        self._kept: frozenset[str] = frozenset()  # constant tops whose memory nothing overwrites
        self._written = False
        fed: set[str] = set()
        lasting = {slot.name for slot in exe.program.slots if slot.persistent}
        for feed in exe.program.feeds:
            source = opener(feed, seed)
            if source is None:
                continue
            # What the caller sets in between steps is what the next step reads; and what never
            # changes is there already.
            ahead = feed.type != "MemoryData" and not source.constant >= source.shapes.keys()
            depth = int(feed.options.get("prefetch") or 4) if ahead else 0
            self._sources[f"{role}/{feed.layer}"] = Prefetcher(source, depth=depth)
            tensors = exe.program.tensors
            self._kept |= {t for t in source.constant if tensors[t].slot in lasting}
            fed |= set(feed.tops)
        inputs = {n: t for n, t in exe.program.tensors.items() if t.role == "input"}
        self._blank = {n: np.zeros(t.shape) for n, t in inputs.items() if n not in fed}

    def feed(self) -> None:
        """Writes the next batch of each source to its tops, and zeros where there is none.

        Each time: within a step the memory of an input is used for other things, too. Where a
        source raises, all of them stay at their positions.
        """
        before = self.positions
        try:
            batches = [prefetcher.next() for prefetcher in self._sources.values()]
        except BaseException:
            self.seek(before)
            raise
        for top, zeros in self._blank.items():
            self.exe.write(top, zeros)
        for batch in batches:
            for top, array in batch.items():
                if not (self._written and top in self._kept):
                    self.exe.write(top, array)
        self._written = True

    def forget(self) -> None:
        """Makes the next `feed` write the constant tops again: another net may share the memory."""
        self._written = False

    @property
    def positions(self) -> dict[str, int]:
        """Returns the number of the next batch of each source."""
        return {name: prefetcher.position for name, prefetcher in self._sources.items()}

    def seek(self, positions: Mapping[str, int]) -> None:
        """Makes each source go on at its position; one that is not named stays where it is."""
        for name, prefetcher in self._sources.items():
            prefetcher.seek(positions.get(name, prefetcher.position))

    def close(self) -> None:
        """Stops the threads; `feed` would start them again."""
        for prefetcher in self._sources.values():
            prefetcher.close()
