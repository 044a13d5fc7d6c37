"""Learning-rate policies: the rate of each iteration, a pure function of the solver file."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

from schemas.errors import Diagnostics, SpecError, did_you_mean
from schemas.solver import SolverSpec


def learning_rate(spec: SolverSpec, iteration: int) -> float:
    """Returns the learning rate of an iteration >= 0, computed in float64.

    Formulas: Caffe's SGDSolver::GetLearningRate. Warm-up is linear (Goyal et al., 2017): during the
    first `warmup_iter` iterations the policy's rate is multiplied by (iteration + 1) / warmup_iter.
    Raises SpecError where the formula has no finite value.
    """
    policy = POLICIES.get(spec.lr_policy)
    if policy is None:
        raise _unknown(spec)
    try:
        factor = policy(spec, iteration)
    except OverflowError:
        factor = math.inf
    # A negative base with a fractional power is complex in Python.
    rate = math.nan if isinstance(factor, complex) else spec.base_lr * factor
    if not math.isfinite(rate):
        message = f"lr_policy '{spec.lr_policy}' has no finite rate at iteration {iteration}"
        raise SpecError(message, spec.where("lr_policy"))
    if spec.lr_policy == "cosine":
        rate += spec.min_lr * (1 - factor)
    if iteration < spec.warmup_iter:
        rate *= (iteration + 1) / spec.warmup_iter
    return rate


def check_schedule(spec: SolverSpec, diagnostics: Diagnostics) -> None:
    """Notes what a policy needs and the solver file does not give."""
    if spec.lr_policy not in POLICIES:
        diagnostics.error(_unknown(spec))
    elif spec.lr_policy == "step" and spec.stepsize < 1:
        message = f"lr_policy 'step' needs a stepsize of 1 or more, not {spec.stepsize}"
        diagnostics.error(SpecError(message, spec.where("stepsize")))
    elif spec.lr_policy in ("poly", "cosine") and spec.max_iter < 1:
        message = f"lr_policy '{spec.lr_policy}' needs max_iter"
        diagnostics.error(SpecError(message, spec.where("lr_policy")))
    if spec.lr_policy == "multistep" and list(spec.stepvalues) != sorted(spec.stepvalues):
        message = "the stepvalues of lr_policy 'multistep' are not in ascending order"
        diagnostics.error(SpecError(message, spec.where("stepvalues")))


def _unknown(spec: SolverSpec) -> SpecError:
    message = f"unknown lr_policy '{spec.lr_policy}'"
    return SpecError(message, spec.where("lr_policy"), did_you_mean(spec.lr_policy, POLICIES))


def _fixed(spec: SolverSpec, iteration: int) -> float:
    return 1.0


def _step(spec: SolverSpec, iteration: int) -> float:
    return float(spec.gamma ** (iteration // max(1, spec.stepsize)))


def _exp(spec: SolverSpec, iteration: int) -> float:
    return float(spec.gamma**iteration)


def _inv(spec: SolverSpec, iteration: int) -> float:
    base = 1 + spec.gamma * iteration
    return math.nan if base <= 0 else float(base**-spec.power)


def _multistep(spec: SolverSpec, iteration: int) -> float:
    # The rate falls once an iteration at most: where values are equal, again in the next one.
    falls: list[int] = []
    for value in spec.stepvalues:
        falls.append(max(value, falls[-1] + 1) if falls else value)
    return float(spec.gamma ** bisect.bisect_right(falls, iteration))


def _poly(spec: SolverSpec, iteration: int) -> float:
    # Beyond max_iter the rate stays at 0, where Caffe would take the power of a negative number.
    return float(max(0.0, 1 - iteration / max(1, spec.max_iter)) ** spec.power)


def _sigmoid(spec: SolverSpec, iteration: int) -> float:
    return 1 / (1 + math.exp(-spec.gamma * (iteration - spec.stepsize)))


def _cosine(spec: SolverSpec, iteration: int) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, 2017), with `min_lr` as its floor."""
    return (1 + math.cos(math.pi * min(1.0, iteration / max(1, spec.max_iter)))) / 2


POLICIES: dict[str, Callable[[SolverSpec, int], float]] = {
    "fixed": _fixed,
    "step": _step,
    "exp": _exp,
    "inv": _inv,
    "multistep": _multistep,
    "poly": _poly,
    "sigmoid": _sigmoid,
    "cosine": _cosine,
}
