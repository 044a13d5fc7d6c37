"""What passes may assume of the backend that a program is for."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traits:
    """What fusion and scheduling may assume of a backend."""

    # The second factor of a contraction must be contiguous along its own result axis; where it is
    # not (weights in a data gradient), a transposed copy is made by a kernel of its own.
    contiguous_factor: bool = False
    # Convolutions may be rewritten in Winograd's form: kernels of kind `transform`.
    winograd: bool = False
    # The epilogue of a contraction may fold a few results to one, and store a few elements for
    # each: a pooling and its gradient, where the windows do not overlap. And it may store a part
    # of the results elsewhere.
    wide_epilogues: bool = False
    # Convolutions of one blob may be one contraction, their weights side by side.
    siblings: bool = False
    # What is a part of a Concat is read there, with other channels beside its own.
    concats: bool = False
    # Independent kernels may share a launch.
    groups: bool = True
    # Sums are split in parts until a kernel has about `parallel` tiles of this many result
    # elements (rows, columns) to hand out; a second kernel adds the parts, or, with `last_adds`,
    # whoever is the last to finish a part of a tile. The split depends on shapes alone, never on
    # the number of threads, so results do not either.
    tile: tuple[int, int] = (64, 64)
    parallel: int = 1
    last_adds: bool = False
    # Products of large tiles are cut along any axis but the last, in as many parts as leave the
    # fewest of a GPU's processors idle. 0: they are split like other sums.
    processors: int = 0
    # A part is a sum of at least `shortest` numbers. Only sums are split that have `inner` numbers,
    # at least 2, at each point of their outermost axis, which is what the parts divide.
    shortest: int = 256
    inner: int = 2
    # Activations, their gradients and the weights that products read are stored as bf16.
    narrow: bool = False
    # So many numbers, in vectors of neighbours, stay in a processor's own caches: means and
    # variances of more are taken in parts of no more than that. 0: they are taken whole.
    nearby: int = 0
    # A blob of so many numbers takes its step where its gradient is made, which is then not stored;
    # all others share one update. 0: all do.
    apart: int = 0
    # A map of one blob (normalisation, ReLU) that takes no more operations than this is made again
    # by each contraction and window that reads it. 0: what contractions read is stored, and what
    # windows read if it costs more than a few operations. So may be a map of two blobs, with as
    # many operations for each, where that saves memory (rematerialize.py).
    prologue: int = 0
    # But what a contraction reads more often than this, each number for each tap and for each tile
    # of the results, is stored.
    readings: float = math.inf
    # Inputs of no more channels than this lie planar, as the user gives them: the host copies bytes
    # and turns no pictures. 0: all lie channels last.
    planar: int = 0
    # Inputs have a slot of their own: the device has two of it and fills one while a step reads the
    # other.
    inlet: bool = False
    # Sums over the rows (pictures and places) of what a contraction stores can be taken, for each
    # of so many rows, by the contraction itself: its tiles have as many. The most wanted first.
    rows: tuple[int, ...] = ()
