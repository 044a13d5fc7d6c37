"""Several sources of one executable stay in step."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from runtime.data import Source
from runtime.executable import Array
from runtime.feeder import Feeder
from schemas.params import Feed
from tests.runtime.fake import FakeExecutable, feed_of


class Counting:
    """The batch's number everywhere; the batch `bad` cannot be read, the first time."""

    constant: frozenset[str] = frozenset()

    def __init__(self, feed: Feed, bad: int | None) -> None:
        self.shapes = dict(zip(feed.tops, feed.shapes, strict=True))
        self.bad = bad

    def batch(self, index: int) -> dict[str, Array]:
        if index == self.bad:
            self.bad = None
            raise OSError("the disk is gone")
        return {top: np.full(shape, index, np.float32) for top, shape in self.shapes.items()}


@pytest.mark.parametrize("depth", [1, 4])
def test_where_one_source_raises_none_goes_on(depth: int) -> None:
    both = feed_of("TRAIN", prefetch=depth)
    image, label = (
        replace(both, layer=top, tops=(top,), shapes=(shape,))
        for top, shape in zip(both.tops, both.shapes, strict=True)
    )
    exe = FakeExecutable("step", both)
    exe.program = replace(exe.program, feeds=(image, label))

    def opener(feed: Feed, seed: int) -> Source:
        return Counting(feed, bad=1 if feed is label else None)

    feeder = Feeder(exe, 0, "train", opener)
    feeder.feed()
    with pytest.raises(OSError, match="gone"):
        feeder.feed()
    assert feeder.positions == {"train/data": 1, "train/label": 1}
    feeder.feed()
    assert exe.read("data").max() == exe.read("label").max() == 1
    feeder.close()


@pytest.mark.parametrize("constant, threads", [((), 1), (("data",), 1), (("data", "label"), 0)])
def test_what_never_changes_needs_no_thread(constant: tuple[str, ...], threads: int) -> None:
    class Constant(Counting):
        def __init__(self, feed: Feed) -> None:
            super().__init__(feed, None)
            self.constant = frozenset(constant)

    before = set(threading.enumerate())
    feed = feed_of("TRAIN")
    feeder = Feeder(FakeExecutable("step", feed), 0, "train", lambda feed, seed: Constant(feed))
    feeder.feed()
    assert len(set(threading.enumerate()) - before) == threads
    feeder.close()
