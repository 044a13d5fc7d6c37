"""Cycles in the spec: h[t-1] anywhere, initial states, truncation, blocks, on the backends."""

from __future__ import annotations

import numpy as np
import pytest

from tests.recurrent.nets import elman, load, numbers, run_elman

BACKENDS = ["reference", "cpu"]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_elman_net_is_its_formula(backend, steps):
    net = load(elman(steps), backend)
    x = numbers((steps, 3, 4))
    want = run_elman(net, x, np.zeros((3, 5)))
    np.testing.assert_allclose(net.forward(x=x)["h"], want, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_state_goes_on_to_the_next_batch(backend):
    net = load(elman(), backend)
    x = numbers((6, 3, 4))
    first = run_elman(net, x, np.zeros((3, 5)))
    net.forward(x=x)
    np.testing.assert_allclose(net.forward(x=x)["h"], run_elman(net, x, first[-1]), atol=2e-6)


def test_without_carry_state_each_batch_begins_anew():
    net = load("carry_state: false" + elman())
    x = numbers((6, 3, 4))
    np.testing.assert_array_equal(net.forward(x=x)["h"], net.forward(x=x)["h"])
    assert net.state == {}


def test_a_constant_initial_state():
    net = load(elman(initial=", initial: 0.5"))
    x = numbers((6, 3, 4))
    want = run_elman(net, x, np.full((3, 5), 0.5))
    np.testing.assert_allclose(net.forward(x=x)["h"], want, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_learned_initial_state_is_a_weight_with_a_gradient(backend):
    net = load(elman(initial=", initial: learned"), backend)
    start = np.asarray(net.params["h"]["h.initial"])
    assert start.shape == (5,)
    x = numbers((6, 3, 4))
    want = run_elman(net, x, np.broadcast_to(start, (3, 5)))
    np.testing.assert_allclose(net.forward(x=x)["h"], want, atol=2e-6)
    net.backward(h=np.ones((6, 3, 5)))
    slope, step = np.asarray(net.grads["h"]["h.initial"]), 1e-5
    for i in range(5):
        moved = [start + sign * step * np.eye(5)[i] for sign in (1, -1)]
        ends = [run_elman(net, x, np.broadcast_to(m, (3, 5))).sum() for m in moved]
        assert slope[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-4)


def test_an_initial_state_from_a_bottom():
    text = elman(initial=", initial: start") + "- {name: start, type: Input, shape: [3, 5]}\n"
    net = load(text)
    x, start = numbers((6, 3, 4)), numbers((3, 5), 2)
    got = net.forward(x=x, start=start)["h"]
    np.testing.assert_allclose(got, run_elman(net, x, start), atol=2e-6)
    gradient = net.backward(h=np.ones((6, 3, 5)))["start"]
    step = 1e-3
    moved = [run_elman(net, x, start + sign * step).sum() for sign in (1, -1)]
    assert gradient.sum() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-3)


# Every net is asked for the gradient of its last blob: cpu against the float64 reference, which is
# checked against finite differences.
NETS = {
    "elman": elman(),
    "two steps back": elman().replace("h[t-1]", "h[t-2]"),
    "both": elman().replace("bottom: [xh, hh]", "bottom: [xh, hh, 'h[t-3]']"),
    "future": elman().replace("h[t-1]", "h[t+1]"),
    "no cycle": """
layers:
- {name: x, type: Input, shape: [6, 3, 4]}
- {name: h, type: Eltwise, bottom: [x, "x[t-2]", "x[t+1]"], coeff: [1, 2, -1]}
""",
    "stacked": elman()
    + """
- {name: a, type: InnerProduct, bottom: "y[t-1]", axis: 2, num_output: 5}
- {name: y, type: Eltwise, bottom: [a, h]}
""",
    "jordan": """
layers:
- {name: x, type: Input, shape: [6, 3, 4]}
- {name: xh, type: InnerProduct, axis: 2, num_output: 5}
- {name: yh, type: InnerProduct, bottom: "y[t-1]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, yh]}
- {name: h, type: Sigmoid}
- {name: y, type: InnerProduct, axis: 2, num_output: 2}
""",
    "delayed twice": """
layers:
- {name: x, type: Input, shape: [6, 3, 4]}
- {name: a, type: Split, bottom: "h[t-1]"}
- {name: hh, type: InnerProduct, bottom: "a[t-1]", axis: 2, num_output: 5}
- {name: xh, type: InnerProduct, bottom: x, axis: 2, num_output: 5}
- {name: h, type: Eltwise, bottom: [xh, hh]}
""",
    "two cycles that cross": """
layers:
- {name: x, type: Input, shape: [6, 3, 5]}
- {name: a, type: Eltwise, bottom: [x, "b[t-1]", "a[t-2]"]}
- {name: ta, type: TanH, bottom: a}
- {name: b, type: InnerProduct, bottom: ta, axis: 2, num_output: 5}
""",
    "in a block": """
blocks:
  cell:
    params: {size: 5}
    layers:
    - {name: past, type: InnerProduct, bottom: "out[t-1]", axis: 2, num_output: $size}
    - {name: here, type: InnerProduct, bottom: in, axis: 2, num_output: $size}
    - {name: sum, type: Eltwise, bottom: [past, here]}
    - {name: out, type: TanH}
layers:
- {name: x, type: Input, shape: [6, 3, 4]}
- {block: cell, name: cells, repeat: 2}
""",
    "an image a step": """
layers:
- {name: x, type: Input, shape: [5, 2, 3, 4, 4]}
- {name: xh, type: Convolution, axis: 2, num_output: 2, kernel_size: 3, pad: 1}
- {name: hh, type: Convolution, bottom: "h[t-1]", axis: 2, num_output: 2, kernel_size: 3, pad: 1}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
- {name: h, type: TanH}
""",
    "many to one": elman()
    + """
- {name: parts, type: Slice, axis: 0, slice_point: 5, bottom: h, top: [early, last]}
- {name: quiet, type: Silence, bottom: early, top: []}
- {name: answer, type: Reshape, bottom: last, shape: [3, 5]}
""",
    "read again behind the cycle": elman(initial=", initial: learned")
    + """
- {name: y, type: Eltwise, bottom: [h, "h[t-2]"]}
""",
    "joined with the input": """
layers:
- {name: x, type: Input, shape: [6, 3, 4]}
- {name: xh, type: InnerProduct, axis: 2, num_output: 2}
- {name: both, type: Concat, axis: 2, bottom: [xh, "sum[t-1]"]}
- {name: sum, type: InnerProduct, axis: 2, num_output: 3}
- {name: h, type: TanH}
""",
    "one number": """
layers:
- {name: x, type: Input, shape: [4, 3, 4]}
- {name: both, type: Concat, axis: 2, bottom: [x, "h[t+1]"]}
- {name: h, type: InnerProduct, axis: 2, num_output: 1}
""",
    "a product of states": """
layers:
- {name: x, type: Input, shape: [6, 3, 5]}
- {name: g, type: Eltwise, bottom: [x, "h[t-1]"], operation: PROD}
- {name: h, type: Eltwise, bottom: [g, x]}
""",
}


def _blob(net):
    return next(reversed(net.graph.blobs)) if "h" not in net.outputs else "h"


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_gradients_through_time(name, carry):
    text = NETS[name] if carry else "carry_state: false\n" + NETS[name].lstrip()
    nets = {backend: load(text, backend) for backend in BACKENDS}
    (shape,) = nets["cpu"].inputs.values()
    x = numbers(shape) * 0.7
    out = _blob(nets["cpu"])
    found = {}
    for backend, net in nets.items():
        net.forward(x=x)  # the second batch has a past, if it is carried
        y = net.forward(x=x, blobs=out)[out]
        seed = numbers(y.shape, 3)
        found[backend] = [y, net.backward(**{out: seed})["x"]]
        found[backend] += [np.array(g) for own in net.grads.values() for g in own.values()]
    for got, want in zip(found["cpu"], found["reference"], strict=True):
        size = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, atol=3e-6 * size)
    net = nets["reference"]
    before, step, way = net._before, 1e-5, numbers(shape, 4)
    sums = []
    for sign in (1, -1):
        for key, value in before.items():
            net.executable.write(key, value)
        y = net.forward(x=x + sign * step * way, blobs=out)[out]
        sums.append(float((y * numbers(y.shape, 3)).sum()))
    slope = float((found["reference"][1] * way).sum())
    assert slope == pytest.approx((sums[0] - sums[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("unroll", [1, 2, 4, 6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_unroll_cuts_gradients_into_blocks(backend, unroll):
    """The gradient of the sum is the one of each block of steps on its own."""
    net = load(f"unroll: {unroll}\n" + elman().lstrip(), backend)
    x = numbers((6, 3, 4))
    h = net.forward(x=x)["h"]
    got = net.backward(h=np.ones((6, 3, 5)))["x"]
    part = load(elman(), "reference")
    want = []
    for start in range(0, 6, unroll):
        if start:
            part.executable.write("h/h@TEST", h[start - 1 : start])
        part.forward(x=x[start : start + unroll])
        count = len(x[start : start + unroll])
        want.append(part.backward(h=np.ones((count, 3, 5)))["x"])
    np.testing.assert_allclose(got, np.concatenate(want), atol=3e-6)
