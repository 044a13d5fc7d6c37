"""Every layer case on every backend: tops against NumPy, gradients against finite differences."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from compiler.layers import layer_types
from compiler.passes.autodiff import gradients
from tests.case_build import (
    Array,
    Backend,
    Built,
    FusedKernels,
    OnDevice,
    Reference,
    build_case,
    expected,
    slopes,
)
from tests.cases import CASES, Case
from tests.references import softmax

BACKENDS: list[Backend] = [FusedKernels(), OnDevice("cpu")]
if find_spec("triton"):  # Linux only; where there is no GPU, Triton's interpreter runs the kernels
    BACKENDS.append(OnDevice("triton", "interpreter"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case: Case) -> None:
    built = build_case(case)
    found = Reference().run(built.graph, built.values)
    for i, want in enumerate(expected(case, built)):
        got = found[f"top{i}"]
        assert got.shape == built.tops[i].shape == np.shape(want)
        size = max(1.0, float(np.max(np.abs(want), initial=0)))
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10 * size)


@pytest.mark.parametrize("case", [c for c in CASES if c.gradient], ids=str)
def test_gradient_is_the_slope(case: Case) -> None:
    along, slope = slopes(build_case(case))
    assert along == pytest.approx(slope, rel=2e-7, abs=1e-8)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_backend_agrees(case: Case, backend: Backend) -> None:
    """The reference is checked above: a backend only has to agree with it, tops and gradients."""
    built = build_case(case)
    want = Reference().run(built.graph, built.values)
    got = backend.run(built.graph, built.values)
    for name, array in want.items():
        assert np.all(np.isfinite(array)), name
        size = max(1.0, float(np.max(np.abs(array), initial=0)))
        np.testing.assert_allclose(got[name], array, rtol=backend.rtol, atol=backend.rtol * size)


def test_every_layer_has_a_case() -> None:
    elsewhere = {"Python"}  # tests/python_layer
    missing = set(layer_types()) - {case.layer["type"] for case in CASES} - elsewhere
    assert not missing, f"no row in tests/cases.py for {sorted(missing)}"


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


def test_gradient_goes_to_the_first_of_equal_maxima() -> None:
    built = build_case(replace(case_called("pool_max_ties"), gradient=True))
    d = gradient_of_first_bottom(built)
    assert np.all((d != 0)[..., ::2, ::2])
    assert np.count_nonzero(d) == d.size // 4


def test_gradient_of_a_loss_goes_on_where_what_is_shown_stops() -> None:
    case = case_called("softmax_loss_large")
    built = build_case(replace(case, gradient=True))
    x, label, seed = (built.values["input", name] for name in ("x0", "x1", "seed"))
    picked = np.arange(7) == label.reshape(5, 1)
    assert np.min(softmax(x)[picked]) < 2.0**-126
    want = (softmax(x) - picked) / 5 * seed
    np.testing.assert_allclose(gradient_of_first_bottom(built), want, atol=1e-12)


def case_called(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def gradient_of_first_bottom(built: Built) -> Array:
    assert built.graph.loss is not None
    built.graph.outputs = {"d": gradients(built.graph.loss, [built.graph.inputs["x0"]])[0]}
    return Reference().run(built.graph, built.values)["d"]
