"""Inputs of few channels that lie as the user gives them, and what reads them."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from compiler.backends import get_backend
from compiler.backends.triton import Backend
from compiler.lowering.traits import Traits
from compiler.pipeline import compile_unit
from compiler.triton_source.contract import roles
from compiler.triton_source.depth import scattered
from compiler.triton_source.tiles import TARGETS, Product, Tile
from compiler.unit import Unit
from netdef.engine import open_engine
from tests.compiler.test_rowsums import step_of, trained
from tests.harness import NullBackend, assert_close, compiled_unit, run_both

PLANAR = Traits(parallel=64, last_adds=True, prologue=8, rows=(128, 64), planar=4)
NET = """
name: pictures
layers:
- {{name: target, type: Input, top: target, shape: [{shape[0]}, 3]}}
- {{name: data, type: Input, top: data, shape: {shape}}}
{layers}
- {{name: ip, type: InnerProduct, num_output: 3}}
- {{name: loss, type: EuclideanLoss, bottom: [ip, target]}}
"""
CONV = (
    "- {{name: conv, type: Convolution, bottom: data, num_output: {out}, kernel_size: {k},"
    " stride: {s}, pad: {p}}}"
)


def conv(shape: list[int], out: int, k: int, s: int, p: int) -> str:
    return NET.format(shape=shape, layers=CONV.format(out=out, k=k, s=s, p=p))


def other(layers: str, shape: tuple[int, ...] = (2, 3, 7, 5)) -> str:
    return NET.format(shape=list(shape), layers=layers)


NETS = {
    "plain": conv([2, 3, 6, 5], 5, 3, 1, 1),
    "primes": conv([3, 3, 13, 11], 7, 5, 1, 2),
    "strided": conv([2, 3, 17, 19], 6, 7, 2, 3),
    "skipping": conv([2, 2, 11, 10], 5, 2, 3, 0),
    "a vector a pixel": conv([2, 4, 7, 6], 5, 3, 2, 1),
    "one channel": conv([5, 1, 7, 6], 5, 3, 1, 1),
    "1x1": conv([2, 3, 5, 7], 4, 1, 1, 0),
    "a large window": conv([1, 3, 9, 8], 3, 7, 1, 5),
    "one pixel": conv([4, 3, 1, 1], 5, 1, 1, 0),
    "solid": other(
        "- {name: c, type: Convolution, num_output: 4, kernel_size: 2}", (2, 3, 4, 3, 5)
    ),
    "grouped": other(
        "- {name: c, type: Convolution, num_output: 6, kernel_size: 3, group: 3, pad: 1}"
    ),
    "flat": other(""),
    "pooled": other("- {name: p, type: Pooling, pool: MAX, kernel_size: 3, stride: 2}"),
    "normalised": other(
        "- {name: bn, type: BatchNorm, bottom: data}\n"
        "- {name: c, type: Convolution, bottom: bn, num_output: 4, kernel_size: 3}"
    ),
    "scaled": other(
        "- {name: power, type: Power, bottom: data, scale: 0.5, shift: 1, top: x}\n"
        "- {name: c, type: Convolution, bottom: x, num_output: 4, kernel_size: 3}"
    ),
    "joined": other(
        "- {name: c, type: Convolution, bottom: data, num_output: 4, kernel_size: 3, pad: 1}\n"
        "- {name: join, type: Concat, bottom: [c, data], top: join}\n"
        "- {name: d, type: Convolution, bottom: join, num_output: 4, kernel_size: 3}"
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_kernels_find_every_number(name: str) -> None:
    assert_close(run_both(*step_of(NETS[name]), PLANAR), rtol=3e-4)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize(
    "name, precision",
    [*((name, "fp32") for name in ("primes", "strided", "skipping", "joined")), ("primes", "bf16")],
)
def test_triton_follows_the_reference(name: str, precision: str) -> None:
    want = trained(open_engine("reference"), NETS[name])
    got = trained(open_engine("triton", "interpreter", precision=precision), NETS[name])
    most = 2e-4 if precision == "fp32" else 6e-2
    for key, array in want.items():
        size = max(1e-2, float(np.abs(array).max()))
        np.testing.assert_allclose(got[key], array, rtol=0, atol=most * size, err_msg=key)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_pictures_lie_as_they_are_given_where_traits_say_so(channels: int) -> None:
    step, arena = step_of(conv([2, channels, 6, 5], 5, 3, 1, 1))
    planar = (30 * channels, 30, 5, 1)
    last = (30 * channels, 1, 5 * channels, channels)
    triton, cpu = get_backend("triton", "interpreter").traits, get_backend("cpu").traits
    for traits, strides in ((triton, planar if channels <= 4 else last), (cpu, last)):
        unit = Unit(step.graph, arena, NullBackend(traits), step.names, step.tables)
        assert compile_unit(unit).tensors["data"].strides == strides


def test_neighbouring_rows_of_a_tile_run_along_the_window() -> None:
    """They are what a warp reads at once, of the data and of what the gradient of a weight sums."""
    unit = compiled_unit(*step_of(NETS["strided"]), Backend("sm_90", binary=False).traits)
    reads = [k for k in unit.schedule.kernels() if "data" in {x.buffer for x in k.loads()}]
    forward, weight = (roles(k) for k in reads)
    assert [a.size for a in forward.m] == [2, 9, 10]
    assert [a.size for a in forward.k] == [a.size for a in weight.m] == [3, 7, 7]


@pytest.mark.parametrize("channels, width, alone", [(3, 8, True), (3, 7, True), (8, 7, False)])
def test_windows_of_planar_pictures_are_read_number_by_number(
    channels: int, width: int, alone: bool
) -> None:
    step = step_of(conv([2, channels, 6, width], 5, 3, 1, 1))
    unit = compiled_unit(*step, Backend("sm_90", binary=False).traits)
    loads = {x for k in unit.schedule.kernels() for x in k.loads() if x.buffer == "data"}
    assert loads and all(scattered(x) == alone for x in loads)


@pytest.mark.parametrize("stride, across", [(1, True), (2, False)])
def test_a_planar_picture_is_copied_as_what_lies_across(stride: int, across: bool) -> None:
    """Its numbers go one by one anyway: then to all banks of shared memory."""
    backend = Backend("sm_90", "tf32", binary=False)
    step = step_of(conv([8, 3, 12, 12], 64, 3, stride, 1))
    unit = compiled_unit(*step, backend.traits)
    forward = next(k for k in unit.schedule.kernels() if "data" in {x.buffer for x in k.loads()})
    text = backend.render(forward)
    assert ("across(data_ptr" in text) == across and "across(tl.trans(params_ptr" in text


def test_the_runs_of_a_sum_in_one_block_lie_side_by_side() -> None:
    """Nothing has to be known before a loop: there is none."""
    tile = Tile(64, 64, 32, 4, 4)
    product = Product(1000, 64, 27, 1, 3, TARGETS["sm_90"], "tf32", scattered=True)
    assert product.padded(tile) == 3
    assert replace(product, k=36).padded(tile) == 4
