"""Caffe's last pooling window without pads may hold nothing at all."""

from __future__ import annotations

import numpy as np
import pytest

import netdef

NET = """
name: pool
layers:
- {name: data, type: Input, shape: [1, 1, 6, 7]}
- {name: pool, type: Pooling, pool: MAX, kernel_size: 1, stride: 2, top: [pool, mask]}
"""


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_an_empty_window_holds_the_least_float(backend):
    net = netdef.load(text=NET, format="yaml", backend=backend)
    x = np.arange(42, dtype=np.float32).reshape(1, 1, 6, 7)
    found = net.forward(data=x)
    y, mask = found["pool"], found["mask"]
    assert y.shape == (1, 1, 4, 4)
    np.testing.assert_array_equal(y[..., :3, :], x[..., ::2, ::2])
    assert np.all(y[..., 3, :] == -np.finfo(np.float32).max)
    np.testing.assert_array_equal(mask[..., :3, :3], x[..., ::2, :6:2])
    assert np.all(mask[..., 3, :] == -1)
    d = net.backward(pool=np.ones_like(y))["data"]
    assert d.sum() == 12  # the empty windows pass nothing back
    net.close()
