"""Solver trajectories against Caffe's formulas written out in NumPy (CAFFE.md section 4)."""

from __future__ import annotations

import math

import numpy as np
import pytest

import netdef

BATCH, RECORDS, STEPS = 6, 30, 12
NET = f"""\
layers:
- {{name: data, type: Data, top: [data, label], source: d.npz, batch_size: {BATCH}}}
- {{name: a, type: InnerProduct, num_output: 5, weight_filler: {{type: gaussian, std: 0.5}},
   param: [{{lr_mult: 1}}, {{lr_mult: 2, decay_mult: 0}}]}}
- {{name: t, type: TanH}}
- {{name: b, type: InnerProduct, num_output: 3, weight_filler: xavier,
   param: [{{lr_mult: 0.5, decay_mult: 3}}, {{lr_mult: 0}}]}}
- {{name: loss, type: SoftmaxWithLoss, bottom: [b, label]}}
"""
RATE = {"a/weight": 1, "a/bias": 2, "b/weight": 0.5, "b/bias": 0}
DECAY = {"a/weight": 1, "a/bias": 0, "b/weight": 3, "b/bias": 1}
CASES = {
    "momentum": {"momentum": 0.9},
    "step": {"momentum": 0.9, "lr_policy": "step", "gamma": 0.3, "stepsize": 4},
    "exp": {"momentum": 0.9, "lr_policy": "exp", "gamma": 0.9},
    "inv": {"momentum": 0.8, "lr_policy": "inv", "gamma": 0.1, "power": 0.75},
    "multistep": {"lr_policy": "multistep", "gamma": 0.4, "stepvalue": [3, 4, 9]},
    "poly": {"momentum": 0.5, "lr_policy": "poly", "power": 2},
    "sigmoid": {"momentum": 0.5, "lr_policy": "sigmoid", "gamma": -0.2, "stepsize": 8},
    "l1": {"momentum": 0.9, "weight_decay": 0.02, "regularization_type": "L1"},
    "l2": {"momentum": 0.9, "weight_decay": 0.02},
    "both": {"momentum": 0.9, "weight_decay": 0.02, "regularization_type": "L1L2"},
    "clip": {"momentum": 0.9, "clip_gradients": 0.2},
    "clip_all": {"momentum": 0.9, "clip_gradients": 0},
    "iter_size": {
        **{"momentum": 0.9, "iter_size": 3, "clip_gradients": 0.3},
        **{"weight_decay": 0.01, "regularization_type": "L1"},
    },
}


def gradients(w, x, y):
    h = np.tanh(x @ w["a/weight"].T + w["a/bias"])
    s = h @ w["b/weight"].T + w["b/bias"]
    d = np.exp(s - s.max(1, keepdims=True))
    d /= d.sum(1, keepdims=True)
    d[np.arange(BATCH), y] -= 1
    d /= BATCH
    inner = (d @ w["b/weight"]) * (1 - h * h)
    return {
        **{"a/weight": inner.T @ x, "a/bias": inner.sum(0)},
        **{"b/weight": d.T @ h, "b/bias": d.sum(0)},
    }


def rate(f, it):
    base, gamma = f["base_lr"], f.get("gamma", 0)
    match f.get("lr_policy", "fixed"):
        case "step":
            return base * gamma ** (it // f["stepsize"])
        case "exp":
            return base * gamma**it
        case "inv":
            return base * (1 + gamma * it) ** -f["power"]
        case "multistep":
            return base * gamma ** sum(it >= v for v in f["stepvalue"])
        case "poly":
            return base * (1 - it / f["max_iter"]) ** f["power"]
        case "sigmoid":
            return base / (1 + math.exp(-gamma * (it - f["stepsize"])))
    return base


def regularised(g, w, decay, kind):
    l1, l2 = decay * np.sign(w), decay * w
    return g + {"L1": l1, "L2": l2, "L1L2": l1 + l2}[kind]


def trajectory(f, w, x, y):
    """Yields the weights after each iteration of SGD."""
    h = {key: np.zeros_like(value) for key, value in w.items()}
    batch, size = 0, f.get("iter_size", 1)
    for it in range(STEPS):
        total = {key: np.zeros_like(value) for key, value in w.items()}
        for _ in range(size):
            chosen = (batch * BATCH + np.arange(BATCH)) % RECORDS
            batch += 1
            for key, g in gradients(w, x[chosen], y[chosen]).items():
                total[key] += g if RATE[key] else 0
        clip, norm = (
            f.get("clip_gradients", -1),
            math.sqrt(sum((g**2).sum() for g in total.values())),
        )
        scale = clip / norm if 0 <= clip < norm else 1
        for key in w:
            if not RATE[key]:
                continue
            decay = f.get("weight_decay", 0) * DECAY[key]
            g = total[key] * scale / size
            g = regularised(g, w[key], decay, f.get("regularization_type", "L2"))
            h[key] = f.get("momentum", 0) * h[key] + rate(f, it) * RATE[key] * g
            w[key] = w[key] - h[key]
        yield w


@pytest.mark.parametrize("backend, tolerance", [("reference", 1e-6), ("cpu", 1e-4)])
@pytest.mark.parametrize("case", CASES)
def test_sgd_follows_caffe(case, backend, tolerance, tmp_path):
    random = np.random.default_rng(3)
    x = random.standard_normal((RECORDS, 4)).astype(np.float32)
    y = random.integers(0, 3, RECORDS)
    np.savez(tmp_path / "d.npz", data=x, label=y)
    fields = {"net": "net.yaml", "base_lr": 0.3, "max_iter": 40, "random_seed": 5, **CASES[case]}
    (tmp_path / "net.yaml").write_text(NET)
    (tmp_path / "solver.yaml").write_text("\n".join(f"{k}: {v}" for k, v in fields.items()))
    solver = netdef.Solver(tmp_path / "solver.yaml", backend=backend)
    first = {key: value.astype(np.float64) for key, value in solver.weights().items()}
    for expected in trajectory(fields, first, x.astype(np.float64), y):
        solver.step(1)
        for key, value in solver.weights().items():
            np.testing.assert_allclose(value, expected[key], rtol=tolerance, atol=tolerance)
    solver.close()
