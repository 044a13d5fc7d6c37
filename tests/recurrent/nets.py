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

LSTM_BY_HAND = """
- {name: xg, type: InnerProduct, bottom: x, axis: 2, num_output: 20}
- {name: hg, type: InnerProduct, bottom: "h[t-1]", axis: 2, num_output: 20, bias_term: false}
- {name: gates, type: Eltwise, bottom: [xg, hg]}
- {name: parts, type: Slice, bottom: gates, top: [pi, pf, po, pg], axis: 2}
- {name: i, type: Sigmoid, bottom: pi}
- {name: f, type: Sigmoid, bottom: pf}
- {name: o, type: Sigmoid, bottom: po}
- {name: g, type: TanH, bottom: pg}
- {name: past, type: Eltwise, bottom: [f, "c[t-1]"], operation: PROD}
- {name: new, type: Eltwise, bottom: [i, g], operation: PROD}
- {name: c, type: Eltwise, bottom: [past, new]}
- {name: tc, type: TanH, bottom: c}
- {name: h, type: Eltwise, bottom: [o, tc], operation: PROD}
"""
X = "\nlayers:\n- {name: x, type: Input, shape: [STEPS, 3, 4]}\n"
CELLS = {
    "RNN": "- {name: h, type: RNN, bottom: x, num_output: 5}\n",
    "LSTM": "- {name: h, type: LSTM, bottom: x, num_output: 5}\n",
    "GRU": "- {name: h, type: GRU, bottom: x, num_output: 5}\n",
    "LSTM by hand": LSTM_BY_HAND.lstrip(),
}


def cell(kind, steps=6):
    """Returns the text of a net x -> h of one recurrent cell."""
    return X.replace("STEPS", str(steps)) + CELLS[kind]


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
