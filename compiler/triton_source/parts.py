"""Sums whose parts several programs make: the last of them to finish adds the parts up.

That costs no launch of its own, and no program waits for another. The parts are added in their
order, whoever does it, so that results do not depend on which program is the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compiler.kernel import Parts
from compiler.triton_source.emit import Emitter
from compiler.triton_source.function import ARRIVALS


@contextmanager
def last(em: Emitter, parts: Parts, tiles: int) -> Iterator[None]:
    """What is emitted inside, only the last of the programs with parts of one tile does.

    Programs make the first parts of all `tiles`, then the second ones, and so on.
    """
    em.helpers.add("last")
    pointer, _ = em.pointer(ARRIVALS, "i32")
    tile = f"{pointer} + pid % {tiles}" if tiles > 1 else pointer
    with em.loop(f"if last({tile}, {parts.count}):"):
        yield
