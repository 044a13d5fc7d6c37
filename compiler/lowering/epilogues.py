"""Contractions fold what they make, in their epilogue: a pooling over its windows.

The contraction then runs over windows and the places in them: the pooling is Reduces over the
places, axes of its own space. What it made is no longer stored if nothing else reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from compiler.ir.node import Node
from compiler.kernels.dependence import Dependence
from compiler.kernels.index import Axis, Index, index
from compiler.kernels.kernel import Kernel, Reduce, Statement, Store, load_axes, product
from compiler.kernels.schedule import Buffer, Work
from compiler.lowering.align import align
from compiler.lowering.fuse import connect, in_place, refine, renumbered, shifted, substituted
from compiler.passes.simplify import splat
from compiler.prims.maps import less, select
from compiler.prims.window import pool_argmax, pool_max, unpool_max

# Results that are folded to one: a thread holds all of them.
WINDOW_LIMIT = 9


@dataclass
class Folded:
    """The kernels that are left, and for each pair that stays apart why: (writer, reader, why)."""

    kernels: list[Work]
    refused: list[tuple[str, str, str]]


def fold_results(
    kernels: Sequence[Work],
    buffers: Mapping[str, Buffer],
    refused: Sequence[tuple[str, str, str]],
    shared_out: Callable[[Kernel], bool],
) -> Folded:
    """Returns the kernels with poolings merged into the contractions before them.

    `refused` is what stayed apart before. `shared_out` says of which contraction several programs
    share each sum: none of them has a whole result to fold.
    """
    d = Dependence(kernels)
    names = {k.name: k.name for k in kernels}
    why = {(first, second): words for first, second, words in refused}
    stack = [i for i, kind in d.kind.items() if kind == "contract"]
    while stack:
        i = stack.pop()
        for j in sorted(j for j in d.data(i) if d.kind[j] == "reduce"):
            kernel, other = d.kernels[i], d.kernels[j]
            assert isinstance(kernel, Kernel) and isinstance(other, Kernel)
            merged = "its sums are shared out" if shared_out(kernel) else _merged(kernel, other)
            if isinstance(merged, str):
                why[kernel.name, other.name] = merged
            elif not d.detour(i, j):
                read = merged.reads().union(*(d.reads[k] for k in d.kernels if k not in (i, j)))
                merged = _named(living(merged, buffers, read), other)
                stack.append(d.merge(i, j, merged))
                names |= dict.fromkeys((kernel.name, other.name), merged.name)
                break
    told = {(names[a], names[b]): words for (a, b), words in why.items() if {a, b} <= names.keys()}
    left = sorted((a, b, words) for (a, b), words in told.items() if a != b)
    return Folded([d.kernels[i] for i in d.order()], left)


def _merged(kernel: Kernel, other: Kernel) -> Kernel | str:
    """Returns a contraction with the body of its reader, which folds its results, or why not."""
    if kernel.rows or other.rows:
        return "one of them sums over rows of its own result"
    window = other.reduces[0].axes
    if prod(a.size for a in window) > WINDOW_LIMIT:
        return f"it folds more than {WINDOW_LIMIT} results to one"
    reader = substituted(other, _shared(other.reduces, window), (*other.space, *window))
    stored = {s.buffer: s for s in kernel.stores}
    load = next(x for x in reader.loads() if x.buffer in stored)
    if load.guards:
        return "its windows reach over the edge"
    found = align(kernel, stored[load.buffer], reader, load)
    if isinstance(found, str) or found.extra:
        return "its windows overlap, or leave something out"
    places = _axes([found.rename[a] for a in window])
    if places is None:
        return "a place of its windows is not one axis"
    base = refine(kernel, found)
    by = 1 + max(r.id for r in base.reduces)
    body = [_over(renumbered(shifted(s, found.rename), by), places) for s in reader.body]
    merged = connect(base, body)
    if merged is None or merged.kind != "contract" or not in_place(merged.body):
        return "it reads other elements as well"
    if not _is_matrix(merged):
        return "a product with a vector is not made in tiles"
    layers = tuple(dict.fromkeys((*kernel.layers, *other.layers)))
    return replace(merged, layers=layers)


def _shared(reduces: Sequence[Reduce], window: Sequence[Axis]) -> dict[Axis, Index]:
    """Returns the axes of all Reduces as those of the first."""
    return {a: index(b) for r in reduces for a, b in zip(r.axes, window, strict=True)}


def _axes(indices: Sequence[Index]) -> tuple[Axis, ...] | None:
    """Returns indices as axes, None if they are more than that."""
    axes = tuple(a for i in indices for a, _ in i.terms if isinstance(a, Axis))
    return axes if list(map(index, axes)) == list(indices) else None


def _over(s: Statement, places: tuple[Axis, ...]) -> Statement:
    return replace(s, axes=places) if isinstance(s, Reduce) else s


def _is_matrix(kernel: Kernel) -> bool:
    """Says whether both factors have several results of their own."""
    factors = product(kernel.reduces[0])
    assert factors is not None
    space = set(kernel.space).difference(kernel.rows)
    a, b = (load_axes(f) & space for f in factors)
    return all(prod(x.size for x in own) > 1 for own in (a - b, b - a))


def living(kernel: Kernel, buffers: Mapping[str, Buffer], read: set[str]) -> Kernel:
    """Returns the kernel without Stores of what nothing reads."""

    def dead(s: Statement) -> bool:
        return isinstance(s, Store) and buffers[s.buffer].role == "inner" and s.buffer not in read

    return replace(kernel, body=tuple(s for s in kernel.body if not dead(s)))


def _named(merged: Kernel, other: Kernel) -> Kernel:
    """Returns the kernel named after what it leaves behind."""
    return merged if merged.name in merged.writes() else replace(merged, name=other.name)


def pooled_mask(n: Node) -> Node | None:
    """select(0 < x, unpool_max(g), 0) -> unpool_max(select(0 < pool_max(x), g, 0)).

    Where the gradient of a maximum goes is x the maximum: so a ReLU needs not keep x.
    """
    if n.prim != "select" or n.src[0].prim != "less" or n.src[1].prim != "unpool_max":
        return None
    (low, x), (g, where), window = n.src[0].src, n.src[1].src, n.src[1].attr("window")
    if splat(low) != 0 or splat(n.src[2]) != 0 or where is not pool_argmax(x, window):
        return None
    return unpool_max(select(less(0.0, pool_max(x, window)), g, 0.0), where, window)
