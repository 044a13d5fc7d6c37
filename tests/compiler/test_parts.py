"""In how many parts a GPU makes the sums of a product: as many as keep its processors at work."""

from __future__ import annotations

import pytest

from compiler.backends.triton import Backend
from compiler.kernels.kernel_text import render
from compiler.lowering.adapt import adapt, parts_of
from compiler.triton_source.render import render_kernel
from compiler.triton_source.tiles import TARGETS
from tests.backends import hand_kernels as hand

# Channels and places of a batch of 128; axis and number of parts, tiles on 132 processors.
GRADIENTS = {
    "16 parts of pictures, 80 tiles": (64, 56, 0, 16, 80),
    "14 parts of rows, 126 tiles": (128, 28, 1, 14, 126),
    "7 parts of rows, 126 tiles": (256, 14, 1, 7, 126),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_parts_keep_processors_at_work(name):
    channels, size, cut, count, tiles = GRADIENTS[name]
    gradient = hand.narrowed(
        hand.conv_weight_gradient(128, size, size, channels, channels, 3, 1, 1)
    )
    traits = Backend("sm_90", "bf16", binary=False).traits
    found = parts_of(gradient, traits)
    assert found is not None and (found.cut, found.count) == (cut, count)
    (made,) = adapt([gradient], {}, traits).kernels
    assert f" in {count} parts of {gradient.reduces[0].axes[cut].name} " in render(made)
    assert render_kernel(made, TARGETS["sm_90"], "bf16").programs == tiles


def test_the_last_axis_stays_whole():
    """Neighbours are read together: 6 x 6 x 250 are cut in 3, not in 5."""
    forward = hand.conv_forward(128, 6, 6, 250, 4096, 6)
    found = parts_of(forward, Backend("sm_90", "bf16", binary=False).traits)
    assert found is not None and (found.cut, found.count) == (0, 3)


def test_what_has_many_tiles_is_not_cut():
    gradient = hand.conv_weight_gradient(128, 7, 7, 512, 512, 3, 1, 1)
    assert parts_of(gradient, Backend("sm_90", "bf16", binary=False).traits) is None
