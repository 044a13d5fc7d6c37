"""Products for sm_90: on its own tensor cores (wgmma), without spilling, loaded in wide copies."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from compiler.backends.triton import Backend
from compiler.kernels.index import index
from compiler.kernels.kernel import Acc, Const, Expr, Kernel, Load
from compiler.triton_source import attempts, checks
from compiler.triton_source.ptx import rolled
from compiler.triton_source.render import render_kernel
from compiler.triton_source.tiles import LEAST, MOST, TARGETS, Product, choose
from schemas.precision import PRECISIONS
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def added(kernel: Kernel, count: int) -> Kernel:
    """Returns a product to each result of which numbers from `count` buffers are added."""
    (reduce,), (store,) = kernel.reduces, kernel.stores
    value: Expr = Acc(reduce.id, "f32")
    for n in range(count):
        value = hand.op("add", value, Load(f"x{n}", store.offset, "f32"))
    return replace(kernel, body=(reduce, replace(store, value=value)))


def spread_through_a_relu(kernel: Kernel) -> Kernel:
    """Returns a product whose result goes to the maximum of a window, if that is positive."""
    spread = hand.spread(kernel, 2, 2)
    (reduce,), (_, full) = spread.reduces, spread.stores
    positive = hand.op("less", Const(0.0), Load("above", full.offset, "f32"), dtype="bool")
    value = hand.op("select", positive, full.value, Const(0.0))
    return replace(spread, body=(reduce, replace(full, value=value)))


# Rows and columns are 64 at least: what wgmma multiplies. The third value tells whether all
# channels are multiples of 8, so that in bf16 each copy can be one of 16 bytes.
PRODUCTS = {
    "odd columns": (hand.inner_product(128, 500, 784), False),
    "odd sums": (hand.inner_product(128, 250, 500, transposed=True), False),
    "few sums": (hand.inner_product(2500, 2048, 32), True),
    "classes": (hand.inner_product(128, 1000, 2048), True),
    "batches": (hand.inner_product(256, 64, 192, batch=5), True),
    "first convolution": (hand.conv_forward(128, 227, 227, 3, 96, 11, 4), False),
    "1 x 1": (hand.conv_forward(64, 28, 28, 192, 64, 1), True),
    "strides": (hand.conv_data_gradient(16, 28, 28, 128, 64, 3, 2, 1), True),
    "odd channels": (hand.conv_weight_gradient(64, 14, 14, 24, 68, 5, 1, 2), False),
    "mask and residual": (added(hand.inner_product(25088, 1024, 256), 2), True),
    "many readers": (added(hand.inner_product(25088, 512, 256), 4), True),
    "windows": (
        spread_through_a_relu(hand.conv_data_gradient(64, 28, 28, 256, 512, 3, 1, 1)),
        True,
    ),
}


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_take_wgmma_and_do_not_spill(name, precision, monkeypatch):
    given, tries = attempts.compile_if_it_fits, []
    monkeypatch.setattr(attempts, "compile_if_it_fits", lambda *a: tries.append(a) or given(*a))
    kernel, whole = PRODUCTS[name]
    if precision == "bf16":
        kernel = hand.narrowed(kernel)
    program = runs.program(Backend("sm_90", precision), (kernel,))
    (launch,) = program.launches
    usage = checks.usage(program.code[launch.code], program.text[f"{launch.code}.ptx"])
    assert usage.wgmma > 0 and usage.mma == 0
    assert usage.spills == usage.stack == 0 and usage.registers <= 255
    assert len(tries) == 1  # the tile is known to fit before it is compiled
    assert launch.meta["shared"] <= TARGETS["sm_90"].shared
    assert usage.parameters == len(launch.args) + 2  # and Triton's two scratch pointers
    if precision == "bf16" and whole:
        assert usage.wide_copies == usage.copies


def test_a_loop_around_products_is_not_written_out():
    counts = []
    for length in (1024, 2048):
        kernel = hand.narrowed(hand.inner_product(6272, 512, length))
        program = runs.program(Backend("sm_90", "bf16"), (kernel,))
        ((name, code),) = program.code.items()
        counts.append(checks.usage(code, program.text[f"{name}.ptx"]).multiplies)
    assert counts[0] == counts[1] > 0


def test_loops_without_products_are_left_to_ptxas():
    loop = "$L__BB0_{}:\n\t{}\n\t@%p1 bra \t$L__BB0_{};"
    sums, products = loop.format(1, "add.f32", 1), loop.format(2, "mma.sync.aligned", 2)
    text = "\n".join([sums, products, "\tbra.uni \t$L__BB0_3;", "$L__BB0_3:"])
    assert rolled(text) == text.replace("$L__BB0_2:", '$L__BB0_2:\n\t.pragma "nounroll";')


def test_a_product_that_spills_is_given_a_smaller_tile(monkeypatch):
    kernel = hand.inner_product(4096, 1024, 256)
    (first,) = runs.program(Backend("sm_90", "tf32"), (kernel,)).launches
    spilling = [(255, 16), (255, 16), (128, 0)]
    monkeypatch.setattr("compiler.triton_source.attempts.resources", lambda cubin: spilling.pop(0))
    (second,) = runs.program(Backend("sm_90", "tf32"), (kernel,)).launches
    assert not spilling and second.meta["grid"][0] > first.meta["grid"][0]


def test_what_always_spills_is_taken_as_it_is(monkeypatch):
    monkeypatch.setattr("compiler.triton_source.attempts.resources", lambda cubin: (255, 16))
    for kernel in (hand.inner_product(64, 64, 64), hand.update(500)):
        (launch,) = runs.program(Backend("sm_90", "tf32"), (kernel,)).launches
        assert launch.code


def test_amd_binaries_are_asked_too():
    kernel = hand.narrowed(hand.conv_forward(8, 16, 16, 64, 64, 3, 1, 1))
    program = runs.program(Backend("gfx942", "bf16"), (kernel,))
    (launch,) = program.launches
    registers, stack = checks.amd_resources(program.text[f"{launch.code}.amdgcn"])
    assert 0 < registers <= 512 and stack == 0
    text = ".vgpr_count:  256\n.private_segment_fixed_size: 24\n"
    assert checks.amd_resources(text) == (256, 24)


def test_tiles_keep_to_the_limit_of_accumulators():
    target, limit = TARGETS["sm_90"], MOST
    while limit >= LEAST:
        for precision in PRECISIONS:
            assert (
                choose(Product(4096, 512, 256, 1, 256, target, precision, limit)).accumulators
                <= limit
            )
        limit //= 2
    for precision in PRECISIONS:  # what holds more than that has the smallest tile
        least = choose(Product(3136, 6, 40, 1, 5, target, precision, limit))
        assert least.accumulators == LEAST and (least.m, least.n) == (16, 16)
    least = render_kernel(hand.inner_product(512, 512, 64), target, "tf32", LEAST)
    assert least.accumulators == LEAST
    two = render_kernel(added(hand.inner_product(25088, 1024, 256), 2), target, "tf32")
    one = render_kernel(added(hand.inner_product(25088, 1024, 256), 1), target, "tf32")
    assert two.accumulators < one.accumulators == MOST  # what is read beside takes registers too


def test_a_tile_of_a_fixed_height_gets_narrower():
    """Its sums want so many rows: what is left are its columns."""
    target = TARGETS["sm_90"]
    for precision, rows in ((p, r) for p in ("tf32", "bf16") for r in (64, 128)):
        tiles = [
            choose(Product(4096, 512, 256, 1, 256, target, precision, limit, rows))
            for limit in (64, 32, 16)
        ]
        assert {t.m for t in tiles} == {rows}
        assert all(t.accumulators <= n for t, n in zip(tiles, (64, 32, 16), strict=True))


def test_vectors_beside_the_sums_take_registers():
    kernel = added(hand.inner_product(25088, 1024, 256), 1)
    (reduce,), (store,) = kernel.reduces, kernel.stores
    value = store.value
    for n in range(8):
        column = Load(f"v{n}", index(kernel.space[-1]), "f32")
        value = hand.op("add", value, column)
    with_vectors = replace(kernel, body=(reduce, replace(store, value=value)))
    target = TARGETS["sm_90"]
    one, other = (render_kernel(k, target, "tf32") for k in (kernel, with_vectors))
    assert other.accumulators < one.accumulators


def test_a_factor_of_two_blobs_takes_twice_the_memory():
    for target in TARGETS.values():
        for precision in target.precisions:
            asked = Product(4096, 512, 4096, 1, 4096, target, precision, blobs=(2, 1))
            tile = choose(asked)
            size = 2 if precision == "bf16" else 4
            assert (2 * tile.m + tile.n) * tile.k * tile.stages * size <= target.shared
