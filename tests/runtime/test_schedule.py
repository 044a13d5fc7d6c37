"""Every learning-rate policy against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from runtime.schedule import POLICIES, check_schedule, learning_rate
from schemas.errors import Diagnostics, SpecError
from schemas.solver import SolverSpec

TABLE = [
    ("fixed", {}, {0: 0.01, 999: 0.01}),
    ("step", {"gamma": 0.1, "stepsize": 10}, {0: 0.01, 9: 0.01, 10: 0.001, 25: 0.0001}),
    ("exp", {"gamma": 0.5}, {0: 0.01, 1: 0.005, 3: 0.00125}),
    ("inv", {"gamma": 0.0001, "power": 0.75}, {0: 0.01, 10000: 0.01 * 2**-0.75}),
    ("inv", {"gamma": 1.0, "power": 2.0}, {1: 0.0025, 3: 0.000625}),
    ("multistep", {"gamma": 0.1, "stepvalues": (5, 8)}, {4: 0.01, 5: 1e-3, 7: 1e-3, 8: 1e-4}),
    ("multistep", {"gamma": 0.1, "stepvalues": (5, 5, 6)}, {4: 0.01, 5: 1e-3, 6: 1e-4, 7: 1e-5}),
    ("poly", {"power": 2.0, "max_iter": 10}, {0: 0.01, 5: 0.0025, 10: 0.0, 12: 0.0}),
    ("sigmoid", {"gamma": -1.0, "stepsize": 5}, {5: 0.005, 6: 0.01 / (1 + math.e)}),
    ("cosine", {"max_iter": 100, "min_lr": 0.002}, {0: 0.01, 50: 0.006, 100: 0.002, 200: 0.002}),
    ("fixed", {"warmup_iter": 4}, {0: 0.0025, 1: 0.005, 3: 0.01, 4: 0.01}),
]


@pytest.mark.parametrize(("policy", "fields", "rates"), TABLE)
def test_rates(policy: str, fields: dict[str, float], rates: dict[int, float]) -> None:
    spec = replace(SolverSpec(base_lr=0.01, lr_policy=policy), **fields)  # type: ignore[arg-type]
    for iteration, rate in rates.items():
        assert learning_rate(spec, iteration) == pytest.approx(rate, rel=1e-12)


def test_every_policy_has_a_row() -> None:
    assert {row[0] for row in TABLE} == set(POLICIES)


def test_rate_without_a_finite_value() -> None:
    for fields in ({"lr_policy": "exp", "gamma": 10.0}, {"lr_policy": "inv", "gamma": -1.0}):
        with pytest.raises(SpecError, match="no finite rate at iteration 1000"):
            learning_rate(replace(SolverSpec(), **fields), 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr_policy": "multi"}, "unknown lr_policy 'multi'"),
        ({"lr_policy": "step"}, "needs a stepsize of 1 or more, not 0"),
        ({"lr_policy": "poly"}, "needs max_iter"),
        ({"lr_policy": "multistep", "stepvalues": (8, 5)}, "not in ascending order"),
    ],
)
def test_what_a_policy_needs(fields: dict[str, object], message: str) -> None:
    diagnostics = Diagnostics()
    check_schedule(replace(SolverSpec(), **fields), diagnostics)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=message):
        diagnostics.raise_if_any()


def test_a_wrong_policy_gets_a_hint() -> None:
    with pytest.raises(SpecError, match="did you mean 'multistep'"):
        learning_rate(SolverSpec(lr_policy="multi_step"), 0)
