"""Products of factors that are maps of what is loaded, under Triton's interpreter."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from compiler.backends.triton import Backend
from compiler.kernels.index import axes_of, index
from compiler.kernels.kernel import Expr, Factor, Guarded, Kernel, Load, Op, rebuild
from tests.backends import hand_kernels as hand
from tests.backends.hand_programs import check

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def mapped(kernel: Kernel, axis: str) -> Kernel:
    """Returns a product with data / v for data; v has a number for each step along an axis.

    0 / 0 is no number: what is past the end of a sum must not count.
    """
    (reduce,) = kernel.reduces
    (along,) = {a for a in (*kernel.space, *reduce.axes) if a.name == axis}

    def visit(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer != "data":
            return None
        value: Expr = Op("div", (e, Load("v", index(along), "f32")), "f32")
        return Factor(Guarded(e.guards, value, 0.0, "f32") if e.guards else value)

    changed = replace(reduce, value=rebuild(reduce.value, visit))
    return replace(kernel, body=(changed, *kernel.stores))


KERNELS = {
    "forward": mapped(hand.conv_forward(2, 5, 6, 5, 7, 3, 1, 1), "ci"),
    "strided": mapped(hand.conv_forward(1, 7, 6, 19, 17, 3, 2, 1), "ci"),
    "1x1": mapped(hand.conv_forward(1, 5, 4, 37, 3, 1), "ci"),
    "weight": mapped(hand.conv_weight_gradient(2, 5, 6, 5, 7, 3, 1, 1), "ci"),
    "weight in parts": hand.in_parts(
        mapped(hand.conv_weight_gradient(4, 5, 5, 5, 7, 3, 1, 1), "ci"), 2
    ),
    "along the sum": mapped(hand.conv_weight_gradient(2, 5, 7, 5, 7, 3, 1, 1), "ow"),
    "depthwise": mapped(hand.conv_forward(1, 5, 5, 4, 4, 3, 1, 1, groups=4, bias=False), "g"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_factor_may_be_a_map(device, name):
    kernel = KERNELS[name]
    assert kernel.kind == "contract"
    check(device, Backend("sm_90", "fp32", binary=False), (kernel,), tolerance=1e-4)


def test_a_vector_of_the_sum_is_no_tile():
    """What has no guards is read once for all rows of a tile."""
    text = Backend("sm_90", binary=False).render(KERNELS["1x1"])
    (line,) = (x for x in text.splitlines() if "= tl.load(v_ptr" in x)
    assert "[None, :]" not in line and "[:, None]" not in line
    assert axes_of(KERNELS["1x1"].stores[0].offset)
