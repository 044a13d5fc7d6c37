"""Gather and scatter: evaluation, gradient, and the kernels made of them."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir import ops
from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.passes.autodiff import gradients
from compiler.passes.update import Step
from compiler.prims import leaves
from schemas.net import NetSpec
from tests.harness import assert_close, run_both


def graph_of(outputs: dict[str, Node], inputs: dict[str, Node]) -> Graph:
    graph = Graph("gather", "TEST", NetSpec("gather", ()))
    graph.outputs, graph.inputs = outputs, inputs
    return graph


@pytest.mark.parametrize("axis, shape, index", [(0, (4, 3), (5,)), (1, (2, 4, 3), (2, 3))])
def test_gather_and_its_gradient(axis, shape, index):
    x, label = leaves.input_("x", shape), leaves.input_("label", index)
    y = ops.gather(x, ops.cast(label, "i32"), axis)
    loss = ops.sum_all(ops.mul(y, y))
    (dx,) = gradients(loss, [x])
    run = run_both(Step(graph_of({"y": y, "dx": dx}, {"x": x, "label": label})))
    assert run.expected["y"].shape == shape[:axis] + index + shape[axis + 1 :]
    assert np.any(run.expected["dx"])
    assert_close(run)
