"""Kernels over buffers of 2^31 elements and more: their offsets are computed in 64 bits."""

from __future__ import annotations

import importlib.util
import re

import pytest

from compiler.backends.triton import Backend
from compiler.triton_source import contract, pointwise, rows, windows
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

SMALL = {
    **hand.every_kind(),
    "parts": hand.in_parts(hand.conv_weight_gradient(4, 6, 5, 3, 4, 3, 1, 1), 4),
    "vector_of_parts": hand.in_parts(hand.column_sums(150, 7), 5),
    "long_window": hand.average_pool(1, 12, 12, 3, 11, 1, 0),
}
LARGE = {
    "conv_weight_gradient": hand.conv_weight_gradient(1 << 14, 64, 64, 64, 64, 3, 1, 1),
    "parts": hand.in_parts(hand.conv_weight_gradient(1 << 14, 64, 64, 64, 64, 3, 1, 1), 64),
    "long_window": hand.average_pool(1 << 14, 64, 64, 64, 11, 1, 0),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_kernels_compute_the_same_in_64_bits(device, name, monkeypatch):
    for module in (contract, pointwise, rows, windows):
        monkeypatch.setattr(module, "wide", lambda kernel: True)
    backend = Backend("sm_90", "fp32", binary=False)
    assert "tl.int64" in backend.render(SMALL[name])
    runs.check(device, backend, (SMALL[name],))


@pytest.mark.parametrize("name", LARGE)
def test_no_product_of_32_bits_is_part_of_an_offset(name):
    """A loop counts in 32 bits: what it counts is made wide before it is multiplied."""
    program = runs.program(Backend("sm_90"), (LARGE[name],))
    (launch,) = program.launches
    # Triton unrolls a loop by products with 1.
    products = re.findall(r"arith\.muli (?!%c1_i32).*", program.text[f"{launch.code}.ttir"])
    assert products and all("i64" in product for product in products), products
