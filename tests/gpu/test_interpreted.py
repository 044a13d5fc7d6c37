"""Nets train on the CUDA device as on the cpu: all of it is real but driver and machine code."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from bench.cases import CASES, Case
from tests.gpu.interpreted import trained

pytest.importorskip("triton")

RNN = replace(CASES["char_rnn_128"], batch=2, classes=9, steps=4, embed=8, hidden=16)


@pytest.mark.parametrize("case", [replace(CASES["lenet"], batch=2), RNN], ids=["lenet", "char_rnn"])
def test_a_net_trains_as_on_the_cpu(case: Case) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(trained, case, "cuda", 3).result()
    np.testing.assert_allclose(found, trained(case, "cpu", 3), rtol=2e-5)
