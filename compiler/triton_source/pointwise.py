"""Maps: one-dimensional blocks over all points."""

from __future__ import annotations

from dataclasses import replace

from compiler.kernels.index import substitute
from compiler.kernels.kernel import Kernel, Store, shift
from compiler.triton_source.emit import Emitter
from compiler.triton_source.function import Function, finish, flatten, label, wide
from compiler.triton_source.text import ceil_div, next_power
from compiler.triton_source.tiles import Target


def block_length(points: int, target: Target) -> int:
    """Returns how many points a program takes: few enough that every processor has some."""
    return min(target.block, max(128, next_power(ceil_div(points, 4 * target.processors))))


def render_map(kernel: Kernel, target: Target) -> Function:
    points, by_point = flatten(kernel.space, "i")
    dim = points.name
    length = block_length(points.size, target)
    em = Emitter([dim], {dim: length}, wide(kernel))
    label(em, by_point)
    em.tails[dim] = points
    name = em.names.fresh(dim)
    em.line(f"{name} = pid * {length} + {em.arange(length)}")
    em.bind(points, name, [dim])
    for s in kernel.body:
        assert isinstance(s, Store)
        s = replace(s, offset=substitute(s.offset, by_point), value=shift(s.value, by_point))
        em.store(s, frozenset([dim]))
    return finish(kernel, em, ceil_div(points.size, length), min(8, max(1, length // 256)))
