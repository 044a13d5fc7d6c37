"""Hand-built kernels on a real GPU against the NumPy oracle; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.backends.triton import Backend
from compiler.tilings import Tilings
from runtime.cuda import CudaDevice, usable_gpu
from schemas.errors import BackendError
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.hand_kernels import every_kind
from tests.backends.hand_loops import fill, hand_loop
from tests.backends.hand_programs import check

pytestmark = pytest.mark.skipif(usable_gpu() is None, reason="there is no usable GPU")


@pytest.fixture(scope="module")
def gpu():
    return CudaDevice(0)


@pytest.fixture
def device(gpu):
    """The GPU, unless a kernel of another test broke this process's context: that test failed."""
    try:
        gpu.driver.synchronize()
    except BackendError as error:
        pytest.skip(str(error))
    return gpu


def exact():
    return Backend(usable_gpu(), "fp32")


@pytest.mark.parametrize("name", every_kind())
def test_every_kind(device, name):
    check(device, exact(), (every_kind()[name],), tolerance=1e-4)


LARGE = {
    "conv": hand.conv_forward(16, 28, 28, 32, 48, 3, 1, 1),
    "conv_strided": hand.conv_forward(8, 29, 31, 3, 20, 5, 2, 2),
    "conv_data_gradient": hand.conv_data_gradient(8, 28, 28, 32, 48, 3, 2, 1),
    "conv_weight_gradient": hand.conv_weight_gradient(8, 28, 28, 32, 48, 3, 1, 1),
    "inner_product": hand.inner_product(100, 500, 800),
    "inner_product_transposed": hand.inner_product(100, 500, 800, transposed=True),
    "max_pool": hand.max_pool(8, 27, 27, 96, 3, 2),
    "unpool": hand.unpool(8, 27, 27, 96, 3, 2),
    "softmax": hand.softmax(100, 1000),
    "softmax_loop": hand.softmax(3, 20000),
    "column_sums": hand.column_sums(100_000, 70),
    "update": hand.update(1_000_003),
}


@pytest.mark.parametrize("name", LARGE)
def test_larger_kernels(device, name):
    check(device, exact(), (LARGE[name],), tolerance=1e-3)


@pytest.mark.parametrize("name", ["conv", "conv_data_gradient", "inner_product"])
def test_tensor_cores(device, name):
    check(device, Backend(usable_gpu(), "tf32"), (LARGE[name],), tolerance=5e-2)


@pytest.mark.parametrize("transposed", [False, True])
def test_descriptors(device, transposed):
    kernel, backend = hand.inner_product(1000, 520, 136, transposed), Backend(usable_gpu(), "tf32")
    found = backend.tunable(kernel)
    tilings = [t for t in found.tilings if "descriptors" in t]
    assert bool(tilings) == (usable_gpu() in ("sm_90", "sm_100", "sm_103"))
    for tiling in tilings:
        table = Tilings(usable_gpu(), {found.key: tiling})
        check(device, backend.tuned(table), (kernel,), tolerance=5e-2)


def test_groups(device):
    maps = (hand.update(5000), hand.dropout(4000), every_kind()["map"])
    check(device, exact(), maps, (every_kind()["inner_product"],))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("row", [5, 3000, 30_000])
def test_loops_over_time(device, row, backwards, persistent):
    backend = Backend(usable_gpu(), "fp32", persistent=persistent)
    check(device, backend, (fill(row),), hand_loop(backwards, row))


def test_random_words_are_those_of_the_other_backends(device):
    check(device, exact(), (hand.dropout(100_000),), tolerance=0)


def test_the_graph_replays_and_logs(device):
    kernel = every_kind()["total"]
    executable = device.load(runs.program(exact(), (kernel,)))
    for i in range(5):
        executable.write("x", np.full(20000, i, np.float32))
        executable.run(log=("loss",))
    assert [step["loss"] for step in executable.drain()] == [0, 1, 2, 3, 4]
    executable.close()


def test_steps_follow_each_other_without_waiting(device):
    kernel = hand.update(1000)
    executable = device.load(runs.program(exact(), (kernel,)))
    executable.write("gradients", np.ones(1000, np.float32))
    words = np.zeros(6, np.float32)
    words[3] = 0.5
    executable.write("scalars", words)
    for _ in range(3):
        executable.run()
    # v: 0.5, 0.95, 1.355; w = -(sum of v)
    np.testing.assert_allclose(executable.read("params"), -2.805, rtol=1e-6)
    executable.close()
