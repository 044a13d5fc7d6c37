"""Layers that work on sequences (T, N, ...) as such: SequenceMask."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.fields import option
from compiler.layers.scope import Scope


@layer("SequenceMask")
@dataclass(frozen=True)
class SequenceMask:
    """A sequence (T, N, ...) with `fill` from step length[n] on; the second bottom is length (N).

    fill: -1 on labels, with ignore_label: -1 in the loss, leaves those steps out.
    """

    fill: float = option("what stands beyond the length", 0.0)

    def build(self, scope: Scope, x: Node, length: Node) -> Node:
        scope.need(x.type.rank >= 2, "its first bottom must be a sequence (T, N, ...)")
        count = x.shape[1]
        scope.need(length.type.size == count, "needs one length for each sequence")
        ends = ops.reshape(ops.cast(length, "i32"), (1, count, *[1] * (x.type.rank - 2)))
        return ops.select(ops.less(ops.iota(x.shape, 0), ends), x, self.fill)
