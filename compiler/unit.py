"""Unit: one program on its way through the passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compiler.passes.arena import NAME

if TYPE_CHECKING:  # of what the passes make, a net that was compiled before needs nothing
    from compiler.backends import Backend, Compiled
    from compiler.ir.graph import Graph
    from compiler.ir.node import Node
    from compiler.kernels.schedule import Buffer, Schedule, Work
    from compiler.lowering.memory import MemoryPlan
    from compiler.lowering.storage import Plan
    from compiler.passes.arena import Arena
    from schemas.program import Role, Runs


@dataclass
class Unit:
    """One program being compiled; each pass fills in its part."""

    graph: Graph
    arena: Arena
    backend: Backend
    names: dict[Node, str] = field(default_factory=dict)
    tables: Mapping[str, Runs] = field(default_factory=dict)
    siblings: list[str] = field(default_factory=list)  # which are one contraction, or why not
    plan: Plan = field(init=False, repr=False)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    kernels: list[Work] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    schedule: Schedule = field(init=False, repr=False)
    memory: MemoryPlan = field(init=False, repr=False)
    compiled: Compiled = field(init=False, repr=False)

    def lasting(self) -> dict[tuple[Role, str], tuple[int, ...]]:
        """Returns the shapes of what outlives a step: the states, and the arena if there is one."""
        found: dict[tuple[Role, str], tuple[int, ...]] = {}
        if self.arena.slots:
            found["param", NAME] = self.arena.shape
        return found | {("state", key): info.shape for key, info in self.graph.states.items()}
