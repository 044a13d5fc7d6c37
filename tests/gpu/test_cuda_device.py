"""Hand-built kernels on a GPU against the NumPy oracle; where there is none, on an emulated one."""

from __future__ import annotations

import importlib.util

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
from tests.gpu.emulated import EmulatedDevice

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

TARGETS = ["sm_80", "sm_90"] if usable_gpu() is None else [usable_gpu()]
N = 1 if usable_gpu() is None else 16  # of large kernels: an emulated GPU is slow


@pytest.fixture(params=TARGETS)
def target(request):
    return request.param


@pytest.fixture(scope="module")
def gpu():
    return None if usable_gpu() is None else CudaDevice(0)


@pytest.fixture
def device(gpu, target):
    """The GPU, unless a kernel of another test broke this process's context: that test failed."""
    if gpu is None:
        return EmulatedDevice(target)
    try:
        gpu.driver.synchronize()
    except BackendError as error:
        pytest.skip(str(error))
    return gpu


@pytest.fixture
def exact(target):
    return Backend(target, "fp32")


@pytest.mark.parametrize("name", every_kind())
def test_every_kind(device, exact, name):
    check(device, exact, (every_kind()[name],), tolerance=1e-4)


LARGE = {
    "conv": hand.conv_forward(N, 28, 28, 32, 48, 3, 1, 1),
    "conv_strided": hand.conv_forward(N, 29, 31, 3, 20, 5, 2, 2),
    "conv_data_gradient": hand.conv_data_gradient(N, 28, 28, 32, 48, 3, 2, 1),
    "conv_weight_gradient": hand.conv_weight_gradient(N, 28, 28, 32, 48, 3, 1, 1),
    "inner_product": hand.inner_product(100, 500, 50 * N),
    "inner_product_transposed": hand.inner_product(100, 500, 50 * N, transposed=True),
    "max_pool": hand.max_pool(N, 27, 27, 96, 3, 2),
    "unpool": hand.unpool(N, 27, 27, 96, 3, 2),
    "softmax": hand.softmax(100, 1000),
    "softmax_loop": hand.softmax(3, 20000),
    "column_sums": hand.column_sums(6000 * N, 70),
    "update": hand.update(60_000 * N + 3),
}


@pytest.mark.parametrize("target", TARGETS[-1:], indirect=True)
@pytest.mark.parametrize("name", LARGE)
def test_larger_kernels(device, exact, name):
    check(device, exact, (LARGE[name],), tolerance=1e-3)


@pytest.mark.parametrize("name", ["conv", "conv_data_gradient", "inner_product"])
def test_tensor_cores(device, target, name):
    check(device, Backend(target, "tf32"), (LARGE[name],), tolerance=5e-2)


@pytest.mark.parametrize("transposed", [False, True])
def test_descriptors(device, target, transposed):
    kernel, backend = hand.inner_product(64 * N, 520, 136, transposed), Backend(target, "tf32")
    found = backend.tunable(kernel)
    tilings = [t for t in found.tilings if "descriptors" in t]
    assert bool(tilings) == (target in ("sm_90", "sm_100", "sm_103"))
    for tiling in tilings:
        table = Tilings(target, {found.key: tiling})
        check(device, backend.tuned(table), (kernel,), tolerance=5e-2)


def test_groups(device, exact):
    maps = (hand.update(5000), hand.dropout(4000), every_kind()["map"])
    check(device, exact, maps, (every_kind()["inner_product"],))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("row", [5, 3000, 30_000])
def test_loops_over_time(device, target, row, backwards, persistent):
    backend = Backend(target, "fp32", persistent=persistent)
    check(device, backend, (fill(row),), hand_loop(backwards, row))


def test_random_words_are_those_of_the_other_backends(device, exact):
    check(device, exact, (hand.dropout(100_000),), tolerance=0)


def test_the_graph_replays_and_logs(device, exact):
    kernel = every_kind()["total"]
    executable = device.load(runs.program(exact, (kernel,)))
    for i in range(5):
        executable.write("x", np.full(20000, i, np.float32))
        executable.run(log=("loss",))
    assert [step["loss"] for step in executable.drain()] == [0, 1, 2, 3, 4]
    executable.close()


def test_steps_follow_each_other_without_waiting(device, exact):
    kernel = hand.update(1000)
    executable = device.load(runs.program(exact, (kernel,)))
    executable.write("gradients", np.ones(1000, np.float32))
    words = np.zeros(6, np.float32)
    words[3] = 0.5
    executable.write("scalars", words)
    for _ in range(3):
        executable.run()
    # v: 0.5, 0.95, 1.355; w = -(sum of v)
    np.testing.assert_allclose(executable.read("params"), -2.805, rtol=1e-6)
    executable.close()
