"""Losses and measures: softmax, classification and regression losses, accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.fields import option
from compiler.layers.scope import Scope

# Caffe clamps a probability at FLT_MIN before it takes the logarithm.
LARGEST_LOSS = 126 * math.log(2)

Normalization = Literal["FULL", "VALID", "BATCH_SIZE", "NONE"]


@layer("Softmax")
@dataclass(frozen=True)
class Softmax:
    """exp(x) / sum(exp(x)) along an axis."""

    axis: int = option("the axis whose elements sum to 1", 1)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> Node:
        axis = scope.axis(self.axis, x.type.rank)
        # The maximum only keeps exp in range: it cancels, so no gradient goes through it.
        e = ops.exp(ops.sub(x, ops.stop(ops.max_(x, (axis,)))))
        return ops.div(e, ops.sum_(e, (axis,)))


@layer("SoftmaxWithLoss")
@dataclass(frozen=True)
class SoftmaxWithLoss:
    """Mean of -log(softmax(scores)[label]); a second top gives the probabilities, to look at.

    VALID divides by the number of labels that count, FULL by all, BATCH_SIZE by the product of the
    axes before `axis`, NONE by 1. The shown loss of one label stops at 87.34, its gradient never.
    No gradient goes through the second top.
    """

    axis: int = option("the axis of the classes", 1)
    ignore_label: int | None = option("a label that does not count", None)
    normalization: Normalization | None = option("what the sum is divided by (VALID)", None)
    normalize: bool | None = option("old form: true for VALID, false for BATCH_SIZE", None)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")
    deploy: ClassVar[str] = "Softmax"

    def build(self, scope: Scope, scores: Node, label: Node) -> tuple[Node, ...]:
        axis = scope.axis(self.axis, scores.type.rank)
        label = one_label(scope, scores, label, axis)
        m = ops.stop(ops.max_(scores, (axis,)))
        e = ops.exp(ops.sub(scores, m))
        total = ops.sum_(e, (axis,))
        loss = ops.sub(ops.add(ops.log(total), m), pick(scores, label, axis))
        loss = ops.add(loss, ops.stop(ops.sub(ops.minimum(loss, LARGEST_LOSS), loss)))
        if self.ignore_label is not None:
            loss = ops.select(ops.equal(label, self.ignore_label), 0.0, loss)
        mode = chosen(self.normalization, self.normalize, "VALID")
        by = normalizer(mode, label, math.prod(label.shape[:axis]), self.ignore_label)
        mean = ops.div(ops.sum_all(loss), by)
        return (mean, ops.stop(ops.div(e, total))) if len(scope.tops) > 1 else (mean,)


@layer("EuclideanLoss")
@dataclass(frozen=True)
class EuclideanLoss:
    """sum((a - b) ** 2) / (2 N), N the extent of the first axis."""

    def build(self, scope: Scope, a: Node, b: Node) -> Node:
        same = a.type.size == b.type.size and a.shape[:1] == b.shape[:1]
        scope.need(same, "its bottoms must have the same shape")
        d = ops.sub(a, ops.reshape(b, a.shape))
        return ops.div(ops.sum_all(ops.mul(d, d)), 2.0 * (a.shape[0] if a.shape else 1))


@layer("Accuracy")
@dataclass(frozen=True)
class Accuracy:
    """Share of the labels whose score is among the top_k; equal scores count as higher ones.

    A second top gives the share within each class. There is no gradient.
    """

    top_k: int = option("a label counts as found among this many highest scores", 1, low=1)
    axis: int = option("the axis of the classes", 1)
    ignore_label: int | None = option("a label that does not count", None)

    def build(self, scope: Scope, scores: Node, label: Node) -> tuple[Node, ...]:
        axis = scope.axis(self.axis, scores.type.rank)
        if self.top_k > scores.shape[axis]:
            scope.need(False, f"top_k {self.top_k} is more than the classes", "top_k")
        label = one_label(scope, scores, label, axis)
        rank = ops.sum_(
            ops.select(ops.lesseq(pick(scores, label, axis), scores), 1.0, 0.0), (axis,)
        )
        counted = ops.select(ops.lesseq(rank, float(self.top_k)), 1.0, 0.0)
        valid = ops.broadcast(ops.const(1.0), label.shape)
        if self.ignore_label is not None:
            valid = ops.select(ops.equal(label, self.ignore_label), 0.0, 1.0)
            counted = ops.mul(counted, valid)
        share = ops.div(ops.sum_all(counted), ops.maximum(ops.sum_all(valid), 1.0))
        if len(scope.tops) < 2:
            return (share,)
        here = ops.select(is_label(scores, label, axis), valid, 0.0)
        others = tuple(i for i in range(scores.type.rank) if i != axis)
        right, all_ = (ops.sum_(n, others) for n in (ops.mul(here, counted), here))
        shares = ops.div(right, ops.maximum(all_, 1.0))
        return share, ops.reshape(shares, (scores.shape[axis],))


def chosen(given: Normalization | None, old: bool | None, default: Normalization) -> Normalization:
    """Returns what a loss is divided by: the field, its old form `normalize`, or the default."""
    if given is not None or old is None:
        return given or default
    return "VALID" if old else "BATCH_SIZE"


def normalizer(mode: Normalization, label: Node, batch: int, ignored: int | None) -> Node | float:
    """Returns the number, 1 at least, that a sum over all labels (i32) is divided by."""
    if mode == "NONE":
        return 1.0
    if mode == "BATCH_SIZE":
        return max(1.0, float(batch))
    if mode == "FULL" or ignored is None:
        return max(1.0, float(label.type.size))
    counted = ops.select(ops.equal(label, ignored), 0.0, 1.0)
    return ops.maximum(ops.sum_all(counted), 1.0)


def one_label(scope: Scope, scores: Node, label: Node, axis: int) -> Node:
    """Returns the labels as i32, shaped like the scores with 1 for the classes."""
    shape = tuple(1 if i == axis else n for i, n in enumerate(scores.shape))
    count = math.prod(shape)
    hint = f"a label for each score but those along axis {axis}: {shape[:axis] + shape[axis + 1 :]}"
    scope.need(label.type.size == count, f"needs {count} labels, not {label.type.size}", hint=hint)
    return ops.reshape(ops.cast(label, "i32"), shape)


def is_label(scores: Node, label: Node, axis: int) -> Node:
    """Returns whether each score is that of the label."""
    return ops.equal(ops.iota(scores.shape, axis), label)


def pick(scores: Node, label: Node, axis: int) -> Node:
    """Returns the score of the label; a sum of one term, so that it needs no gather."""
    return ops.sum_(ops.select(is_label(scores, label, axis), scores, 0.0), (axis,))
