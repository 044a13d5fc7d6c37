"""Products whose factors come through descriptors: where, the same bits, what is compiled."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.backends.triton import Backend
from compiler.kernels.kernel import Kernel
from compiler.kernels.schedule import Buffer, Place, Schedule
from compiler.tilings import Tiling, Tilings
from compiler.triton_source import checks
from compiler.triton_source.build import divide
from compiler.triton_source.render import render_kernel
from compiler.triton_source.tiles import TARGETS
from runtime.tensor_bytes import rounded
from schemas.program import Program, Tensor
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.kernel_oracle import run_schedule

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
PRECISIONS = ("tf32", "bf16")
few = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def in_precision(kernel: Kernel, precision: str) -> Kernel:
    return hand.narrowed(kernel) if precision == "bf16" else kernel


def described(backend: Backend, kernel: Kernel) -> list[Tiling]:
    """Returns the candidates of a search that read through descriptors."""
    found = backend.tunable(kernel)
    return [] if found is None else [t for t in found.tilings if "descriptors" in t]


def tuned(backend: Backend, kernel: Kernel, tiling: Tiling) -> Backend:
    return backend.tuned(Tilings(backend.target, {backend.tunable(kernel).key: tiling}))


def as_bytes(program: Program) -> Program:
    """Returns a program whose tensors of bf16 are read and written as bytes."""

    def one(t: Tensor) -> Tensor:
        size = (2 * t.shape[0],)
        return replace(t, dtype="u8", shape=size, view=size) if t.dtype == "bf16" else t

    return replace(program, tensors={name: one(t) for name, t in program.tensors.items()})


def both_forms(device, kernel: Kernel, precision) -> None:
    """Compares a tile's two forms bit by bit, and one of them with the oracle."""
    backend = Backend("interpreter", precision)
    tiling = min(described(backend, kernel), key=lambda t: t["m"] * t["n"])
    plain = {name: value for name, value in tiling.items() if name != "descriptors"}
    given = {n: v.astype(np.float32) for n, v in runs.contents([(kernel,)], seed=1).items()}
    for load in (load for load in kernel.loads() if load.dtype == "bf16"):
        given[load.buffer] = rounded(given[load.buffer].view(np.uint8)).view(np.uint16)
    results = []
    for one in (tiling, plain):
        program = as_bytes(runs.program(tuned(backend, kernel, one), (kernel,)))
        (text,) = program.text.values()
        assert ("make_tensor_descriptor" in text) == (one is tiling)
        executable = device.load(program)
        for load in kernel.loads():
            value = given[load.buffer]
            executable.write(load.buffer, value if load.dtype == "f32" else value.view(np.uint8))
        executable.run()
        (result,) = (executable.read(s.buffer) for s in kernel.stores)
        results.append(result.view(np.uint8))
        executable.close()
    np.testing.assert_array_equal(*results)
    run_schedule(Schedule(((kernel,),), {}), given)
    (wanted,) = (given[s.buffer] for s in kernel.stores)  # not rounded
    if precision == "tf32":  # which the interpreter multiplies as f32
        np.testing.assert_allclose(results[0].view(np.float32), wanted, rtol=2e-5, atol=2e-5)
    else:
        got = (results[0].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_allclose(got, wanted, rtol=1e-2, atol=1e-2)


@few
@given(
    m=st.sampled_from([64, 67, 129, 200]),
    n=st.sampled_from([64, 72, 136]),
    k=st.sampled_from([8, 24, 64, 104]),
    transposed=st.booleans(),
    precision=st.sampled_from(PRECISIONS),
)
def test_products_are_the_same_bits(device, m, n, k, transposed, precision):
    both_forms(device, in_precision(hand.inner_product(m, n, k, transposed), precision), precision)


CONVOLUTIONS = {
    "forward": hand.conv_forward(3, 7, 11, 24, 72, 1),
    "data": hand.conv_data_gradient(3, 7, 11, 72, 40, 1),
    "weight": hand.conv_weight_gradient(3, 7, 11, 72, 136, 1),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_one_pixel_are_the_same_bits(device, name, precision):
    both_forms(device, in_precision(CONVOLUTIONS[name], precision), precision)


def test_the_model_does_not_choose_them():
    for precision in PRECISIONS:
        kernel = in_precision(hand.inner_product(8192, 8192, 8192), precision)
        for target in ("sm_90", "sm_100"):
            backend = Backend(target, precision)
            found = described(backend, kernel)
            assert found and found[0] not in backend.tunable(kernel).tilings[:1]
            assert "descriptor" not in backend.render(kernel)
            assert "descriptor" in tuned(backend, kernel, found[0]).render(kernel)


NOT_READ = {
    "windows": hand.conv_forward(4, 28, 28, 64, 64, 3, 1, 1),
    "strides": hand.conv_forward(4, 28, 28, 64, 64, 1, 2),
    "odd rows": hand.inner_product(256, 256, 250),
    "odd columns": hand.inner_product(256, 250, 256),
    "batches": hand.inner_product(256, 256, 256, batch=3),
    "few rows": hand.inner_product(40, 256, 256),
    "parts": hand.in_parts(hand.conv_weight_gradient(64, 14, 14, 64, 128, 1), 4),
    "a loop": replace(hand.inner_product(256, 256, 256), loop=1),
    "64-bit offsets": hand.inner_product(1 << 20, 64, 4096),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_the_copy_engine_does_not_read(name):
    for precision in PRECISIONS:
        kernel = in_precision(NOT_READ[name], precision)
        assert not described(Backend("sm_90", precision, persistent=False), kernel)


@pytest.mark.parametrize("target, precision", [("sm_80", "bf16"), ("gfx942", "bf16")])
def test_gpus_without_such_an_engine(target, precision):
    kernel = in_precision(hand.inner_product(512, 512, 512), precision)
    (tiling, *_) = described(Backend("sm_90", precision), kernel)
    backend = Backend(target, precision)
    assert not described(backend, kernel)
    assert "descriptor" not in tuned(backend, kernel, tiling).render(kernel)


def test_products_of_exact_numbers_have_none():
    assert not described(Backend("sm_90", "fp32"), hand.inner_product(512, 512, 512))


PRODUCTS = {
    "inner_product": hand.inner_product(8192, 8192, 8192),
    "transposed, few sums": hand.inner_product(2560, 1000, 8, transposed=True),
    "weight gradient": hand.conv_weight_gradient(64, 14, 14, 256, 1024, 1),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_tiles_come_through_the_copy_engine(name, precision):
    """To its own tensor cores, without spilling, and nothing else is copied."""
    kernel = in_precision(PRODUCTS[name], precision)
    backend = Backend("sm_90", precision)
    program = runs.program(tuned(backend, kernel, described(backend, kernel)[0]), (kernel,))
    (launch,) = program.launches
    found = checks.usage(program.code[launch.code], program.text[f"{launch.code}.ptx"])
    assert found.engine > 0 == found.copies and found.wgmma > 0 == found.mma
    assert found.spills == found.stack == 0 and found.registers <= 255
    assert launch.meta["shared"] <= TARGETS["sm_90"].shared
    # Launches share scratch memory: nothing is written to it before the one before has ended.
    assert checks.waits(program.code[launch.code])
    programs, each = launch.meta["grid"][0], launch.meta["global_scratch"]
    assert each >= 2 * 128  # two descriptors
    slot = next(s for s in program.slots if s.name == launch.args[-1][0])
    assert slot.nbytes == programs * each and not slot.persistent
    assert found.parameters == len(launch.args) - 1 + 2  # scratch is one of Triton's own two


def test_a_tile_that_does_not_fit_gives_way_to_a_smaller_one():
    """Results of f32 take twice the shared memory on their way out."""
    kernel = hand.narrowed(hand.inner_product(4096, 4096, 256))
    (reduce, store) = kernel.body
    wide = replace(kernel, body=(reduce, replace(store, dtype="f32")))
    backend = Backend("sm_90", "bf16")
    for one in (kernel, wide):
        tiling = next(t for t in described(backend, one) if (t["m"], t["n"]) == (128, 256))
        (launch,) = (program := runs.program(tuned(backend, one, tiling), (one,))).launches
        assert "make_tensor_descriptor" in program.text[launch.meta["source"]]
        assert launch.meta["shared"] <= TARGETS["sm_90"].shared
        assert (", [64, 256])" in program.text[launch.meta["source"]]) == (one is kernel)


def test_tiles_for_blackwell():
    kernel = hand.narrowed(hand.inner_product(8192, 8192, 8192))
    backend = Backend("sm_100", "bf16")
    program = runs.program(tuned(backend, kernel, described(backend, kernel)[0]), (kernel,))
    (launch,) = program.launches
    ptx = program.text[f"{launch.code}.ptx"]
    found = checks.usage(program.code[launch.code], ptx)
    assert "tcgen05.mma" in ptx and found.engine > 0 == found.copies and found.spills == 0
    assert launch.meta["shared"] <= TARGETS["sm_100"].shared


def test_programs_stay_and_share_out_the_tiles():
    kernel = hand.narrowed(hand.inner_product(8192, 8192, 8192))
    backend = Backend("sm_90", "bf16", binary=False)
    text = tuned(backend, kernel, described(backend, kernel)[0]).render(kernel)
    assert re.search(r"for tile in tl\.range\(pid, 2048, 132, flatten=True\)", text)


def test_a_kernel_whose_programs_stay_shares_no_binary():
    kernel = hand.narrowed(hand.inner_product(512, 512, 512))
    backend = Backend("sm_90", "bf16", binary=False)
    table = tuned(backend, kernel, described(backend, kernel)[0]).tilings
    stays = render_kernel(kernel, TARGETS["sm_90"], "bf16", tilings=table)
    plain = render_kernel(kernel, TARGETS["sm_90"], "bf16")
    assert divide([plain, plain], 132) == [[0, 1]]
    assert sorted(divide([plain, stays, plain, stays], 132)) == [[0, 2], [1], [3]]


@pytest.mark.parametrize("offset, described_", [(0, True), (16, True), (8, False)])
def test_buffers_that_are_not_aligned(offset, described_):
    kernel = hand.inner_product(128, 64, 64)
    backend = Backend("interpreter", "tf32")
    backend = tuned(backend, kernel, described(backend, kernel)[0])
    found = runs.sizes([kernel])
    buffers = {name: Buffer(name, dtype, n, "state") for name, (n, dtype) in found.items()}
    places = {name: Place(name, offset if name == "x" else 0) for name in found}
    made = backend.compile("hand", Schedule(((kernel,),), buffers), places, tuple(found))
    assert ("descriptor" in "".join(made.text.values())) == described_
