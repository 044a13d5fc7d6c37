"""What the bench counts of kernels that run emulated."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bench.issue import _cycles, asked
from compiler.backends.triton import Backend
from tests.backends import hand_kernels as hand
from tests.backends.hand_loops import hand_loop
from tests.backends.hand_programs import program

LANES = np.arange(32)
ACCESSES = {
    "neighbours": (LANES * 0, LANES * 4, 4, 1, 1),
    "the same word": (LANES * 0, LANES * 0, 4, 1, 1),
    "bytes of a word": (LANES * 0, LANES, 1, 1, 1),
    "every second bank": (LANES * 0, LANES * 8, 4, 2, 1),
    "one bank": (LANES * 0, LANES * 128, 4, 32, 1),
    "16 bytes a lane": (LANES // 8, LANES * 16, 16, 4, 4),
    "16 bytes, the same banks": (LANES // 8, LANES * 128, 16, 32, 4),
}


@pytest.mark.parametrize("name", ACCESSES)
def test_lanes_wait_for_banks(name: str) -> None:
    served, address, size, cycles, ideal = ACCESSES[name]
    assert _cycles(served, address, size) == (cycles, ideal)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_a_product_takes_what_its_tiles_take() -> None:
    made = program(
        Backend("sm_90", "bf16"), (hand.inner_product(256, 256, 1024),), hand_loop(False, 9)
    )
    made.meta["precision"] = "bf16"
    product, *others = asked(made)
    cycles = 256 * 256 * 1024 / 2048  # of one processor: each of the launch's has one tile
    assert product.tensor * 1.755e9 == pytest.approx(cycles / product.programs)
    assert product.issue > 0 and product.shared >= product.tensor and 1 <= product.conflicts < 1.5
    assert others and product.longest >= product.planned
