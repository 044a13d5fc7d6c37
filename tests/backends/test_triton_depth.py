"""Sums over windows of few channels: runs that take more of K than they have (depth.py)."""

from __future__ import annotations

import importlib.util

import pytest

from compiler.backends.triton import Backend
from tests.backends import hand_kernels as hand
from tests.backends.hand_programs import check, tuned

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

FEW_CHANNELS = [
    (2, 11, 9, 3, 8, 7, 2, 3),
    (1, 8, 8, 1, 5, 5, 1, 2),
    (3, 13, 7, 2, 4, 3, 4, 1),
    (2, 9, 9, 5, 8, 1, 1, 0),
    (1, 40, 37, 1, 3, 37, 1, 0),
]


@pytest.mark.parametrize("depth", [16, 32])
@pytest.mark.parametrize("make", [hand.conv_forward, hand.conv_weight_gradient])
@pytest.mark.parametrize("shape", FEW_CHANNELS, ids=str)
def test_runs_of_a_sum_may_take_more_than_they_have(device, shape, make, depth):
    kernel, made = make(*shape), Backend("interpreter")
    tiling = next(t for t in made.tunable(kernel).tilings if t["k"] == depth)
    check(device, tuned(made, kernel, tiling), (kernel,))


def test_where_a_lane_stands_in_a_window_of_few_channels_is_known_before_the_loop():
    source = Backend("sm_90", binary=False).render(hand.conv_forward(128, 224, 224, 3, 64, 7, 2, 3))
    before, loop = source.split("for step in")
    assert "lane // 3" in before
    assert "//" not in loop and "%" not in loop
