"""Tilings of the cpu backend: every candidate computes the same bits, and a table chooses one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.kernels.kernel import Kernel
from compiler.tilings import Tiling, Tilings
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.test_cpu_kernels import (
    backend,
    data_gradient,
    more_kernels,
    program,
    run,
    weight_gradient_of_product,
)


def tuned(target: str, kernel: Kernel, tiling: Tiling):
    made = backend(target)
    tunable = made.tunable(kernel)
    assert tunable is not None
    return made.tuned(Tilings(made.host.name, {tunable.key: tiling}))


def check_candidates(target: str, kernel: Kernel) -> None:
    made = backend(target)
    tunable = made.tunable(kernel)
    if tunable is None:
        return
    contents = runs.contents([(kernel,)])
    wanted = run(program(made, (kernel,)), 1, contents)
    texts = {made.render(kernel)}
    for tiling in tunable.tilings[1:]:
        other = tuned(target, kernel, tiling)
        texts.add(other.render(kernel))
        got = run(program(other, (kernel,)), 2, contents)
        for name, value in wanted.items():
            np.testing.assert_array_equal(got[name], value, err_msg=f"{tiling} {name}")
    assert len(texts) == len(tunable.tilings)  # each is another function


NAMES = (
    "conv_grouped", "conv_wide", "data_gradient", "weight_gradient_copied",
    "product_gradient_longer", "product_long", "inner_product_transposed", "inner_product_batch",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_candidates_give_equal_bits(name):
    kernel = {**hand.every_kind(), **more_kernels()}[name]
    assert backend("x86-64-v3").tunable(kernel)
    check_candidates("x86-64-v3", kernel)


SIZES = st.sampled_from([1, 2, 3, 5, 8, 13, 17])


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["host", "x86-64-v3/4"]),
    st.sampled_from([hand.conv_forward, data_gradient, hand.conv_weight_gradient]),
    st.tuples(st.integers(1, 3), st.integers(5, 13), SIZES, SIZES, SIZES),
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2)),
)
def test_candidates_of_any_convolution(target, make, shape, window):
    kernel, stride, pad = window
    n, h, w, ci, co = shape
    pad = min(pad, kernel - 1)
    w = max(w, kernel - 2 * pad)
    check_candidates(target, make(n, h, w, ci, co, kernel, stride, pad))


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([1, 2, 7, 16, 100]),
    st.sampled_from([1, 5, 16, 31, 300]),
    st.sampled_from([1, 3, 16, 4500]),
    st.booleans(),
)
def test_candidates_of_any_product(m, n, k, transposed):
    check_candidates("host", hand.inner_product(m, n, k, transposed))


def test_a_table_chooses_the_tiling():
    kernel = weight_gradient_of_product(300, 65, 131)
    plain = backend("x86-64-v3")
    model, *others = plain.tunable(kernel).tilings
    for tiling in (others[0], others[-1]):
        made = tuned("x86-64-v3", kernel, tiling)
        assert made.render(kernel) != plain.render(kernel)
        assert made.version() != plain.version()  # a cached Program is not taken for it
    same = tuned("x86-64-v3", kernel, model)
    assert same.render(kernel) == plain.render(kernel)


@pytest.mark.parametrize(
    "wrong", [{}, {"mr": 3}, {"vector": 1, "row": 0, "mr": 99, "nv": 1, "packed": 0}]
)
def test_an_impossible_tiling_is_not_taken(wrong):
    kernel = weight_gradient_of_product(300, 65, 131)
    made = tuned("x86-64-v3", kernel, wrong)
    assert made.render(kernel) == backend("x86-64-v3").render(kernel)


def test_the_key_says_what_is_computed_not_where():
    made = backend("x86-64-v3")
    one, same, other = (
        made.tunable(hand.inner_product(*shape)).key
        for shape in ((20, 40, 300), (20, 40, 300), (20, 40, 301))
    )
    assert one == same != other
    assert backend("x86-64-v3/4").tunable(hand.inner_product(20, 40, 300)).key != one
    assert made.tunable(hand.update(1000)) is None
