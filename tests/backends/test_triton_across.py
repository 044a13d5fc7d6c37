"""Factors that lie along their results where tensor cores want them along the sum."""

from __future__ import annotations

import importlib.util
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.backends.triton import Backend
from compiler.kernels.kernel import Acc, Kernel, Load, Reduce, Store
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.gpu.emulated import EmulatedDevice

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

CHANNELS = st.sampled_from([1, 3, 8, 13, 64, 68])
WINDOW = st.sampled_from([(1, 1, 0), (1, 2, 0), (3, 1, 1), (2, 3, 1)])
# Both factors of the first lie across, of the others the weights, or none.
LARGE = {
    "weight gradient": (hand.conv_weight_gradient(16, 28, 28, 128, 128, 3, 1, 1), 2),
    "convolution": (hand.conv_forward(16, 28, 28, 128, 128, 3, 1, 1), 1),
    "product": (hand.inner_product(4096, 1024, 520), 1),
    "odd numbers": (hand.inner_product(4095, 1021, 517), 1),
    "data gradient": (hand.conv_data_gradient(16, 28, 28, 128, 128, 3, 1, 1), 0),
}


def partly(m, n, outer, inner) -> Kernel:
    """Returns a product of which one factor is the same for whole blocks of the sum."""
    i, o, a, b = hand.axes("i o a b", m, n, outer, inner)
    x = Load("x", hand.at(a, b, i, shape=(outer, inner, m)), "f32")
    w = Load("w", hand.at(a, o, shape=(outer, n)), "f32")
    total = Reduce(0, "sum", (a, b), hand.op("mul", x, w), "f32")
    store = Store("y", hand.at(i, o, shape=(m, n)), Acc(0, "f32"), "f32")
    return Kernel("partly", (i, o), (total, store))


@settings(max_examples=12, deadline=None)
@given(n=st.integers(1, 3), size=st.integers(3, 7), ci=CHANNELS, co=CHANNELS, window=WINDOW)
def test_convolutions_and_their_gradients(device, n, size, ci, co, window):
    backend = Backend("sm_90", "tf32", binary=False)
    for make in (hand.conv_forward, hand.conv_weight_gradient, hand.conv_data_gradient):
        kernel = make(n, size, size, ci, co, *window)
        runs.check(device, backend, (kernel,), tolerance=3e-3)


@pytest.mark.parametrize("m, n, k", [(64, 64, 5), (70, 9, 33), (257, 136, 31), (100, 1, 40)])
@pytest.mark.parametrize("transposed", [False, True])
def test_products(device, m, n, k, transposed):
    kernel = hand.inner_product(m, n, k, transposed, batch=2)
    runs.check(device, Backend("sm_90", "tf32", binary=False), (kernel,), tolerance=3e-3)


def test_a_factor_that_is_the_same_for_a_block_of_the_sum(device):
    kernel = partly(64, 64, 3, 64)
    text = Backend("sm_90", "tf32", binary=False).render(kernel)
    assert "across(x_ptr" in text and "tl.load(w_ptr" in text
    runs.check(device, Backend("sm_90", "tf32", binary=False), (kernel,), tolerance=3e-3)


@pytest.mark.parametrize(
    "kernel",
    [
        hand.conv_forward(2, 9, 9, 20, 70, 3, 1, 1),
        hand.conv_weight_gradient(3, 7, 8, 70, 65, 2, 3, 1),
        hand.in_parts(hand.conv_weight_gradient(4, 6, 5, 64, 64, 3, 1, 1), 4),
        hand.inner_product(70, 130, 100, batch=2),
    ],
    ids=lambda kernel: kernel.name,
)
def test_machine_code(kernel):
    backend = Backend("sm_90", "tf32")
    assert "across(" in backend.render(kernel)
    runs.check(EmulatedDevice("sm_90"), backend, (kernel,), tolerance=3e-2)  # factors of 10 bits


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
@pytest.mark.parametrize("name", LARGE)
def test_a_warp_copies_to_all_banks_at_once(target, name):
    """8 results of 4 numbers of the sum: rows of 128 bytes of shared memory, turned by 16 each."""
    kernel, crossed = LARGE[name]
    program = runs.program(Backend(target, "tf32"), (kernel,))
    (launch,) = program.launches
    text = program.text[f"{launch.code}.ttgir"]
    lanes = dict(re.findall(r"#(blocked\d*) = .*threadsPerWarp = (\[.*?\])", text))
    loop = text[text.index("scf.for") :]
    copies = re.findall(r"async_copy_global_to_local .*?tensor<([\dx]+)x!tt.*?#(blocked\d*)>", loop)
    turned = [lanes[layout] for shape, layout in copies if shape.count("x") == 2]
    assert turned == ["[1, 8, 4]"] * crossed and len(copies) == 2


@pytest.mark.parametrize(
    "target, precision", [("sm_80", "tf32"), ("sm_90", "bf16"), ("sm_90", "fp32")]
)
def test_others_are_read_as_they_lie(target, precision):
    kernel, _ = LARGE["weight gradient"]
    kernel = hand.narrowed(kernel) if precision == "bf16" else kernel
    assert "across" not in Backend(target, precision, binary=False).render(kernel)
