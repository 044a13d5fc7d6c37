"""Chooses the generator for a kernel."""

from __future__ import annotations

from compiler.kernels.kernel import Kernel
from compiler.tilings import MODEL, Tilings
from compiler.triton_source.contract import render_contract, suits
from compiler.triton_source.function import Function
from compiler.triton_source.pointwise import render_map
from compiler.triton_source.rows import render_rows
from compiler.triton_source.tiles import MOST, Target
from compiler.triton_source.windows import LONGEST, render_windows
from schemas.precision import Precision


def render_kernel(
    kernel: Kernel,
    target: Target,
    precision: Precision,
    accumulators: int = MOST,
    tilings: Tilings = MODEL,
    aligned: bool = True,
) -> Function:
    """Returns the kernel as a Triton function for a target.

    A thread that works on a tile of rows by columns adds up `accumulators` results at most.
    `aligned`: what is read begins at multiples of 16 bytes.
    """
    if kernel.kind == "map":
        return render_map(kernel, target)
    if kernel.kind == "contract" and suits(kernel):
        return render_contract(kernel, target, precision, accumulators, tilings, aligned)
    if kernel.rows:
        return render_windows(kernel, target, accumulators)
    if kernel.kind == "row":
        return render_rows(kernel, target.processors)
    length = 1
    for axis in kernel.reduces[0].axes:
        length *= axis.size
    points = 1
    for axis in kernel.space:
        points *= axis.size
    # A short window is a loop; so is one of a few points, if that is all there is.
    if length <= LONGEST and points > 1:
        return render_windows(kernel, target)
    return render_rows(kernel, target.processors)
