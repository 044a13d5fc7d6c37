"""Nets train on the CUDA device as on the cpu: all is real but the GPU, which is emulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.cases import CASES
from compiler.backends.triton import Backend
from netdef.engine import Engine, open_engine
from schemas.errors import BackendError
from schemas.precision import Precision
from tests.gpu.emulated import EmulatedDevice
from tests.gpu.training import SpoilingDevice, located, trained

pytest.importorskip("triton")

LENET = replace(CASES["lenet"], batch=2, item=(1, 20, 20))
RNN = replace(CASES["char_rnn_128"], batch=2, classes=9, steps=4, embed=8, hidden=16)


def test_a_net_trains_as_on_the_cpu() -> None:
    device = EmulatedDevice("sm_90")
    found = trained(RNN, Engine(Backend("sm_90", "fp32"), device), 3)
    np.testing.assert_allclose(found, trained(RNN, open_engine("cpu", threads=1), 3), rtol=2e-5)
    assert not device.driver.api.unreleased()


def test_the_order_of_blocks_changes_nothing() -> None:
    """Not a bit: neither parts of sums nor what meets at a counter."""
    backend = Backend("sm_90", "bf16")
    found = [trained(LENET, Engine(backend, EmulatedDevice("sm_90", seed)), 1) for seed in (1, 2)]
    assert found[0] == found[1]
    wanted = trained(LENET, open_engine("cpu", threads=1), 1)
    np.testing.assert_allclose(found[0][0], wanted[0], rtol=1e-2)


@pytest.mark.parametrize(
    "target, precision", [("sm_80", "tf32"), ("sm_90", "tf32"), ("sm_90", "bf16")]
)
def test_every_kernel_computes_what_it_should(target: str, precision: Precision) -> None:
    wrong, said = located(LENET, Engine(Backend(target, precision), EmulatedDevice(target)))
    assert wrong == [] and said[0] == "1 pool1: conv1, pool1"


def test_a_wrong_kernel_is_located() -> None:
    """It alone: those that read what it wrote do what they should."""

    def without_a_block_of(kernel: str) -> Engine:
        return Engine(Backend("sm_90", "fp32"), SpoilingDevice("sm_90", kernel))

    wrong, said = located(LENET, without_a_block_of("pool2"))
    assert wrong == ["pool2"]
    (told,) = (line for line in said if line.startswith("WRONG: "))
    assert told.startswith("WRONG: pool2 of conv2, pool2 in launch pool2: ")
    with pytest.raises(BackendError, match="launch 'ip2' of ip2: .* it has grid .0, 1, 1"):
        located(LENET, without_a_block_of("ip2"))


@pytest.mark.parametrize("whole", [False, True])
def test_kernels_of_loops_are_looked_at(whole: bool) -> None:
    backend = Backend("sm_90", "fp32", persistent=whole)
    wrong, said = located(replace(RNN, steps=9), Engine(backend, EmulatedDevice("sm_90")))
    assert wrong == [] and any("loop1" in line for line in said) == whole
