"""Sums over the rows of what a contraction stores are part of its epilogue."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from compiler.backends import get_backend
from compiler.frontend.build import build
from compiler.kernels.index import Axis, axes_of, index
from compiler.kernels.kernel import Acc, Kernel, Load, Op, Reduce, Store
from compiler.kernels.schedule import Buffer
from compiler.lowering.adapt import adapt
from compiler.lowering.traits import Traits
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from netdef.engine import Engine, open_engine
from netdef.formats import read_net
from schemas.solver import SolverSpec
from tests.harness import assert_close, run_both

SGD = SolverSpec(momentum=0.9, weight_decay=1e-3)
TILED = Traits(parallel=64, rows=(128, 64))
JOINED = Traits(parallel=64, rows=(128, 64), last_adds=True)
UNIT = """
name: unit
layers:
- {{name: data, type: Input, top: data, shape: {shape}}}
- {{name: target, type: Input, top: target, shape: {target}}}
- {{name: conv0, type: Convolution, bottom: data, num_output: {width}, kernel_size: {k}, pad: {p},
   stride: {s}, bias_term: {bias}}}
- {{name: bn0, type: BatchNorm}}
- {{name: scale0, type: Scale, bias_term: true, top: x}}
- {{name: relu0, type: ReLU, bottom: x, top: x}}
- {{name: conv1, type: Convolution, bottom: x, num_output: {width}, kernel_size: 3, pad: 1,
   group: {group}, bias_term: {bias}}}
- {{name: bn1, type: BatchNorm}}
- {{name: scale1, type: Scale, bias_term: true}}
- {{name: relu1, type: ReLU}}
- {{name: conv2, type: Convolution, num_output: {width}, kernel_size: 1, bias_term: {bias}}}
- {{name: bn2, type: BatchNorm, top: bn2}}
- {{name: sum, type: Eltwise, bottom: [bn2, x], top: sum}}
- {{name: relu2, type: ReLU, bottom: sum, top: sum}}
- {{name: conv3, type: Convolution, bottom: sum, num_output: 3, kernel_size: 1}}
- {{name: loss, type: EuclideanLoss, bottom: [conv3, target]}}
"""


def unit(shape, width, k=3, p=1, s=1, group=1, bias="true") -> str:
    target = [shape[0], 3, *(n // s for n in shape[2:])]
    return UNIT.format(
        shape=list(shape), target=target, width=width, k=k, p=p, s=s, group=group, bias=bias
    )


# The gradient of windows that overlap is summed as well, for a BatchNorm or for a bias.
POOLED = """
name: pooled
layers:
- {{name: data, type: Input, top: data, shape: {shape}}}
- {{name: target, type: Input, top: target, shape: {target}}}
- {{name: conv0, type: Convolution, bottom: data, num_output: {width}, kernel_size: 3, pad: 1}}
{layers}
- {{name: relu0, type: ReLU}}
- {{name: pool, type: Pooling, pool: {pool}, kernel_size: 3, stride: 2}}
- {{name: conv1, type: Convolution, num_output: 2, kernel_size: 1}}
- {{name: loss, type: EuclideanLoss, bottom: [conv1, target]}}
"""
NORMALISED = """- {name: bn0, type: BatchNorm}
- {name: scale0, type: Scale, bias_term: true}"""


def pooled(shape, width, layers="", pool="MAX") -> str:
    target = [shape[0], 2, *(n // 2 for n in shape[2:])]
    return POOLED.format(shape=list(shape), target=target, width=width, layers=layers, pool=pool)


# Rows of all pictures: 5 tiles of 128; 9 of 128, which span two pictures; 11 of 64.
SHAPES = {
    "plain": unit((2, 3, 20, 16), 5),
    "spanning": unit((3, 2, 16, 24), 19, bias="false"),
    "small tiles": unit((11, 2, 8, 8), 7, k=1, p=0, bias="false"),
    "strided": unit((2, 2, 32, 40), 6, k=5, p=2, s=2, bias="false"),
    "grouped": unit((2, 4, 16, 20), 6, group=3, bias="false"),
    "depthwise": unit((2, 4, 16, 20), 37, group=37, bias="false"),
    "pooled": pooled((2, 3, 20, 16), 35, NORMALISED),
    "averaged": pooled((3, 3, 16, 24), 5, NORMALISED, "AVE"),
    "pooled bias": pooled((1, 2, 24, 24), 9),
}
# Nothing to be taken in tiles: a prime number of rows, one channel.
LEFT = {"prime": unit((1, 2, 23, 23), 4), "one channel": unit((2, 1, 16, 20), 1)}


@pytest.fixture(autouse=True)
def short_rows(monkeypatch):
    """What fits in one kernel as a whole is left to it: here that is little."""
    monkeypatch.setattr("compiler.passes.moments.ROW_LIMIT", 500)


def step_of(text: str):
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    return train_step(graph, arena, SGD), arena


@pytest.mark.parametrize("name", [*SHAPES, *LEFT])
def test_sums_in_epilogues_are_exact(name):
    run = run_both(*step_of({**SHAPES, **LEFT}[name]), TILED)
    assert_close(run, rtol=3e-4)
    tiled = [k for k in run.unit.schedule.kernels() if k.rows]
    assert bool(tiled) == (name in SHAPES)
    if "pool" in name or name == "averaged":
        assert "reduce" in {k.kind for k in tiled}
        return
    if name == "grouped":  # a kernel a group
        return
    forward = [k for k in tiled if k.name.startswith("conv")]
    assert len(forward) == (3 if name in SHAPES else 0)  # mean and squares of each BatchNorm
    assert all(len(k.reduces) == 3 for k in forward)


def test_nothing_but_the_sums_reads_what_a_contraction_stores():
    """Of a BatchNorm's sums only those of few numbers are left, one kernel each way."""
    run = run_both(*step_of(SHAPES["strided"]), TILED)
    long = [k for k in run.unit.schedule.kernels() if k.kind in ("reduce", "row")]
    read = {b for k in long for b in k.reads() if run.unit.schedule.buffers[b].size > 500 * 5}
    assert not read


