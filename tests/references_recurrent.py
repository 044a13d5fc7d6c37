"""What recurrent layers compute, step by step in NumPy (CAFFE.md section 5)."""

from __future__ import annotations

import numpy as np


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _steps(x, reverse):
    return reversed(range(len(x))) if reverse else range(len(x))


def _projected(p, x, static):
    flat = x.reshape(*x.shape[:2], -1)
    y = flat @ p["weight_x"].T + p["bias"]
    return y if static is None else y + static.reshape(len(static), -1) @ p["weight_static"].T


def _start(p, name, like, given, reverse):
    if given is not None:
        return given.reshape(like)
    return np.zeros(like) if reverse or name not in p else p[name][0]


def rnn(p, x, cont=None, static=None, h_0=None, reverse=False):
    """Returns o_t = tanh(W_ho h_t + b_o), and the last h."""
    xs, out = _projected(p, x, static), np.zeros((*x.shape[:2], len(p["bias"])))
    h = _start(p, "h", out.shape[1:], h_0, reverse)
    for t in _steps(x, reverse):
        past = h if cont is None else h * cont[t][:, None]
        h = np.tanh(xs[t] + past @ p["weight_h"].T)
        out[t] = np.tanh(h @ p["weight_o"].T + p["bias_o"])
    return out, h[None]


def lstm(p, x, cont=None, static=None, h_0=None, c_0=None, reverse=False):
    """Returns h of all steps, the last h and the last c; gates in the order i, f, o, g."""
    xs = _projected(p, x, static)
    size = xs.shape[2] // 4
    out = np.zeros((*x.shape[:2], size))
    h = _start(p, "h", out.shape[1:], h_0, reverse)
    c = _start(p, "c", out.shape[1:], c_0, reverse)
    for t in _steps(x, reverse):
        keep = 1.0 if cont is None else cont[t][:, None]
        i, f, o, g = np.split(xs[t] + (keep * h) @ p["weight_h"].T, 4, axis=1)
        c = keep * _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        out[t] = h
    return out, h[None], c[None]


def gru(p, x, cont=None, static=None, h_0=None, reverse=False, before=False):
    """Returns h of all steps and the last one; gates in the order z, r, n."""
    xs = _projected(p, x, static)
    size = xs.shape[2] // 3
    out = np.zeros((*x.shape[:2], size))
    h = _start(p, "h", out.shape[1:], h_0, reverse)
    for t in _steps(x, reverse):
        past = h if cont is None else h * cont[t][:, None]
        xz, xr, xn = np.split(xs[t], 3, axis=1)
        if before:
            hz, hr = np.split(past @ p["weight_h"].T, 2, axis=1)
            n = np.tanh(xn + (_sigmoid(xr + hr) * past) @ p["weight_n"].T)
        else:
            hz, hr, hn = np.split(past @ p["weight_h"].T, 3, axis=1)
            n = np.tanh(xn + _sigmoid(xr + hr) * (hn + p["bias_h"]))
        z = _sigmoid(xz + hz)
        h = z * past + (1 - z) * n
        out[t] = h
    return out, h[None]
