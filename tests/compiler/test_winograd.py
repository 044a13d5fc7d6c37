"""Winograd's form of convolutions: equal to the direct sums, chosen where it pays, switched off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netdef
from compiler.frontend.build import build
from compiler.ir import ops
from compiler.ir.evaluate import evaluate
from compiler.ir.graph import Graph
from compiler.ir.node import Node, toposort
from compiler.ir.rewrite import mapped
from compiler.passes.arena import plan_arena
from compiler.passes.autodiff import gradients
from compiler.passes.update import Step, train_step
from compiler.passes.winograd import Convolution, by_tiles, convolution, filtered
from compiler.prims import leaves
from compiler.prims.registry import Env
from netdef.engine import open_engine
from netdef.formats import read_net
from schemas.net import NetSpec
from schemas.solver import SolverSpec
from tests.harness import CPU_LIKE, assert_close, compiled_unit, run_both


def convolved(n, c, h, w, o, taps=3, pad=(1, 1), groups=1, stride=1, dilation=1) -> Node:
    """A convolution as the layer makes it."""
    y, x = (
        (size + 2 * p - dilation * (taps - 1) - 1) // stride + 1
        for size, p in zip((h, w), pad, strict=True)
    )
    slides = (
        ops.Slide("h", "y", "i", stride, dilation, pad[0]),
        ops.Slide("w", "x", "j", stride, dilation, pad[1]),
    )
    g = "" if groups == 1 else "g"
    split = () if groups == 1 else (groups,)
    picture = leaves.input_("x", (n, *split, c, h, w))
    weight = leaves.param("w", (*split, o, c, taps, taps))
    return ops.contract(picture, weight, f"n{g}chw,{g}ocij->n{g}oyx", slides, y=y, x=x)


def graph_of(y: Node) -> Graph:
    """The convolution behind a slope, so that its gradients are convolutions too."""
    x, w = (s for s in toposort([y]) if s.prim in ("input", "param"))
    dx, dw = gradients(ops.sum_all(ops.mul(ops.relu(y), y)), [x, w])
    graph = Graph("convolution", "TRAIN", NetSpec("convolution", ()))
    graph.outputs, graph.inputs = {"y": ops.relu(y), "dx": dx, "dw": dw}, {"x": x}
    return graph


@st.composite
def convolutions(draw):
    """Pictures of all odd sizes, tiles cut off, few and prime channels."""
    taps, size = draw(st.sampled_from([3, 5])), st.integers(1, 11)
    pad = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    h, w = (max(draw(size), taps - 2 * p) for p in pad)
    n, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    c, o = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 7, 32, 96]))
    m = draw(st.sampled_from([4, 2])) if taps == 3 else 2
    return convolved(n, c, h, w, o, taps, pad, groups), m


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_all_three_directions_are_the_direct_sums(case):
    node, m = case
    graph = graph_of(node)
    made = {
        n: by_tiles(n, found, m) for n in graph.nodes() if (found := convolution(n)) is not None
    }
    assert len(made) == 3  # forward, to the data, to the weight
    rng = np.random.default_rng(0)
    values = {
        (n.prim, n.attr("name")): rng.standard_normal(n.shape)
        for n in graph.nodes()
        if n.prim in ("input", "param")
    }
    env = Env(values)
    for direct, tiled in zip(evaluate([*made], env), evaluate([*made.values()], env), strict=True):
        np.testing.assert_allclose(tiled, direct, rtol=0, atol=1e-10 * np.abs(direct).max())


@settings(max_examples=20, deadline=None)
@given(convolutions())
def test_kernels_are_what_the_graph_says(case):
    node, m = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Convolution, "tile", lambda self: m)
        run = run_both(Step(graph_of(node)), traits=replace(CPU_LIKE, winograd=True))
    kinds = [k.kind for launch in run.unit.schedule.launches for k in launch]
    # Of x, y's gradient and the kernels, twice; three results. Equal ones are one.
    assert 7 <= kinds.count("transform") <= 9
    assert_close(run)


@pytest.mark.parametrize("taps, m", [(3, 4), (3, 2), (5, 2)])
def test_in_single_precision_the_error_is_below_1e_5(taps, m):
    graph = graph_of(convolved(2, 64, 14, 14, 32, taps, (taps // 2, taps // 2)))
    rng = np.random.default_rng(0)
    values = {
        ("input", "x"): rng.standard_normal((2, 64, 14, 14)).astype(np.float32),
        ("param", "w"): rng.standard_normal((32, 64, taps, taps)).astype(np.float32),
    }
    found = [n for n in graph.nodes() if convolution(n) is not None]
    tiled = [by_tiles(n, convolution(n), m) for n in found]
    single = evaluate(tiled, Env(values, float_dtype=np.float32))
    for got, want in zip(single, evaluate(found, Env(values)), strict=True):
        assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize(
    "node, m",
    [
        (convolved(8, 64, 56, 56, 64), 4),
        (convolved(8, 512, 7, 7, 512), 2),  # of larger tiles, the kernels' transforms cost more
        (convolved(1, 512, 7, 7, 512), None),  # so few tiles do not pay for those
        (convolved(8, 3, 224, 224, 64), None),  # nor so few channels for those of the pictures
        (convolved(16, 48, 27, 27, 128, 5, (2, 2), groups=2), 2),
    ],
)
def test_tiles_are_as_large_as_pays(node, m):
    assert convolution(node).tile() == m


@pytest.mark.parametrize(
    "node",
    [
        convolved(8, 64, 56, 56, 64, stride=2),
        convolved(8, 64, 56, 56, 64, dilation=2),
        convolved(8, 64, 56, 56, 64, taps=1, pad=(0, 0)),
        convolved(8, 64, 56, 56, 64, taps=7),
        convolved(8, 64, 56, 56, 64, pad=(3, 1)),
    ],
)
def test_others_stay_as_they_are_written(node):
    assert convolution(node) is None
    graph = graph_of(node)
    assert mapped(graph, filtered(graph)).outputs == graph.outputs


NET = """
name: small
layers:
- {name: data, type: Input, top: data, shape: [4, 3, 27, 29]}
- {name: label, type: Input, top: label, shape: [4]}
- {name: conv1, type: Convolution, bottom: data, num_output: 64, kernel_size: 3, pad: 1}
- {name: relu1, type: ReLU}
- {name: conv2, type: Convolution, num_output: 64, kernel_size: 3, pad: 1}
- {name: relu2, type: ReLU}
- {name: ip, type: InnerProduct, num_output: 4}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


