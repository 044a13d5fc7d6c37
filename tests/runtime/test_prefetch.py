"""Prefetcher: order, position, errors, and threads that end."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from runtime.data import Prefetcher
from runtime.executable import Array


class Counting:
    """Batch i holds i; batch `broken` cannot be made."""

    shapes = {"data": (1,)}
    constant: frozenset[str] = frozenset()

    def __init__(self, broken: int = -1) -> None:
        self.broken = broken
        self.made: list[int] = []

    def batch(self, index: int) -> dict[str, Array]:
        if index == self.broken:
            raise OSError("disk on fire")
        self.made.append(index)
        return {"data": np.array([index], np.float32)}


OTHERS: set[threading.Thread] = set()  # of tests before, whose nets are not closed yet


@pytest.fixture(autouse=True)
def _only_own_threads() -> None:
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


def threads() -> int:
    own = (t for t in threading.enumerate() if t not in OTHERS)
    return sum(t.name == "netdef-prefetch" for t in own)


def test_order_position_and_bound() -> None:
    source = Counting()
    with closing(Prefetcher(source, position=5, depth=3)) as ahead:
        assert threads() == 0 and ahead.position == 5  # starts when it is needed
        assert [int(ahead.next()["data"][0]) for _ in range(4)] == [5, 6, 7, 8]
        assert ahead.position == 9
        for _ in range(100):
            if len(source.made) == 4 + 3:
                break
            time.sleep(0.01)
        time.sleep(0.02)
        assert source.made == list(range(5, 12))  # 4 taken, 3 waiting
    assert threads() == 0


def test_seek() -> None:
    with closing(Prefetcher(Counting())) as ahead:
        ahead.next()
        ahead.seek(40)
        assert int(ahead.next()["data"][0]) == 40 and ahead.position == 41


def test_an_error_reaches_the_reader_in_its_turn() -> None:
    source = Counting(broken=2)
    ahead = Prefetcher(source, depth=8)
    assert [int(ahead.next()["data"][0]) for _ in range(2)] == [0, 1]
    for _ in range(2):  # and again, not a hang
        with pytest.raises(OSError, match="on fire"):
            ahead.next()
    assert ahead.position == 2 and threads() == 0
    source.broken = -1
    assert int(ahead.next()["data"][0]) == 2
    ahead.close()
    ahead.close()
    assert threads() == 0


def test_the_thread_is_woken_once_for_several_batches() -> None:
    source = Counting()
    with closing(Prefetcher(source, depth=4)) as ahead:
        for taken, made in ((1, 4), (2, 6), (3, 6), (4, 8)):
            ahead.next()
            for _ in range(100):
                if len(source.made) == made:
                    break
                time.sleep(0.01)
            time.sleep(0.02)
            assert source.made == list(range(made)) and ahead.position == taken
