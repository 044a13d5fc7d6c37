"""Winograd's transforms as machine code, against the oracle, on every vector width."""

from __future__ import annotations

import pytest

from compiler.ir import ops
from compiler.ir.graph import Graph
from compiler.passes.arena import plan_arena
from compiler.passes.update import Step
from compiler.passes.winograd import filtering
from compiler.prims import leaves
from compiler.prims.winograd import Tiling, from_tiles, to_tiles
from schemas.net import NetSpec
from tests.backends.test_cpu_kernels import TARGETS, check
from tests.harness import compiled_unit


def launches(step: Step):
    return compiled_unit(step, plan_arena(step.graph)).schedule.launches


def step(outputs, *inputs) -> Step:
    graph = Graph("transform", "TEST", NetSpec("transform", ()))
    graph.outputs, graph.inputs = outputs, {str(x.attr("name")): x for x in inputs}
    return Step(graph)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "shape, m, pad",
    [
        ((2, 16, 8, 8), 4, (1, 1)),
        ((1, 35, 9, 5), 4, (2, 0)),
        ((3, 7, 5, 4), 2, (0, 1)),
        ((1, 1, 13, 1), 4, (1, 1)),
    ],
)
def test_tiles_of_pictures_and_back(target, shape, m, pad):
    x = leaves.input_("x", shape)
    extent = tuple(max(1, n + 2 * p - 2) for n, p in zip(shape[2:], pad, strict=True))
    count = tuple(-(-n // m) for n in extent)
    tiles = to_tiles(x, Tiling(filtering(m, 3).data, m, pad, count))
    points = leaves.input_("points", tiles.shape)
    y = from_tiles(points, Tiling(filtering(m, 3).result, m, (0, 0), count), extent)
    more = leaves.input_("more", y.shape)
    made = launches(step({"tiles": tiles, "y": ops.relu(ops.add(y, more))}, x, points, more))
    # The residual and the slope are the transform's epilogue.
    assert [k.kind for launch in made for k in launch] == ["transform", "transform"]
    check(target, *made)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(5, 16, 3, 3), (16, 3, 3, 3), (33, 20, 3, 3)])
@pytest.mark.parametrize("perm", [(0, 1, 2, 3), (1, 0, 2, 3)])
def test_tiles_of_kernels(target, shape, perm):
    w = leaves.input_("w", shape)
    tiling = Tiling(filtering(4, 3).kernel, 1, (0, 0), (1, 1))
    made = launches(step({"tiles": to_tiles(ops.transpose(w, perm), tiling)}, w))
    check(target, *made)
