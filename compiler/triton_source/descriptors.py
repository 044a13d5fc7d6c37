"""Factors that the GPU's copy engine (TMA) reads: tiles of a dense matrix, by a descriptor.

A descriptor says where a matrix lies and how large a tile of it is. A program makes those of its
factors once, in scratch memory of its own, and goes through several tiles with them. Past the end
of the matrix the engine gives zeros, so that no mask is needed; no thread computes an address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from compiler.kernels.index import Axis, index, unravel
from compiler.kernels.kernel import Load, shift
from compiler.triton_source.emit import Emitter
from compiler.triton_source.same import ALIGNMENT
from schemas.program import ITEMSIZE

SCRATCH = "<scratch>"  # the buffer that descriptors are made in: each program has a part of it

# Gives the text of a tile, from where it begins along each dimension.
Reader = Callable[[Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A factor as rows of neighbours, `stride` elements apart; `dims` are its rows and columns."""

    load: Load
    dims: tuple[str, str]
    sizes: tuple[int, int]
    start: int
    stride: int

    def describe(self, em: Emitter) -> Reader:
        """Writes the descriptor of its tiles."""
        name = em.names.fresh(f"{self.load.buffer}_matrix")
        pointer, _ = em.pointer(self.load.buffer, self.load.dtype)
        start = f"{pointer} + {self.start}" if self.start else pointer
        tile = [em.block[dim] for dim in self.dims]
        where = f"{start}, {list(self.sizes)}, [{self.stride}, 1], {tile}"
        em.line(f"{name} = tl.make_tensor_descriptor({where})")
        turned = em.order.index(self.dims[0]) > em.order.index(self.dims[1])

        def read(first: Mapping[str, str]) -> str:
            text = f"{name}.load([{', '.join(first[dim] for dim in self.dims)}])"
            return f"{text}.T" if turned else text

        return read


def matrix(load: Load, members: Mapping[str, Sequence[Axis]]) -> Matrix | None:
    """Returns a factor of two dimensions, with the axes of each, as a matrix.

    None where it is none that the engine reads: its address is no multiple of one number along each
    dimension, neighbours lie in neither, rows are not aligned.
    """
    flat = {dim: Axis(dim, prod(a.size for a in axes)) for dim, axes in members.items()}
    parts = {
        axis: part
        for dim, axes in members.items()
        for axis, part in zip(axes, unravel(index(flat[dim]), [a.size for a in axes]), strict=True)
    }
    moved = shift(load, parts)
    assert isinstance(moved, Load)
    start, terms = moved.offset.const, moved.offset.terms
    steps = {dim: moved.offset.coefficient(axis) for dim, axis in flat.items()}
    rows, columns = sorted(steps, key=steps.__getitem__, reverse=True)
    whole = ALIGNMENT // ITEMSIZE[load.dtype]
    if (
        moved.guards
        or len(terms) != 2
        or steps[columns] != 1
        or steps[rows] % whole
        or start % whole
    ):
        return None
    return Matrix(load, (rows, columns), (flat[rows].size, flat[columns].size), start, steps[rows])
