"""Which kernel must run before which: by the buffers they write and read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from compiler.kernels.schedule import Work


class Dependence:
    """The order between kernels, which are numbered; merging two makes a new number.

    A kernel depends on the writers of what it reads. A kernel that writes `x'`, the new value of
    the persistent buffer `x`, also depends on every reader of the old value.
    """

    def __init__(self, kernels: Sequence[Work]) -> None:
        self.kernels: dict[int, Work] = {}
        self.reads: dict[int, set[str]] = {}
        self.writes: dict[int, set[str]] = {}
        self.kind: dict[int, str] = {}
        self.readers: dict[str, set[int]] = {}
        self.writers: dict[str, set[int]] = {}
        self._next = 0
        for kernel in kernels:
            self._add(kernel)
        # All that depends on a kernel, directly or not, as the bits of a number: merging keeps the
        # order between all others, so that these sets are kept up to date and never found anew.
        self._below: dict[int, int] = {}
        for i in reversed(self.order()):
            after = self.after(i)
            self._below[i] = reduce(or_, (self._below[j] | 1 << j for j in after), 0)

    def _add(self, kernel: Work) -> int:
        i = self._next
        self._next += 1
        self.kernels[i], self.kind[i] = kernel, kernel.kind
        self.reads[i], self.writes[i] = kernel.reads(), kernel.writes()
        for buffer in self.reads[i]:
            self.readers.setdefault(buffer, set()).add(i)
        for buffer in self.writes[i]:
            self.writers.setdefault(buffer, set()).add(i)
        return i

    def _remove(self, i: int) -> None:
        for buffer in self.reads.pop(i):
            self.readers[buffer].discard(i)
        for buffer in self.writes.pop(i):
            self.writers[buffer].discard(i)
        del self.kernels[i], self.kind[i]

    def data(self, i: int) -> set[int]:
        """Returns the kernels that read what kernel i writes."""
        found: set[int] = set()
        for buffer in self.writes[i]:
            found |= self.readers.get(buffer, set())
        return found - {i}

    def after(self, i: int) -> set[int]:
        """Returns the kernels that must directly follow kernel i: readers, and overwriters."""
        found = self.data(i)
        for buffer in self.reads[i]:
            found |= self.writers.get(f"{buffer}'", set())
        return found - {i}

    def order(self) -> list[int]:
        """Returns the numbers, each after what it depends on; asserts that there is no cycle."""
        after = {i: self.after(i) for i in self.kernels}
        missing = dict.fromkeys(self.kernels, 0)
        for readers in after.values():
            for j in readers:
                missing[j] += 1
        ready = [i for i, n in missing.items() if not n]
        done: list[int] = []
        while ready:
            i = ready.pop(0)
            done.append(i)
            for j in sorted(after[i]):
                missing[j] -= 1
                if not missing[j]:
                    ready.append(j)
        assert len(done) == len(self.kernels), "kernels depend on each other in a circle"
        return done

    def merge(self, i: int, j: int, merged: Work) -> int:
        """Puts one kernel in the place of two; returns its number."""
        gone = 1 << i | 1 << j
        below = (self._below.pop(i) | self._below.pop(j)) & ~gone
        self._remove(i)
        self._remove(j)
        number = self._add(merged)
        reached = below | 1 << number
        for k, old in self._below.items():
            if old & gone:
                self._below[k] = old & ~gone | reached
        self._below[number] = below
        return number

    def detour(self, i: int, j: int) -> bool:
        """Says whether a third kernel must run after kernel i and before kernel j."""
        return any(self._below[k] >> j & 1 for k in self.after(i) - {j})

    def connected(self, i: int, j: int) -> bool:
        """Says whether one of the two depends on the other."""
        return bool(self._below[i] >> j & 1 or self._below[j] >> i & 1)
