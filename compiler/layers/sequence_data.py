"""Data layers of sequences, (T, N, ...): text, and tasks with known answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.data import tops
from compiler.layers.fields import option
from compiler.layers.scope import Scope, Shape

STEPS = 50  # of a batch of text, in a net without `unroll`
SIZE = "number of sequences in a batch"


@layer("TextData")
@dataclass(frozen=True)
class TextData:
    """Characters of a text as numbers (T, N), the next of each as labels, marks of the beginning.

    Each of the N sequences goes on where it stood in the batch before, so that a carried state
    fits; marks are 0 where one begins anew, else 1. There are 98 classes: 0 any other character,
    1 the tab, 2 the line feed, 3 to 97 the printable ASCII ones. TEST reads the last tenth.
    """

    batch_size: int = option(SIZE, low=1)
    source: str = option("a text file, a folder of them, or stdlib: Python's own library", "stdlib")
    steps: int | None = option("time steps of a batch (the net's unroll, else 50)", None, low=1)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 3)
        steps = self.steps or scope.graph.spec.unroll or STEPS
        shapes = ((steps, self.batch_size),) * len(scope.tops)
        return scope.feed({**asdict(self), "steps": steps}, shapes)


@layer("AddingData")
@dataclass(frozen=True)
class AddingData:
    """Sequences (T, N, 2) of numbers from 0 to 1 and marks; labels (N, 1): the two marked, added.

    One mark is in the first half, one in the second (Hochreiter and Schmidhuber 1997). A third top
    is the length (N) of each sequence; beyond it there are zeros.
    """

    batch_size: int = option(SIZE, low=1)
    steps: int = option("length of the longest sequence", low=2)
    min_steps: int | None = option("length of the shortest sequence (steps)", None, low=2)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 3)
        least = self.steps if self.min_steps is None else self.min_steps
        if least > self.steps:
            scope.error(f"min_steps {least} is more than steps {self.steps}", "min_steps")
        n = self.batch_size
        shapes = with_label(scope, (self.steps, n, 2), (n, 1), (n,))
        return scope.feed({**asdict(self), "min_steps": least}, shapes)


@layer("CopyData")
@dataclass(frozen=True)
class CopyData:
    """Symbols (T, N) to be remembered and, after a delay, to be repeated; T = 2 symbols + delay.

    Classes: 0 is a blank, 1 to `alphabet` are symbols, the next one is the sign to begin, the last
    input before the answer. Labels (T, N) are blank up to there (Arjovsky et al. 2016).
    """

    batch_size: int = option(SIZE, low=1)
    delay: int = option("steps between the last symbol and the answer", low=1)
    symbols: int = option("how many symbols are to be remembered", 10, low=1)
    alphabet: int = option("how many different symbols there are", 8, low=1)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 2)
        shape = (2 * self.symbols + self.delay, self.batch_size)
        return scope.feed(asdict(self), with_label(scope, shape, shape))


@layer("CurveData")
@dataclass(frozen=True)
class CurveData:
    """Pairs of curves like signatures (N, 4, T); labels (N) are 1 for two of the same hand, else 0.

    The channels are x and y of one curve, then of the other. Curves of the same hand differ in
    speed, size, slant and noise; in the other pairs one is a forgery, of a similar but other form.
    """

    batch_size: int = option("number of pairs in a batch", low=1)
    steps: int = option("points of a curve", low=2)

    def build(self, scope: Scope) -> tuple[Node, ...]:
        tops(scope, 1, 2)
        n = self.batch_size
        return scope.feed(asdict(self), with_label(scope, (n, 4, self.steps), (n,)))


def with_label(scope: Scope, data: Shape, label: Shape, *more: Shape) -> tuple[Shape, ...]:
    """Returns the shapes of the tops; without the label's in a net for use."""
    shapes = (data, *more) if scope.deploy else (data, label, *more)
    return shapes[: len(scope.tops)]
