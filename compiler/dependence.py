"""Which kernel must run before which: by the buffers they write and read."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.kernel import Kernel


class Dependence:
    """The order between kernels.

    A kernel depends on the writers of what it reads. A kernel that writes `x'`, the new value of
    the persistent buffer `x`, also depends on every reader of the old value.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = list(kernels)
        self.number = {id(k): i for i, k in enumerate(self.kernels)}
        writers: dict[str, list[int]] = {}
        readers: dict[str, list[int]] = {}
        for i, kernel in enumerate(self.kernels):
            for buffer in kernel.writes():
                writers.setdefault(buffer, []).append(i)
            for buffer in kernel.reads():
                readers.setdefault(buffer, []).append(i)
        self.after: list[set[int]] = [set() for _ in self.kernels]  # direct successors
        self.data: list[set[int]] = [set() for _ in self.kernels]  # successors that read its data
        for buffer, sources in writers.items():
            for source in sources:
                for reader in readers.get(buffer, ()):
                    if reader != source:
                        self.after[source].add(reader)
                        self.data[source].add(reader)
                if buffer.endswith("'"):
                    for reader in readers.get(buffer[:-1], ()):
                        if reader != source:
                            self.after[reader].add(source)
        self.before: list[set[int]] = [set() for _ in self.kernels]
        for i, successors in enumerate(self.after):
            for j in successors:
                self.before[j].add(i)
        self._reach: dict[int, set[int]] = {}

    def order(self) -> list[int]:
        """Returns kernel numbers, each after what it depends on; asserts that there is no cycle."""
        missing = [len(b) for b in self.before]
        ready = [i for i, n in enumerate(missing) if not n]
        done: list[int] = []
        while ready:
            i = ready.pop(0)
            done.append(i)
            for j in sorted(self.after[i]):
                missing[j] -= 1
                if not missing[j]:
                    ready.append(j)
        assert len(done) == len(self.kernels), "kernels depend on each other in a circle"
        return done

    def reach(self, i: int) -> set[int]:
        """Returns all kernels that depend on kernel i, directly or not."""
        if i not in self._reach:
            found: set[int] = set()
            stack = list(self.after[i])
            while stack:
                j = stack.pop()
                if j not in found:
                    found.add(j)
                    stack.extend(self.after[j])
            self._reach[i] = found
        return self._reach[i]

    def readers_of(self, kernel: Kernel) -> list[Kernel]:
        return [self.kernels[j] for j in sorted(self.data[self.number[id(kernel)]])]

    def detour(self, kernel: Kernel, other: Kernel) -> bool:
        """Says whether a third kernel must run after `kernel` and before `other`."""
        i, j = self.number[id(kernel)], self.number[id(other)]
        return any(j in self.reach(k) for k in self.after[i] if k != j)

    def connected(self, kernel: Kernel, other: Kernel) -> bool:
        """Says whether one of the two depends on the other."""
        i, j = self.number[id(kernel)], self.number[id(other)]
        return j in self.reach(i) or i in self.reach(j)
