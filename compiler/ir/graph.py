"""A net as a graph: its inputs, parameters, blobs, outputs and updates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from compiler.ir.node import Node, toposort
from compiler.ir.recurrence import Recurrence, closed
from schemas.errors import NetError
from schemas.host import Array, Host
from schemas.net import NetSpec
from schemas.params import Feed, ParamInfo, Sink, StateInfo
from schemas.span import Span


@dataclass(frozen=True, slots=True)
class Cycle:
    """Layers that take one time step together, then the next."""

    number: int  # from 1 on, in the order of the file
    steps: int
    backwards: bool

    def __str__(self) -> str:
        return f"{self.steps} steps, {'backwards' if self.backwards else 'forwards'}"


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One built layer, for tables and messages."""

    name: str
    type: str
    span: Span
    bottoms: tuple[tuple[str, tuple[int, ...]], ...]
    tops: tuple[tuple[str, tuple[int, ...]], ...]
    params: tuple[str, ...]  # keys into Graph.params
    macs: int  # multiply-accumulates of one forward pass, the whole batch
    running: tuple[str, ...] = ()  # keys into Graph.states: blobs of Caffe's that are not learned
    remembered: tuple[tuple[str, int], ...] = ()  # what it takes from its own step t-1: (h, 1)
    cycle: Cycle | None = None


@dataclass
class Graph:
    """What `build` makes of a NetSpec and what every pass takes and returns.

    The nodes themselves are immutable; a pass that rewrites them returns a new Graph (see
    `mapped`). `outputs` are what a run gives back, by name; `updates` says which leaf (a param or
    a state) gets which new value at the end of a step.
    """

    name: str
    phase: str
    spec: NetSpec
    inputs: dict[str, Node] = field(default_factory=dict)
    params: dict[str, ParamInfo] = field(default_factory=dict)
    param_nodes: dict[str, Node] = field(default_factory=dict)
    states: dict[str, StateInfo] = field(default_factory=dict)
    # LAYER/BLOB.lr_mult (or decay_mult) -> what a layer says it is, that layer, and where
    multipliers: dict[str, tuple[float, str, Span]] = field(default_factory=dict)
    shared_states: dict[str, str] = field(default_factory=dict)  # `param` name -> key of a state
    blobs: dict[str, Node] = field(default_factory=dict)
    outputs: dict[str, Node] = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)
    loss: Node | None = None
    updates: dict[Node, Node] = field(default_factory=dict)
    recurrences: list[Recurrence] = field(default_factory=list)
    effects: tuple[Node, ...] = ()  # calls that are made in every run, whoever reads their result
    hosts: dict[str, Host] = field(default_factory=dict)  # layer -> what its calls go to
    first: dict[str, Array] = field(default_factory=dict)  # param -> first values, not by a filler
    feeds: tuple[Feed, ...] = ()
    sinks: tuple[Sink, ...] = ()
    kept: dict[str, Node] = field(default_factory=dict)  # what sinks read; no outputs of the net
    layers: tuple[LayerInfo, ...] = ()
    origin: dict[Node, str] = field(default_factory=dict)  # node -> the layer that made it
    places: dict[str, Span] = field(default_factory=dict)  # layer -> where it is written
    warnings: list[NetError] = field(default_factory=list)

    def roots(self) -> list[Node]:
        """Returns the nodes that a run must compute."""
        ends = [*self.fetched.values(), *self.updates.values(), *self.effects]
        return closed(ends, self.recurrences)

    @property
    def fetched(self) -> dict[str, Node]:
        """What is read after a run, by name: the outputs, and what sinks write to files."""
        return {**self.outputs, **self.kept}

    def nodes(self, extra: Iterable[Node] = ()) -> list[Node]:
        """Returns all nodes of a run, sources first."""
        ends = [*self.fetched.values(), *self.updates.values(), *self.effects, *extra]
        return toposort(closed(ends, self.recurrences))