def test_channels_of_their_own_are_summed_side_by_side():
    """A depthwise convolution is no matrix product: neighbouring channels are read at once."""
    run = run_both(*step_of(SHAPES["depthwise"]), TILED)
    products = [k for k in run.unit.schedule.kernels() if k.kind == "contract"]
    kernels = [k for k in products if "conv1" in k.layers]
    gpu = get_backend("triton", "sm_90")
    texts = {k.name: gpu.render(k) for k in kernels}
    assert sum(bool(k.rows) for k in kernels) == 2  # forward, and what reaches x
    assert not any("tl.dot(" in text for text in texts.values())
    assert all("+ tl.arange(0, 32)" in text for text in texts.values())


def test_a_depthwise_weight_has_as_many_parts_as_processors_want():
    """Its gradient is a few sums of all places: too few programs, were they not split."""
    taps = Axis("i", 3), Axis("j", 3)
    y, x, g = Axis("y", 112), Axis("x", 112), Axis("g", 32)
    at = index(y) * 112 * 32 + index(x) * 32 + index(g)
    moved = at + index(taps[0]) * 114 * 32 + index(taps[1]) * 32
    value = Op("mul", (Load("x", moved, "f32"), Load("d", at, "f32")), "f32")
    body = Reduce(0, "sum", (y, x), value, "f32"), Store("w", index(g), Acc(0, "f32"), "f32")
    kernel = Kernel("w", (*taps, g), body)
    buffers = {name: Buffer(name, "f32", 1, "inner") for name in "xdw"}
    adapted = adapt([kernel], buffers, get_backend("triton", "sm_90").traits)
    (split,) = adapted.kernels
    assert isinstance(split, Kernel) and split.parts is not None and split.parts.count >= 16


@pytest.mark.parametrize("at_once", [256, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_sums_of_tiles_are_joined_behind_the_contraction(name, at_once, monkeypatch):
    monkeypatch.setattr("compiler.passes.moments._AT_ONCE", at_once)
    run = run_both(*step_of(SHAPES[name]), JOINED)
    assert_close(run, rtol=3e-4)
    tiled = [k for k in run.unit.schedule.kernels() if k.rows]
    nine = name in ("spanning", "averaged", "pooled bias")  # tiles; the others' number is prime
    deep = nine and at_once == 2
    if name == "grouped":  # a kernel a group: what joins all groups' sums is none of theirs
        assert {len(k.joins) for k in tiled} == {0, 1}
        return
    assert {len(k.joins) for k in tiled} == {1 + deep}
    # What a tile's sums are stored for, nobody reads behind the contraction.
    of_tiles = {s.buffer for k in tiled for s in k.stores if k.rows[0] not in axes_of(s.offset)}
    read = set().union(*(k.reads() for k in run.unit.schedule.kernels()))
    assert of_tiles and not of_tiles & read


def test_very_many_sums_are_left_to_a_launch(monkeypatch):
    monkeypatch.setattr("compiler.lowering.joins.MOST", 4)
    run = run_both(*step_of(SHAPES["plain"]), JOINED)
    assert_close(run, rtol=3e-4)
    assert not any(k.joins for k in run.unit.schedule.kernels())


def trained(engine: Engine, text: str, steps: int = 1) -> dict[str, np.ndarray]:
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    exe = engine.load(train_step(graph, arena, SGD), arena)
    rng = np.random.default_rng(5)
    for key, info in graph.params.items():
        exe.write(key, rng.normal(0, 0.3, info.shape))
    found = {}
    for i in range(steps):
        exe.write("data", rng.normal(size=graph.inputs["data"].shape) + 1)
        exe.write("target", rng.normal(size=graph.inputs["target"].shape))
        for name, value in {"iteration": i, "lr": 0.05, "rate_scale": 1.0}.items():
            exe.write(name, value)
        exe.run()
        found[f"loss {i}"] = exe.read("loss")
    found.update({key: exe.read(key) for key in (*graph.params, *graph.states)})
    engine.close()
    return found


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("name, at_once", [*((name, 256) for name in SHAPES), ("spanning", 2)])
def test_triton_follows_the_reference(name, at_once, monkeypatch):
    monkeypatch.setattr("compiler.passes.moments._AT_ONCE", at_once)
    want = trained(open_engine("reference"), SHAPES[name])
    got = trained(open_engine("triton", "interpreter"), SHAPES[name])
    for key, array in want.items():
        size = max(1e-2, float(np.abs(array).max()))
        np.testing.assert_allclose(got[key], array, rtol=0, atol=2e-4 * size, err_msg=key)
