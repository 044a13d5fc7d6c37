"""Checks what the fields of a solver need of each other."""

from __future__ import annotations

from schemas.errors import Diagnostics, SpecError
from schemas.solver import SolverSpec

_SOURCES = ("net", "net_param", "train_net", "train_net_param")


def check_solver(spec: SolverSpec, diag: Diagnostics) -> None:
    """Reports combinations of fields that make no solver."""
    _check_nets(spec, diag)
    _check_tests(spec, diag)
    _check_rate(spec, diag)
    _check_method(spec, diag)
    if spec.debug_info:
        hint = "net.forward(blobs=[...]) gives inner blobs, net.grads the gradients"
        message = "'debug_info' prints nothing here"
        diag.warn(SpecError(message, spec.where("debug_info"), hint))


def tests_own_net(spec: SolverSpec) -> bool:
    """Returns whether the net that is trained can also be tested."""
    return bool({"net", "net_param"} & spec.raw.keys())


def _error(
    spec: SolverSpec, diag: Diagnostics, field: str, message: str, hint: str | None = None
) -> None:
    diag.error(SpecError(message, spec.where(field), hint))


def _check_nets(spec: SolverSpec, diag: Diagnostics) -> None:
    given = [name for name in _SOURCES if name in spec.raw]
    if not given:
        _error(spec, diag, "net", "the solver names no net", "write net: net.yaml")
    for extra in given[1:]:
        hint = f"give one of {', '.join(_SOURCES)}"
        message = f"'{extra}' and '{given[0]}' both name the net to train"
        _error(spec, diag, extra, message, hint)


def _check_tests(spec: SolverSpec, diag: Diagnostics) -> None:
    written = len(spec.test_nets) + len(spec.test_net_params)
    tests = len(spec.test_iters)
    if spec.test_interval and not tests:
        message = "'test_interval' without 'test_iter': nothing is tested"
        hint = "write test_iter: the number of batches of one test"
        diag.warn(SpecError(message, spec.where("test_interval"), hint))
    if written and not tests:
        field = "test_net" if spec.test_nets else "test_net_param"
        hint = "write one test_iter for each test net"
        _error(spec, diag, field, f"'{field}' without 'test_iter'", hint)
    elif written > tests:
        message = f"{written} test nets need {written} 'test_iter', not {tests}"
        _error(spec, diag, "test_iter", message)
    elif not written and not tests_own_net(spec):
        if tests:  # older Caffes took such solvers, and tested nothing
            message = f"{tests} 'test_iter' but no net to test: nothing is tested"
            hint = "name the test nets with test_net, or give the net as 'net'"
            diag.warn(SpecError(message, spec.where("test_iter"), hint))
    elif written < tests and not tests_own_net(spec):
        message = f"{tests} 'test_iter' for {written} test nets"
        hint = "name the test nets with test_net, or give the net as 'net'"
        _error(spec, diag, "test_iter", message, hint)
    elif tests and not spec.test_interval:
        message = "'test_iter' without 'test_interval'"
        hint = "write test_interval: the number of iterations between tests"
        _error(spec, diag, "test_iter", message, hint)
    if spec.test_states and len(spec.test_states) != tests:
        message = f"{len(spec.test_states)} 'test_state' for {tests} test nets"
        _error(spec, diag, "test_state", message, "write one for each test_iter, or none")


def _check_rate(spec: SolverSpec, diag: Diagnostics) -> None:
    if spec.base_lr <= 0:
        message = f"'base_lr' must be above 0, not {spec.base_lr:g}"
        _error(spec, diag, "base_lr", message)
    policy = spec.lr_policy
    if policy in ("step", "sigmoid") and spec.stepsize <= 0:
        hint = "write stepsize: the number of iterations of one step"
        _error(spec, diag, "lr_policy", f"lr_policy '{policy}' needs 'stepsize'", hint)
    if policy == "multistep" and not spec.stepvalues:
        hint = "write stepvalue: the iterations at which the rate falls"
        _error(spec, diag, "lr_policy", "lr_policy 'multistep' needs 'stepvalue'", hint)
    if list(spec.stepvalues) != sorted(spec.stepvalues):
        _error(spec, diag, "stepvalue", "the values of 'stepvalue' must not decrease")
    if policy in ("poly", "cosine") and spec.max_iter <= 0:
        hint = "the rate falls to its end at max_iter"
        _error(spec, diag, "lr_policy", f"lr_policy '{policy}' needs 'max_iter'", hint)


def _check_method(spec: SolverSpec, diag: Diagnostics) -> None:
    if "solver_type" in spec.raw and "type" in spec.raw:
        hint = "leave out solver_type, the older form"
        _error(spec, diag, "solver_type", "'type' and 'solver_type' are both given", hint)
    if spec.type in ("AdaGrad", "RMSProp") and spec.momentum != 0:
        hint = f"leave it out; {spec.type} has none"
        message = f"{spec.type} takes no 'momentum', but it is {spec.momentum:g}"
        _error(spec, diag, "momentum", message, hint)
    for name, value in (
        ("momentum", spec.momentum),
        ("momentum2", spec.momentum2),
        ("rms_decay", spec.rms_decay),
    ):
        if not 0 <= value < 1:
            message = f"'{name}' must be from 0 to below 1, not {value:g}"
            _error(spec, diag, name, message)
    if spec.weight_decay < 0:
        message = f"'weight_decay' must be 0 or more, not {spec.weight_decay:g}"
        _error(spec, diag, "weight_decay", message)
    if spec.weight_decay_l1 is not None and spec.regularization_type != "L1L2":
        hint = "write regularization_type: L1L2"
        message = "'weight_decay_l1' has no effect without regularization_type L1L2"
        _error(spec, diag, "weight_decay_l1", message, hint)
