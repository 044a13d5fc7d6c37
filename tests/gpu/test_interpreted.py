"""Nets train on the CUDA device as on the cpu: all of it is real but driver and machine code."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.cases import CASES, Case
from schemas.errors import BackendError
from tests.gpu.interpreted import located, trained

pytest.importorskip("triton")

RNN = replace(CASES["char_rnn_128"], batch=2, classes=9, steps=4, embed=8, hidden=16)


@pytest.mark.parametrize("case", [replace(CASES["lenet"], batch=2), RNN], ids=["lenet", "char_rnn"])
def test_a_net_trains_as_on_the_cpu(case: Case) -> None:
    found = apart(trained, case, "cuda", 3)
    np.testing.assert_allclose(found, trained(case, "cpu", 3), rtol=2e-5)


def test_a_wrong_kernel_is_located() -> None:
    """It alone: those that read what it wrote do what they should."""
    case = replace(CASES["lenet"], batch=2)
    wrong, said = apart(located, case, "", False, "bf16")
    assert wrong == [] and said[0] == "1 pool1: conv1, pool1"
    wrong, said = apart(located, case, "d(ip1/weight)")
    assert wrong == ["d(ip1/weight)"]
    (told,) = (line for line in said if line.startswith("WRONG: "))
    assert told.startswith("WRONG: d(ip1/weight) of ip1 in launch d_ip1_weight: ")
    with pytest.raises(BackendError, match="launch 'ip1' of ip1, relu1: .* it has grid .0, 1, 1"):
        apart(located, case, "ip1")


@pytest.mark.parametrize("whole", [False, True])
def test_kernels_of_loops_are_looked_at(whole: bool) -> None:
    wrong, said = apart(located, replace(RNN, steps=9), "", whole)
    assert wrong == [] and any("loop1" in line for line in said) == whole


def apart(work: Callable[..., Any], *args: object) -> Any:
    """Returns what a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()
