"""Every update rule and rate policy for 60 iterations beside Caffe's formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import netdef
from schemas.errors import NetError

Array = np.ndarray[Any, Any]
Values = dict[str, Array]
Fields = dict[str, Any]

BATCH, RECORDS, STEPS = 5, 15, 60
NET = f"""\
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "d.npz" batch_size: {BATCH} }} }}
layer {{ name: "a" type: "InnerProduct" bottom: "data" top: "a"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 4 weight_filler {{ type: "gaussian" std: 0.5 }} }} }}
layer {{ name: "t" type: "TanH" bottom: "a" top: "a" }}
layer {{ name: "b" type: "InnerProduct" bottom: "a" top: "b"
  param {{ lr_mult: 0.5 decay_mult: 2.5 }} param {{ lr_mult: 0 }}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "loss" }}
"""
LR = {"a/weight": 1.0, "a/bias": 2.0, "b/weight": 0.5, "b/bias": 0.0}
DECAY = {"a/weight": 1.0, "a/bias": 0.0, "b/weight": 2.5, "b/bias": 1.0}
RULES: dict[str, Fields] = {
    "SGD": {"base_lr": 0.2},
    "SGD_momentum": {"type": "SGD", "base_lr": 0.1, "momentum": 0.9},
    "Nesterov": {"base_lr": 0.1, "momentum": 0.9},
    "AdaGrad": {"base_lr": 0.1, "delta": 1e-4},
    "RMSProp": {"base_lr": 0.02, "rms_decay": 0.9, "delta": 1e-3},
    "AdaDelta": {"base_lr": 1.0, "momentum": 0.95, "delta": 1e-6},
    "Adam": {"base_lr": 0.02, "momentum": 0.9, "momentum2": 0.99, "delta": 1e-6},
    "AdamW": {"base_lr": 0.02, "momentum": 0.9, "momentum2": 0.99, "delta": 1e-6},
    # Caffe's default: a history that is written and never read.
    "Nesterov_0": {"type": "Nesterov", "base_lr": 0.1},
    "AdaDelta_0": {"type": "AdaDelta", "base_lr": 1.0, "delta": 1e-3},
    "Adam_0": {"type": "Adam", "base_lr": 0.02, "momentum2": 0.99, "delta": 1e-6},
}
POLICIES: dict[str, Fields] = {
    "fixed": {},
    "step": {"gamma": 0.5, "stepsize": 7},
    "exp": {"gamma": 0.95},
    "inv": {"gamma": 0.1, "power": 0.75},
    "multistep": {"gamma": 0.4, "stepvalue": [3, 4, 30]},
    "poly": {"power": 1.5},
    "sigmoid": {"gamma": -0.2, "stepsize": 20},
}
TREATMENTS: dict[str, Fields] = {
    "plain": {},
    "l2": {"weight_decay": 0.02},
    "l1": {"weight_decay": 0.01, "regularization_type": "L1"},
    "clip": {"clip_gradients": 0.25},
    "iter_size": {"iter_size": 3},
    "everything": {"clip_gradients": 0.3, "iter_size": 2, "weight_decay": 0.02},
}


def gradients(w: Values, x: Array, y: Array) -> Values:
    h = np.tanh(x @ w["a/weight"].T + w["a/bias"])
    scores = h @ w["b/weight"].T + w["b/bias"]
    d = np.exp(scores - scores.max(1, keepdims=True))
    d /= d.sum(1, keepdims=True)
    d = (d - np.eye(3)[y]) / BATCH
    inner = (d @ w["b/weight"]) * (1 - h**2)
    return {
        **{"a/weight": inner.T @ x, "a/bias": inner.sum(0)},
        **{"b/weight": d.T @ h, "b/bias": d.sum(0)},
    }


def rate(f: Fields, t: int) -> float:
    base, gamma = f["base_lr"], f.get("gamma", 0.0)
    return {
        "fixed": lambda: base,
        "step": lambda: base * gamma ** math.floor(t / f["stepsize"]),
        "exp": lambda: base * gamma**t,
        "inv": lambda: base * (1 + gamma * t) ** -f["power"],
        "multistep": lambda: base * gamma ** len([v for v in f["stepvalue"] if v <= t]),
        "poly": lambda: base * (1 - t / f["max_iter"]) ** f["power"],
        "sigmoid": lambda: base / (1 + math.exp(-gamma * (t - f["stepsize"]))),
    }[f["lr_policy"]]()


def update(f: Fields, t: int, lr: float, g: Array, h: list[Array]) -> Array:
    """Returns what is taken off the weights; `h` are two history blobs."""
    mu, delta, kind = f.get("momentum", 0.0), f.get("delta", 1e-8), f["type"]
    if kind == "SGD":
        h[0] = mu * h[0] + lr * g
        return h[0]
    if kind == "Nesterov":
        old, h[0] = h[0], mu * h[0] + lr * g
        return (1 + mu) * h[0] - mu * old
    if kind == "AdaGrad":
        h[0] = h[0] + g**2
        return lr * g / (np.sqrt(h[0]) + delta)
    if kind == "RMSProp":
        h[0] = f["rms_decay"] * h[0] + (1 - f["rms_decay"]) * g**2
        return lr * g / (np.sqrt(h[0]) + delta)
    if kind == "AdaDelta":
        h[0] = mu * h[0] + (1 - mu) * g**2
        step = g * np.sqrt((h[1] + delta) / (h[0] + delta))
        h[1] = mu * h[1] + (1 - mu) * step**2
        return lr * step
    b2 = f["momentum2"]
    h[0], h[1] = mu * h[0] + (1 - mu) * g, b2 * h[1] + (1 - b2) * g**2
    correction = math.sqrt(1 - b2 ** (t + 1)) / (1 - mu ** (t + 1))
    return lr * correction * h[0] / (np.sqrt(h[1]) + delta)


def trajectory(f: Fields, w: Values, x: Array, y: Array) -> Iterator[Values]:
    """Yields the weights after each iteration: add up, clip, normalise, regularise, update."""
    history = {key: [np.zeros_like(v), np.zeros_like(v)] for key, v in w.items()}
    batch, size = 0, f.get("iter_size", 1)
    learned = [key for key in w if LR[key]]
    for t in range(STEPS):
        total = {key: np.zeros_like(w[key]) for key in learned}
        for _ in range(size):
            rows = np.arange(batch * BATCH, (batch + 1) * BATCH) % RECORDS
            batch += 1
            found = gradients(w, x[rows], y[rows])
            total = {key: total[key] + found[key] for key in learned}
        norm = math.sqrt(sum(float((g**2).sum()) for g in total.values()))
        limit = f.get("clip_gradients", -1.0)
        scale = limit / norm if 0 <= limit < norm else 1.0
        new = dict(w)
        for key in learned:
            g, decay = total[key] * scale / size, f.get("weight_decay", 0.0) * DECAY[key]
            decoupled = decay if f["type"] == "AdamW" else 0.0
            if not decoupled:
                l1 = f.get("regularization_type") == "L1"
                g = g + decay * (np.sign(w[key]) if l1 else w[key])
            lr = rate(f, t) * LR[key]
            new[key] = w[key] - update(f, t, lr, g, history[key]) - lr * decoupled * w[key]
        w = new
        yield w


def solver_text(fields: Fields) -> str:
    lines = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f'{name}: "{one}"' if isinstance(one, str) else f"{name}: {one}")
    return "\n".join(lines)


def fields_of(rule: str, policy: str = "fixed", treatment: str = "plain") -> Fields:
    base = {"net": "net.prototxt", "type": rule, "max_iter": 80, "lr_policy": policy}
    return {**base, "random_seed": 3, **RULES[rule], **POLICIES[policy], **TREATMENTS[treatment]}


ROWS = [
    *((rule, "fixed", "everything") for rule in RULES),
    *((rule, "fixed", "plain") for rule in RULES if not rule.endswith("_0")),
    *((rule, "fixed", "l2") for rule in ("SGD_momentum", "Nesterov", "Adam", "AdamW")),
    *(("SGD_momentum", "fixed", treatment) for treatment in ("l1", "clip", "iter_size")),
    *(("SGD_momentum", policy, "plain") for policy in POLICIES if policy != "fixed"),
    *(("Adam", policy, "plain") for policy in ("exp", "multistep", "poly")),
    ("AdaDelta", "inv", "l1"),
    ("RMSProp", "poly", "l1"),
    ("AdaGrad", "sigmoid", "l2"),
]
NATIVE = [row for row in ROWS if row[2] == "everything"]


def data() -> tuple[Array, Array]:
    random = np.random.default_rng(9)
    x = random.standard_normal((RECORDS, 1, 1, 6)).astype(np.float32)
    return x, random.integers(0, 3, RECORDS)


def opened(folder: Any, fields: Fields, backend: str) -> tuple[netdef.Solver, Values, Array, Array]:
    """Returns a solver, its first weights, and the records it reads in their order."""
    x, y = data()
    np.savez(folder / "d.npz", data=x, label=y)
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(solver_text(fields))
    solver = netdef.Solver(folder / "solver.prototxt", backend=backend)
    first = {key: value.astype(np.float64) for key, value in solver.weights().items()}
    return solver, first, x.reshape(RECORDS, -1).astype(np.float64), y


def follows(solver: netdef.Solver, states: Iterator[Values], tolerance: float) -> None:
    for wanted in states:
        solver.step(1)
        for key, value in solver.weights().items():
            size = max(1e-3, float(abs(wanted[key]).max()))
            np.testing.assert_allclose(value, wanted[key], rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_trajectory(row: tuple[str, str, str], tmp_path: Any) -> None:
    fields = fields_of(*row)
    solver, first, x, y = opened(tmp_path, fields, "reference")
    follows(solver, trajectory(fields, first, x, y), 1e-7)
    assert solver.iteration == STEPS
    solver.close()


@pytest.mark.parametrize("row", NATIVE, ids="-".join)
def test_trajectory_in_float32(row: tuple[str, str, str], tmp_path: Any) -> None:
    fields = fields_of(*row)
    solver, first, x, y = opened(tmp_path, fields, "cpu")
    follows(solver, trajectory(fields, first, x, y), 2e-4)
    solver.close()


def test_first_weights_may_be_assigned_in_float64(tmp_path: Any) -> None:
    fields = fields_of("Adam", "exp", "l2")
    solver, first, x, y = opened(tmp_path, fields, "reference")
    first = {key: value / 3 for key, value in first.items()}
    for layer in ("a", "b"):
        solver.net.params[layer] = {n: first[f"{layer}/{n}"] for n in ("weight", "bias")}
    follows(solver, trajectory(fields, first, x, y), 1e-9)
    solver.close()


@pytest.mark.parametrize("rule", ["SGD_momentum", "AdaGrad", "AdaDelta", "Adam"])
def test_snapshot_in_the_middle_changes_nothing(rule: str, tmp_path: Any) -> None:
    fields = fields_of(rule, "multistep", "everything")
    solver, first, x, y = opened(tmp_path, fields, "reference")
    states = list(trajectory(fields, first, x, y))
    solver.step(29)
    solver.snapshot(tmp_path / "s")
    solver.step(7)
    solver.restore(tmp_path / "s")
    assert solver.iteration == 29
    solver.step(STEPS - 29)
    for key, value in solver.weights().items():
        # A snapshot holds float32: what is lost there stays.
        np.testing.assert_allclose(value, states[-1][key], rtol=0, atol=1e-5)
    solver.close()


@pytest.mark.parametrize("rule", ["AdaGrad", "RMSProp"])
def test_momentum_is_refused_where_the_rule_has_none(rule: str, tmp_path: Any) -> None:
    with pytest.raises(NetError, match="momentum"):
        opened(tmp_path, {**fields_of(rule), "momentum": 0.9}, "reference")


CONSTANT = """\
layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 }
  data_filler { type: "constant" value: 0.5 } data_filler { type: "constant" value: 2 } } }
