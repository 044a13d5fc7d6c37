"""Cross-entropy losses beside SoftmaxWithLoss: sigmoid, weighted by a matrix, of probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.loss import Normalization, chosen, normalizer, one_label, pick
from compiler.layers.scope import Scope
from schemas.errors import SpecError

# Caffe clamps a probability here before it takes the logarithm.
LEAST_PROBABILITY = 1e-20


@layer("SigmoidCrossEntropyLoss")
@dataclass(frozen=True)
class SigmoidCrossEntropyLoss:
    """Sum of -t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)); the targets t may be soft.

    BATCH_SIZE divides by the extent of the first axis, VALID by the number of targets that count,
    FULL by all, NONE by 1.
    """

    ignore_label: int | None = option("a target that does not count", None)
    normalization: Normalization | None = option("what the sum is divided by (BATCH_SIZE)", None)
    normalize: bool | None = option("old form: true for VALID, false for BATCH_SIZE", None)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")
    deploy: ClassVar[str] = "Sigmoid"

    def build(self, scope: Scope, x: Node, target: Node) -> Node:
        same = x.type.size == target.type.size
        scope.need(same, "needs as many targets as scores")
        t = ops.reshape(target, x.shape)
        # Caffe's form, whose exponent is never positive; its slope is sigmoid(x) - t at 0, too.
        right = ops.lesseq(0.0, x)
        tail = ops.log(ops.add(ops.exp(ops.select(right, ops.neg(x), x)), 1.0))
        loss = ops.add(ops.sub(ops.select(right, x, 0.0), ops.mul(x, t)), tail)
        label = ops.cast(t, "i32")
        if self.ignore_label is not None:
            loss = ops.select(ops.equal(label, self.ignore_label), 0.0, loss)
        mode = chosen(self.normalization, self.normalize, "BATCH_SIZE")
        batch = x.shape[0] if x.shape else 1
        return ops.div(ops.sum_all(loss), normalizer(mode, label, batch, self.ignore_label))


@layer("InfogainLoss")
@dataclass(frozen=True)
class InfogainLoss:
    """Mean of -sum over classes of H[label, class] log(softmax(scores)[class]).

    H is the third bottom or the file `source`; the identity gives SoftmaxWithLoss. A second top
    gives the probabilities, without a gradient. What is shown stops at log(1e-20), the gradient of
    the loss never does.
    """

    source: str = option("file of H, where there is no third bottom", "")
    axis: int = option("the axis of the classes", 1)
    ignore_label: int | None = option("a label that does not count", None)
    normalization: Normalization | None = option("what the sum is divided by (VALID)", None)
    normalize: bool | None = option("old form: true for VALID, false for BATCH_SIZE", None)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")
    deploy: ClassVar[str] = "Softmax"

    def build(
        self, scope: Scope, scores: Node, label: Node, h: Node | None = None
    ) -> tuple[Node, ...]:
        axis = scope.axis(self.axis, scores.type.rank)
        label = one_label(scope, scores, label, axis)
        m = ops.stop(ops.max_(scores, (axis,)))
        shifted = ops.sub(scores, m)
        e = ops.exp(shifted)
        total = ops.sum_(e, (axis,))
        log_p = ops.sub(shifted, ops.log(total))
        shown = ops.maximum(log_p, math.log(LEAST_PROBABILITY))
        log_p = ops.add(log_p, ops.stop(ops.sub(shown, log_p)))
        rows = _rows(self._matrix(scope, scores.shape[axis], h), label, axis)
        loss = ops.neg(ops.sum_(ops.mul(rows, log_p), (axis,)))
        if self.ignore_label is not None:
            loss = ops.select(ops.equal(label, self.ignore_label), 0.0, loss)
        mode = chosen(self.normalization, self.normalize, "VALID")
        by = normalizer(mode, label, math.prod(label.shape[:axis]), self.ignore_label)
        mean = ops.div(ops.sum_all(loss), by)
        return (mean, ops.stop(ops.div(e, total))) if len(scope.tops) > 1 else (mean,)

    def _matrix(self, scope: Scope, classes: int, h: Node | None) -> Node:
        shape = (classes, classes)
        if h is not None:
            scope.need(h.type.size == classes**2, f"needs a third bottom of {shape}")
            return ops.reshape(h, shape)
        if not self.source:
            hint = "give H as a third bottom, or its file as 'source'"
            scope.error("has no infogain matrix", hint=hint, kind=SpecError)
        return scope.table("infogain", shape, self.source)


def _rows(h: Node, label: Node, axis: int) -> Node:
    """Returns H[label, :] with the classes along `axis`."""
    rows = ops.gather(h, ops.reshape(label, label.shape[:axis] + label.shape[axis + 1 :]), 0)
    last = rows.type.rank - 1
    return ops.transpose(rows, (*range(axis), last, *range(axis, last)))


@layer("MultinomialLogisticLoss")
@dataclass(frozen=True)
class MultinomialLogisticLoss:
    """Mean of -log(probability of the label); the first bottom holds probabilities."""

    def build(self, scope: Scope, p: Node, label: Node) -> Node:
        scope.need(p.type.rank >= 2, "needs a first bottom (N, classes, ...)")
        n = p.shape[0]
        p = ops.reshape(p, (n, math.prod(p.shape[1:])))
        mine = pick(p, one_label(scope, p, label, 1), 1)
        # Held off zero, but not for the gradient: it is -1 / p of what is held there, as in Caffe.
        mine = ops.add(mine, ops.stop(ops.sub(ops.maximum(mine, LEAST_PROBABILITY), mine)))
        return ops.div(ops.sum_all(ops.neg(ops.log(mine))), float(n))
