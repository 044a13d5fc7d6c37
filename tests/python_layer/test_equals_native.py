"""Python layers compute, propagate and learn as the native layers that do the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import accumulate_step, apply_step, train_step
from runtime.params import initialise
from schemas.solver import SolverSpec
from tests.python_layer.nets import BACKENDS, engine_of, layer, net_of, spec_of


@dataclass(frozen=True)
class Row:
    """A net of which `python` and `native` stand for the same; {} is their place."""

    name: str
    net: str
    python: str
    native: str
    inputs: tuple[str, ...] = ("x",)

    def __str__(self) -> str:
        return self.name


IMAGES = """\
- {name: x, type: Input, shape: [2, 3, 6, 5]}
- {name: c, type: Convolution, num_output: 4, kernel_size: 3, weight_filler: xavier}
%s
- {name: ip, type: InnerProduct, bottom: y, num_output: 3, weight_filler: xavier}
- {name: end, type: Reduction, operation: SUMSQ, loss_weight: 1}
"""
ROWS = """\
- {name: x, type: Input, shape: [5, 3, 2]}
- {name: t, type: Input, shape: [5, 4]}
- {name: ip, type: InnerProduct, bottom: x, num_output: 4, weight_filler: xavier}
%s
"""
PAIRS = """\
- {name: x, type: Input, shape: [2, 3, 4, 4]}
- {name: a, type: Convolution, bottom: x, num_output: 2, kernel_size: 3, weight_filler: xavier}
- {name: b, type: Convolution, bottom: x, num_output: 2, kernel_size: 3, weight_filler: xavier}
%s
- {name: p, type: Eltwise, operation: PROD, bottom: [s, d]}
- {name: end, type: Reduction, operation: SUMSQ, loss_weight: 0.5}
"""
TABLE = [
    Row(
        "euclidean",
        ROWS,
        layer("EuclideanLossLayer", name="loss", bottom=["ip", "t"], loss_weight=0.5),
        "- {name: loss, type: EuclideanLoss, bottom: [ip, t], loss_weight: 0.5}",
        ("x", "t"),
    ),
    Row(
        "euclidean_stopped",
        ROWS,
        layer(
            "EuclideanLossLayer",
            name="loss",
            bottom=["t", "ip"],
            loss_weight=1,
            propagate_down=[False, True],
        ),
        "- {name: loss, type: EuclideanLoss, bottom: [t, ip], propagate_down: [false, true]}",
        ("x", "t"),
    ),
    Row(
        "times",
        IMAGES,
        layer("Times", name="y", bottom=["c"], param_str="-2.5"),
        "- {name: y, type: Power, bottom: c, scale: -2.5}",
    ),
    Row(
        "times_in_place",
        IMAGES.replace("bottom: y", "bottom: c"),
        layer("Times", name="y", bottom=["c"], top=["c"], param_str="3"),
        "- {name: y, type: Power, bottom: c, top: c, scale: 3}",
    ),
    Row(
        "twice_in_a_row",
        IMAGES,
        layer("Times", name="h", bottom=["c"], param_str="2")
        + "\n"
        + layer("Times", name="y", bottom=["h"], param_str="0.25"),
        "- {name: y, type: Power, bottom: c, scale: 0.5}",
    ),
    Row(
        "two_tops",
        PAIRS,
        layer("Butterfly", name="f", bottom=["a", "b"], top=["s", "d"]),
        "- {name: s, type: Eltwise, bottom: [a, b]}\n"
        "- {name: d, type: Eltwise, bottom: [a, b], coeff: [1, -1]}",
    ),
    Row(
        "one_bottom_twice",
        PAIRS.replace("[s, d]", "[s, b]"),
        layer("Butterfly", name="f", bottom=["a", "a"], top=["s", "d"]),
        "- {name: s, type: Eltwise, bottom: [a, a]}\n"
        "- {name: d, type: Eltwise, bottom: [a, a], coeff: [1, -1]}",
    ),
    Row(
        "learned",
        IMAGES,
        layer(
            "Affine",
            name="y",
            bottom=["c"],
            param=[{"lr_mult": 2}, {"lr_mult": 0.5, "decay_mult": 0}],
        ),
        "- {name: y, type: Scale, bottom: c, bias_term: true, "
        "param: [{lr_mult: 2}, {lr_mult: 0.5, decay_mult: 0}]}",
    ),
    Row(
        "learned_shared",
        IMAGES,
        layer("Affine", name="h", bottom=["c"], param=[{"name": "f"}, {"name": "t"}])
        + "\n"
        + layer("Affine", name="y", bottom=["h"], param=[{"name": "f"}, {"name": "t"}]),
        "- {name: h, type: Scale, bottom: c, bias_term: true, param: [{name: f}, {name: t}]}\n"
        "- {name: y, type: Scale, bottom: h, bias_term: true, param: [{name: f}, {name: t}]}",
    ),
]
CASES = [(row, backend) for row in TABLE for backend in BACKENDS]
IDS = [f"{row}-{backend[0]}" for row, backend in CASES]


def values_of(row: Row) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = build(spec_of(row.net % row.native), "TRAIN").inputs
    return {name: rng.normal(size=shapes[name].shape) for name in row.inputs}


@pytest.mark.parametrize("row, backend", CASES, ids=IDS)
def test_forward_and_backward(row, backend):
    found = []
    for text in (row.python, row.native):
        net = net_of(row.net % text, backend)
        result = {"forward": net.forward(**values_of(row)), "backward": net.backward()}
        # What the two call their blobs differs: the order does not.
        blobs = [v for layer in net.grads.values() for v in layer.values()]
        found.append([*result["forward"].values(), *result["backward"].values(), *blobs])
        net.close()
    assert len(found[0]) == len(found[1])
    assert sum(float(np.abs(want).max()) > 0 for want in found[1]) > 2
    for got, want in zip(*found, strict=True):
        size = float(np.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(size, 1e-3))


BEFORE = {
    "an input": "",
    "in place": "- {name: p, type: ReLU, bottom: x, top: x, negative_slope: 0.5}",
    "a view": "- {name: p, type: Flatten, bottom: x}",
    "a part": "- {name: p, type: Slice, bottom: x, top: [p, q]}",
    "a join": "- {name: p, type: Concat, bottom: [x, x]}",
    "a sum": "- {name: p, type: Reduction, bottom: x, axis: 1}",
    "softmax": "- {name: p, type: Softmax, bottom: x}",
    "argmax": "- {name: p, type: ArgMax, bottom: x}",
}
AFTER = {
    "nothing": "",
    "in place": "- {name: z, type: ReLU, bottom: y, top: y, negative_slope: 0.5}",
    "a join": "- {name: z, type: Concat, axis: 0, bottom: [y, y]}",
    "a part": "- {name: z, type: Slice, axis: 0, bottom: y, top: [z, w]}",
    "sum": "- {name: z, type: Eltwise, bottom: [y, y]}",
    "dense": "- {name: z, type: InnerProduct, bottom: y, num_output: 3, weight_filler: xavier}",
}
PAIRINGS = [(b, "nothing") for b in BEFORE] + [("a view", a) for a in AFTER if a != "nothing"]


@pytest.mark.parametrize("before, after", PAIRINGS)
def test_neighbours_lie_in_memory_as_they_like(before, after):
    head = "- {name: x, type: Input, shape: [2, 4, 4, 4]}\n" + BEFORE[before]
    bottom = "p" if "name: p" in head and before != "in place" else "x"
    end = "y" if after in ("nothing", "in place") else "z"
    tail = f"{AFTER[after]}\n- {{name: end, type: Reduction, bottom: {end}, operation: SUMSQ}}\n"
    python = layer("Times", name="y", bottom=[bottom], param_str="1.5")
    native = f"- {{name: y, type: Power, bottom: {bottom}, scale: 1.5}}"
    found = []
    for text in (python, native):
        net = net_of("\n".join([head, text, tail]).replace("\n\n", "\n"))
        x = np.random.default_rng(1).normal(size=(2, 4, 4, 4))
        found.append({**net.forward(["y"], x=x), **net.backward(end=np.ones(()))})
        net.close()
    for name, want in found[1].items():
        size = max(1e-3, float(np.abs(want).max()))
        np.testing.assert_allclose(found[0][name], want, rtol=0, atol=2e-5 * size, err_msg=name)


def trained(row: Row, text: str, backend, iter_size: int = 1) -> list[np.ndarray]:
    """Returns the learned blobs after three steps."""
    spec = SolverSpec(momentum=0.9, weight_decay=1e-2, iter_size=iter_size, clip_gradients=5.0)
    engine = engine_of(backend)
    graph = build(spec_of(row.net % text), "TRAIN")
    arena = plan_arena(graph)
    if iter_size == 1:
        train, apply = engine.load(train_step(graph, arena, spec), arena), None
    else:
        train = engine.load(accumulate_step(graph, arena), arena)
        apply = engine.load(apply_step(graph, arena, spec), arena, train)
    initialise(train, 1, graph.first)
    values = values_of(row)
    for step in range(3):
        for part in range(iter_size):
            for name, value in values.items():
                train.write(name, value * (1 + step + 0.1 * part))
            train.write("lr", 0.01)
            train.write("first", float(part == 0))
            train.run()
        if apply is not None:
            apply.write("lr", 0.01)
            apply.run()
    found = [train.read(key) for key in graph.params]
    engine.close()
    return found


@pytest.mark.parametrize("row, backend", CASES, ids=IDS)
def test_training(row, backend):
    both = [trained(row, text, backend) for text in (row.python, row.native)]
    for got, want in zip(*both, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1, float(np.abs(want).max())))


@pytest.mark.parametrize("name", ["learned", "euclidean"])
def test_gradients_accumulate_over_iter_size(name):
    row = next(row for row in TABLE if row.name == name)
    both = [trained(row, text, ("cpu", None), iter_size=3) for text in (row.python, row.native)]
    for got, want in zip(*both, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1, float(np.abs(want).max())))
