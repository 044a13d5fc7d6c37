"""Poolings in the epilogue of the convolution before them: exact, without spilling, on wgmma."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compiler.backends.triton import Backend
from compiler.kernels.kernel import Kernel, Load, Reduce
from compiler.kernels.schedule import Buffer
from compiler.lowering.epilogues import fold_results
from compiler.lowering.lower import without_units
from compiler.triton_source import checks
from compiler.triton_source.tiles import TARGETS
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.hand_programs import check

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

REAL = Backend("sm_90", binary=False)  # the tiles that a GPU gets, as source only
POOLS = {"max": hand.max_pool, "average": hand.average_pool}


def pooled(convolution: Kernel, shape, window: int, pool="max", kept=False) -> Kernel:
    """Returns a convolution with a pooling of its result, of that shape, in its epilogue.

    With `kept`, others read what it pools.
    """
    other = POOLS[pool](*shape, window, window)

    def one(s):
        load = s.value
        if isinstance(s, Reduce) and isinstance(load, Load):
            return replace(s, value=replace(load, buffer="conv"))
        return s

    other = replace(other, body=tuple(one(s) for s in other.body))
    buffers = {"conv": Buffer("conv", "f32", 1, "output" if kept else "inner")}
    outputs = {s.buffer: Buffer(s.buffer, "f32", 1, "output") for s in other.stores}
    found = fold_results(
        (lowered(convolution), lowered(other)), buffers | outputs, (), lambda k: False
    )
    (merged,) = found.kernels
    assert isinstance(merged, Kernel) and merged.kind == "contract" and merged.rows
    assert ("conv" in merged.writes()) == kept and not found.refused
    return merged


def lowered(kernel: Kernel) -> Kernel:
    """Returns the kernel as lowering makes it: without axes of one element."""
    space = tuple(a for a in kernel.space if a.size > 1)
    return replace(kernel, space=space, body=tuple(without_units(kernel.body)))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    n=st.integers(1, 3),
    h=st.integers(1, 4),
    w=st.integers(1, 5),
    ci=st.sampled_from([1, 2, 3, 17]),
    co=st.sampled_from([2, 5, 16, 19]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    window=st.integers(2, 3),
    pool=st.sampled_from(["max", "average"]),
    kept=st.booleans(),
)
def test_convolutions_with_poolings(
    device, n, h, w, ci, co, kernel, stride, pad, window, pool, kept
):
    h, w = h * window, w * window  # of the convolution's result
    high, wide = ((s - 1) * stride + kernel - 2 * pad for s in (h, w))
    # A product of two matrices, each of more than one row.
    assume(n * h * w > window**2 and min(high, wide) > 0 and kernel**2 * ci > 1)
    convolution = hand.conv_forward(n, high, wide, ci, co, kernel, stride, pad)
    check(device, REAL, (pooled(convolution, (n, h, w, co), window, pool, kept),))


def test_what_is_folded_has_tails_and_several_tiles(device):
    convolution = hand.conv_forward(3, 26, 22, 5, 70, 3)
    for pool in POOLS:
        kernel = pooled(convolution, (3, 24, 20, 70), 2, pool)
        check(device, REAL, (kernel,))
        check(device, Backend("interpreter"), (kernel,))


def test_the_first_of_equals_wins_and_nan_stays(device):
    kernel = pooled(hand.conv_forward(2, 4, 4, 2, 3, 1, bias=False), (2, 4, 4, 3), 2)
    executable = device.load(runs.program(REAL, (kernel,)))
    data = np.zeros((2, 4, 4, 2), np.float32)
    data[0, :, 1] = 1
    data[1, 3, 3, 0] = np.nan
    executable.write("data", data.reshape(-1))
    executable.write("conv/weight", np.ones(6, np.float32))
    executable.run()
    found = executable.read("pool").reshape(2, 2, 2, 3)
    where = executable.read("pool.at").reshape(2, 2, 2, 3)
    executable.close()
    assert np.isnan(found[1, 1, 1]).all() and not np.isnan(found).reshape(8, 3)[:7].any()
    # Of the windows on the left the second element of both rows is 2, the others are 0.
    assert (where[0, :, :, 1] == [[1, 0], [1, 0]]).all()


# vgg16's third pooling; of 9 places none has the 64 rows that wgmma takes.
TARGETED = [
    ("sm_80", "tf32", 2), ("sm_80", "bf16", 2), ("sm_90", "fp32", 2), ("sm_90", "tf32", 2),
    ("sm_90", "bf16", 2), ("sm_80", "bf16", 3), ("gfx942", "fp32", 2), ("gfx942", "bf16", 2),
]  # fmt: skip


@pytest.mark.parametrize(("target", "precision", "window"), TARGETED)
def test_folding_does_not_spill(target, precision, window):
    kernel = hand.conv_forward(8, 48, 48, 256, 256, 3, 1, 1)
    kernel = pooled(kernel, (8, 48, 48, 256), window)
    kernel = hand.narrowed(kernel) if precision == "bf16" else kernel
    program = runs.program(Backend(target, precision), (kernel,))
    (launch,) = program.launches
    assert launch.meta["shared"] <= TARGETS[target].shared
    if target == "gfx942":
        assert checks.amd_resources(program.text[f"{launch.code}.amdgcn"])[1] == 0
        return
    usage = checks.usage(program.code[launch.code], program.text[f"{launch.code}.ptx"])
    assert usage.spills == usage.stack == 0
    if target == "sm_90" and precision != "fp32":
        assert usage.wgmma > 0 and usage.mma == 0
    if precision == "bf16":
        assert usage.wide_copies == usage.copies > 0