layer { name: "h" type: "Input" top: "h" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "z" type: "Eltwise" bottom: "x" bottom: "h" top: "z" }
layer { name: "ip" type: "InnerProduct" bottom: "z" top: "y"
  inner_product_param { num_output: 1 weight_filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" loss_weight: 3 }
"""


@pytest.mark.parametrize("backend, tolerance", [("reference", 1e-12), ("cpu", 1e-5)])
def test_made_up_data_and_inputs_that_stay_zero(
    backend: str, tolerance: float, tmp_path: Any
) -> None:
    """dL/dy = 3 (y - t), y = 0.5 sum(w) + b; the Input layer is 0 in every step."""
    (tmp_path / "n.prototxt").write_text(CONSTANT)
    text = 'net: "n.prototxt" base_lr: 0.02 momentum: 0.8 lr_policy: "fixed" max_iter: 99'
    (tmp_path / "s.prototxt").write_text(text)
    solver = netdef.Solver(tmp_path / "s.prototxt", backend=backend)
    w, b, v = 1.0, 0.0, np.zeros(2)
    for count in (1, 49):
        solver.step(count)
        for _ in range(count):
            slope = 3 * (1.5 * w + b - 2)
            v = 0.8 * v + 0.02 * slope * np.array([0.5, 1.0])
            w, b = w - v[0], b - v[1]
        np.testing.assert_allclose(solver.net.params["ip"]["weight"], w, rtol=tolerance)
        np.testing.assert_allclose(solver.net.params["ip"]["bias"], b, rtol=tolerance)
    assert solver.iteration == 50
    assert float(solver.net.forward()["loss"]) == pytest.approx(
        (1.5 * w + b - 2) ** 2 / 2, abs=1e-6
    )
    solver.close()


def test_arrays_that_nobody_gives_are_missed(tmp_path: Any) -> None:
    memory = "memory_data_param { batch_size: 2 channels: 3 height: 1 width: 1 }"
    data = f'layer {{ name: "d" type: "MemoryData" top: "x" top: "t" {memory} }}\n'
    loss = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "l" }'
    (tmp_path / "n.prototxt").write_text(data + loss)
    (tmp_path / "s.prototxt").write_text('net: "n.prototxt" base_lr: 1')
    solver = netdef.Solver(tmp_path / "s.prototxt", backend="reference")
    with pytest.raises(NetError, match="'d' .MemoryData.: nobody gives it data"):
        solver.step(1)


def test_a_solver_without_test_nets_says_so(tmp_path: Any) -> None:
    solver, *_ = opened(tmp_path, fields_of("SGD"), "reference")
    with pytest.raises(NetError, match="there is no test net 0"):
        solver.test()
    solver.close()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("learned", [True, False], ids=["all_frozen", "no_weights"])
@pytest.mark.parametrize("more", ["momentum: 0.9", "clip_gradients: 1 iter_size: 2"])
def test_a_net_that_learns_nothing_runs(
    backend: str, learned: bool, more: str, tmp_path: Any
) -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param"
    text = CONSTANT.replace("inner_product_param", frozen)
    if not learned:
        data, _, loss = text.partition('layer { name: "ip"')
        loss = loss[loss.index('layer { name: "loss"') :]
        text = f'{data}layer {{ name: "p" type: "TanH" bottom: "z" top: "y" }}\n{loss}'
        text = text.replace("dim: 2 dim: 1", "dim: 2 dim: 3")
    (tmp_path / "n.prototxt").write_text(text)
    (tmp_path / "s.prototxt").write_text(f'net: "n.prototxt" base_lr: 0.1 weight_decay: 1 {more}')
    solver = netdef.Solver(tmp_path / "s.prototxt", backend=backend)
    solver.step(3)
    assert solver.iteration == 3
    for key, value in solver.weights().items():
        assert (value == (1 if key == "ip/weight" else 0)).all()
    solver.close()
