"""The contraction: one labelled product-and-sum for every convolution and matrix product."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir.node import Node, TensorType
from compiler.prims.registry import Array, Env, Primitive, define, make


@dataclass(frozen=True)
class Slide:
    """Ties three labels of a convolution: place = out * stride + tap * dilation - pad.

    `place` runs over the image, `out` over the result, `tap` over the kernel. Which of the three
    is computed from the other two depends on where the labels stand: that is all that tells the
    forward pass from the data gradient and the weight gradient.
    """

    place: str
    out: str
    tap: str
    stride: int = 1
    dilation: int = 1
    pad: int = 0


@dataclass(frozen=True)
class Labels:
    """`a` and `b` are multiplied and summed over every label that `out` does not have.

    One letter an axis: "ngchw,gocij->ngoyx" with Slides (h,y,i) and (w,x,j) is a grouped
    convolution; "nk,ok->no" an inner product. `sizes` gives the extent of each label.
    """

    a: str
    b: str
    out: str
    sizes: tuple[tuple[str, int], ...]
    slides: tuple[Slide, ...] = ()

    def size(self, label: str) -> int:
        return dict(self.sizes)[label]

    def shape(self, labels: str) -> tuple[int, ...]:
        sizes = dict(self.sizes)
        return tuple(sizes[c] for c in labels)

    def __str__(self) -> str:
        slides = "".join(
            f" {s.place}={s.out}*{s.stride}+{s.tap}*{s.dilation}-{s.pad}" for s in self.slides
        )
        return f"{self.a},{self.b}->{self.out}{slides}"

    def positions(self) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
        """Yields, for each combination of taps, the index of every slid label.

        With its taps fixed, place = out * stride + constant is a strided slice on both sides, and
        what is left is a plain einsum in which `place` is called `out`.
        """
        sizes = dict(self.sizes)
        rename = {s.place: s.out for s in self.slides}
        for taps in itertools.product(*(range(sizes[s.tap]) for s in self.slides)):
            index: dict[str, Any] = {}
            for slide, tap in zip(self.slides, taps, strict=True):
                shift = tap * slide.dilation - slide.pad
                first = max(0, -(shift // slide.stride))
                last = min(sizes[slide.out] - 1, (sizes[slide.place] - 1 - shift) // slide.stride)
                if last < first:
                    break
                begin, end = first * slide.stride + shift, last * slide.stride + shift + 1
                index[slide.place] = slice(begin, end, slide.stride)
                index[slide.out] = slice(first, last + 1)
                index[slide.tap] = tap
            else:
                yield index, rename


def _type(src: tuple[Node, ...], attrs: Any) -> TensorType:
    labels: Labels = attrs["labels"]
    a, b = src
    assert a.shape == labels.shape(labels.a), (a.shape, labels)
    assert b.shape == labels.shape(labels.b), (b.shape, labels)
    slid = {c for s in labels.slides for c in (s.place, s.out, s.tap)}
    for c in set(labels.a + labels.b + labels.out) - slid:
        count = sum(c in part for part in (labels.a, labels.b, labels.out))
        assert count >= 2, f"label {c} of {labels} stands in one tensor only"
    return TensorType(labels.shape(labels.out), a.dtype)


def _evaluate(node: Node, args: tuple[Array, ...], env: Env) -> Array:
    labels: Labels = node.attr("labels")
    out = np.zeros(node.shape, env.dtype(node.dtype))
    for index, rename in labels.positions():
        taps = {s.tap for s in labels.slides}

        def part(array: Array, letters: str, index: Any = index) -> Array:
            chosen: Array = array[tuple(index.get(c, slice(None)) for c in letters)]
            return chosen

        def names(letters: str, rename: Any = rename, taps: Any = taps) -> str:
            return "".join(rename.get(c, c) for c in letters if c not in taps)

        spec = f"{names(labels.a)},{names(labels.b)}->{names(labels.out)}"
        product = np.einsum(spec, part(args[0], labels.a), part(args[1], labels.b), optimize=True)
        part(out, labels.out)[...] += product
    return out


def _vjp(node: Node, g: Node) -> tuple[Node | None, ...]:
    old: Labels = node.attr("labels")
    a, b = node.src
    to_a = Labels(old.out, old.b, old.a, old.sizes, old.slides)
    to_b = Labels(old.a, old.out, old.b, old.sizes, old.slides)
    return (
        make("contract", g, b, labels=to_a),
        make("contract", a, g, labels=to_b),
    )


define(Primitive("contract", _type, _evaluate, _vjp))


def contract(
    a: Node,
    b: Node,
    spec: str,
    slides: tuple[Slide, ...] = (),
    **sizes: int,
) -> Node:
    """Multiplies and sums by labels, e.g. contract(x, w, "nk,ok->no").

    `sizes` gives the extents of labels that only the result has (the `out` of each slide).
    """
    operands, out = spec.split("->")
    left, right = operands.split(",")
    known = {**dict(zip(left, a.shape, strict=True)), **dict(zip(right, b.shape, strict=True))}
    labels = Labels(left, right, out, tuple(sorted({**known, **sizes}.items())), slides)
    return make("contract", a, b, labels=labels)