def trained(threads: int, deterministic_reference: bool) -> tuple[list[float], int]:
    """Returns the losses of a few steps, and how many kernels are transforms."""
    engine = open_engine("cpu", threads=threads, deterministic_reference=deterministic_reference)
    graph = build(read_net(text=NET, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    exe = engine.load(train_step(graph, arena, SolverSpec(momentum=0.9)), arena)
    rng = np.random.default_rng(5)
    for key, info in graph.params.items():
        exe.write(key, rng.normal(0, 0.05, info.shape))
    data, label = rng.normal(size=(4, 3, 27, 29)), rng.integers(0, 4, 4)
    losses = []
    for i in range(5):
        exe.write("data", data)  # in each step: what it leaves in their memory is anything
        exe.write("label", label)
        for name, value in {"iteration": i, "lr": 0.01, "rate_scale": 1.0}.items():
            exe.write(name, value)
        exe.run()
        losses.append(float(exe.read("loss")))
    kinds = [k.kind for launch in exe.program.launches for k in launch.kernels]
    engine.close()
    return losses, kinds.count("transform")


def test_a_net_trains_to_the_same_losses_either_way():
    one, transforms = trained(1, False)
    assert transforms and trained(2, False) == (one, transforms)
    direct, none = trained(2, True)
    assert not none
    assert len(set(direct)) == 5
    np.testing.assert_allclose(one, direct, rtol=1e-4)


def test_tiles_are_made_just_before_they_are_read():
    """Those of the weight gradient are made of what the forward pass has left behind."""
    graph = build(read_net(text=NET, format="yaml"), "TRAIN")
    step, arena = train_step(graph, plan_arena(graph), SolverSpec()), plan_arena(graph)
    unit = compiled_unit(step, arena, replace(CPU_LIKE, winograd=True))
    tiles = [block for name, block in unit.memory.blocks.items() if "to_tiles" in name]
    assert len(tiles) >= 4
    assert all(one.last == one.first + 1 for (one,) in tiles), tiles


def test_a_solver_file_turns_it_off(tmp_path):
    net = NET.replace("type: Input, top: data", "type: DummyData, top: data").replace(
        "type: Input, top: label", "type: DummyData, top: label"
    )
    (tmp_path / "net.yaml").write_text(net)
    for text, winograd in (("", True), ("deterministic_reference: true\n", False)):
        (tmp_path / "solver.yaml").write_text(f"net: net.yaml\nmax_iter: 1\n{text}")
        solver = netdef.Solver(tmp_path / "solver.yaml", backend="cpu")
        kinds = {k.kind for launch in solver.program.launches for k in launch.kernels}
        solver.close()
        assert ("transform" in kinds) == winograd
