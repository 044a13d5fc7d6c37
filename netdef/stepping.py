"""The step that `time` and `inspect` look at: a training step, or a forward pass."""

from __future__ import annotations

from collections.abc import Mapping

from compiler.passes.arena import Arena, plan_arena
from compiler.passes.update import Step, train_step
from netdef.probing import build_anyhow, phases_used
from schemas.errors import NetError
from schemas.net import NetSpec
from schemas.solver import SolverSpec

Shape = tuple[int, ...]


def step_of(
    spec: NetSpec,
    phase: str | None = None,
    shapes: Mapping[str, Shape] | None = None,
    solver: SolverSpec | None = None,
) -> tuple[Step, Arena, str, list[NetError]]:
    """Returns a step of a net, its arena, its phase and warnings.

    In phase TRAIN (the one taken if the net has it) and with a loss, a step is forward, backward
    and update under `solver`, plain SGD if there is none; else it is a forward pass.
    """
    phase = phase or phases_used(spec)[0]
    graph, warnings = build_anyhow(spec, phase, shapes)
    arena = plan_arena(graph)
    if phase == "TRAIN" and graph.loss is not None and graph.params:
        return train_step(graph, arena, solver or SolverSpec()), arena, phase, warnings
    return Step(graph), arena, phase, warnings
