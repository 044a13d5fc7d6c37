"""Small recurrent nets as text, their weights, and what they compute in NumPy."""

from __future__ import annotations

import numpy as np

import netdef

ELMAN = """
name: elman
layers:
- {name: x, type: Input, shape: [STEPS, 3, 4]}
- {name: xh, type: InnerProduct, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "h[t-1]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
- {name: h, type: TanH INITIAL}
"""


def elman(steps=6, initial="", **changes):
    """Returns the text of an Elman net: h = tanh(W x + b + U h[t-1])."""
    text = ELMAN.replace("STEPS", str(steps)).replace(" INITIAL", initial)
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def load(text, backend="cpu", phase="TEST", seed=0, **flags):
    """Returns a net whose weights are random numbers that depend on their names alone."""
    net = netdef.load(text=text, format="yaml", backend=backend, phase=phase, **flags)
    for layer in net.params:
        for name, value in net.params[layer].items():
            rng = np.random.default_rng([seed, *f"{layer}/{name}".encode()])
            net.params[layer][name] = rng.uniform(-0.5, 0.5, np.shape(value))
    return net


def numbers(shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def run_elman(net, x, h):
    """Returns h of all steps, given the one before the first."""
    w, b = net.params["xh"]["weight"], net.params["xh"]["bias"]
    u = net.params["hh"]["weight"]
    found = []
    for row in x:
        h = np.tanh(row @ np.asarray(w).T + b + h @ np.asarray(u).T)
        found.append(h)
    return np.stack(found)
