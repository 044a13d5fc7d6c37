"""Sums whose parts several programs make: the last of them to finish adds the parts up.

That costs no launch of its own, and no program waits for another. The parts are added in their
order, whoever does it, so that results do not depend on which program is the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compiler.triton_source.emit import Emitter
from compiler.triton_source.function import ARRIVALS


@contextmanager
def last(em: Emitter, count: int, tile: str) -> Iterator[None]:
    """What is emitted inside, only the last of the `count` programs with parts of one tile does.

    What it loads it loads then: the others' parts are not there before.
    """
    em.helpers.add("last")
    pointer, _ = em.pointer(ARRIVALS, "i32")
    with em.loop(f"if last({pointer} + {tile}, {count}):"):
        outside, em.earliest = em.earliest, em.level
        yield
        em.earliest = outside
