"""How many launches a training step takes on a GPU, as long as none of them has to fall apart."""

from __future__ import annotations

import pytest

from bench.cases import GPU_CASES, net_spec, solver_spec
from compiler.backends.triton import Backend
from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.passes.update import train_step
from compiler.pipeline import compile_unit
from compiler.unit import Unit

# Of source alone, which takes seconds. `python -m bench static` counts what is compiled.
LAUNCHES = {
    "lenet": 10,
    "mlp": 8,
    "cifar10_quick": 18,
    "char_rnn_512": 15,
    "alexnet": 28,
    "vgg16": 34,
    "googlenet": 89,
    "resnet18": 77,
    "resnet50": 192,
    "resnet50 bf16": 201,
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches_of_a_training_step(name):
    net, _, precision = name.partition(" ")
    case = GPU_CASES[net]
    graph = build(net_spec(case), "TRAIN")
    arena = plan_arena(graph)
    step = train_step(graph, arena, solver_spec(case))
    backend = Backend("sm_90", precision or "tf32", binary=False)
    program = compile_unit(Unit(step.graph, arena, backend, step.names, step.tables))
    assert sum(1 for _ in program.runs()) == LAUNCHES[name]
