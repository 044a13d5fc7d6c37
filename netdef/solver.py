"""Solver: a solver file compiled into a training run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.frontend.build import build
from compiler.ir.graph import Graph
from compiler.layers.scope import Probe
from compiler.passes.arena import Arena, plan_arena
from compiler.passes.update import Step, accumulate_step, apply_step, train_step
from netdef.engine import Engine, check_fits, open_engine, plain
from netdef.formats import apply_set, read_net, read_solver
from netdef.labels import checked
from netdef.net import Net
from netdef.python_layers import with_python
from runtime.data import Arrays, probe
from runtime.executable import Executable
from runtime.monitor import Monitor
from runtime.params import initialise
from runtime.signals import catch_signals
from runtime.snapshot import default_prefix
from runtime.solver import Training
from runtime.weights import load_weights, weight_files
from schemas.errors import Diagnostics, GraphError, ShapeError, SpecError, UsageError
from schemas.net import NetSpec, with_state
from schemas.precision import Precision
from schemas.program import Program
from schemas.solver import NetState, SolverSpec
from schemas.span import Span

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plan:
    """The graphs of a solver and the arena that they share: everything before compilation."""

    spec: SolverSpec
    train: Graph
    tests: tuple[Graph, ...]
    arena: Arena
    states: tuple[NetState, ...]  # of the training net and the test nets

    def steps(self) -> tuple[Step, Step | None]:
        """Returns the training step, and the update on its own where iter_size > 1."""
        if self.spec.iter_size == 1:
            return train_step(self.train, self.arena, self.spec), None
        apply = apply_step(self.train, self.arena, self.spec)
        return accumulate_step(self.train, self.arena), apply


def plan_solver(
    spec: SolverSpec,
    sets: Sequence[str] = (),
    probe: Probe = probe,
    allow_python_layers: bool = False,
) -> Plan:
    """Reads and builds the training net and the test nets of a solver.

    `probe` tells the shapes of data sources. `sets` are `key=value` overrides, of the solver or of
    layers (`conv1.num_output=30`).
    """
    nets, spec = nets_of(spec, sets, allow_python_layers)
    graphs = [_graph(net, state, probe) for net, state in nets]
    need_loss(graphs[0])
    need_same_weights(graphs)
    for graph in graphs:
        _warn_of_blanks(graph)
    states = tuple(state for _, state in nets)
    return Plan(spec, graphs[0], tuple(graphs[1:]), plan_arena(*graphs), states)


def _graph(net: NetSpec, state: NetState, probe: Probe) -> Graph:
    stages = frozenset(state.stages)
    return build(net, state.phase or "TRAIN", level=state.level, stages=stages, probe=probe)


def _warn_of_blanks(graph: Graph) -> None:
    """Warns of inputs that stay 0 in a solver."""
    hint = "a solver takes its data from data layers, such as Data or DummyData"
    for layer in graph.layers:
        for top, _ in layer.tops:
            if layer.type == "Input":
                message = f"layer '{layer.name}' (Input): '{top}' is 0 all along: nothing fills it"
                graph.warnings.append(GraphError(message, layer.span, hint))


def need_loss(graph: Graph) -> None:
    """Raises GraphError where there is nothing to train for."""
    if graph.loss is None:
        raise GraphError(
            f"net '{graph.name}' has no loss in phase {graph.phase}",
            graph.spec.span,
            "add a loss layer, such as {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}",
        )


def need_same_weights(graphs: Sequence[Graph]) -> None:
    """Raises ShapeErrors where a test net has other shapes of weights than the net to train."""
    diag = Diagnostics()
    train, *tests = graphs
    for graph in tests:
        for key, info in graph.params.items():
            known = train.params.get(key, info)
            if known.shape != info.shape:
                message = (
                    f"'{key}' {info.shape} of the test net is {known.shape} in the net to train"
                )
                hint = f"'{key}' is of layer '{info.layer}', which must get bottoms of one shape"
                place = graph.places.get(info.layer, info.span)
                diag.error(ShapeError(message, place, hint))
    diag.raise_if_any()


def nets_of(
    spec: SolverSpec, sets: Sequence[str] = (), allow_python_layers: bool = False
) -> tuple[list[tuple[NetSpec, NetState]], SolverSpec]:
    """Returns the training net and the test nets, each with its state, and the solver.

    A state is the phase, then what the net's own `state` says, then the solver's, as in Caffe.
    Raises NetError, MissingNet for a file that is not there.
    """
    read: dict[str, NetSpec] = {}

    def net_at(path: str) -> NetSpec:
        if path not in read:
            try:
                read[path] = read_net(_resolve(path, spec), lenient=spec.lenient)
            except UsageError as error:  # no such file: say who asks for it
                raise MissingNet(error.message, _where(path, spec), error.hint) from None
        return read[path]

    main = spec.net_param or (net_at(spec.net) if spec.net else None)
    train = spec.train_net_param or (net_at(spec.train_net) if spec.train_net else main)
    if train is None:
        raise SpecError("the solver names no net", spec.span, "give 'net: net.yaml'")
    nets = [train, *_test_nets(spec, main, net_at)]
    nets, spec = _override(sets, nets, spec)
    nets = [with_python(_through_time(net, spec), allow_python_layers) for net in nets]
    states = [spec.train_state, *spec.test_states]
    states += [NetState()] * (len(nets) - len(states))
    phases = ["TRAIN"] + ["TEST"] * (len(nets) - 1)
    return [
        (net, NetState(phase).merged(net.state).merged(state))
        for net, phase, state in zip(nets, phases, states, strict=False)
    ], spec


class MissingNet(SpecError):
    """A solver names a net whose file is not there."""


def _override(
    sets: Sequence[str], nets: list[NetSpec], spec: SolverSpec
) -> tuple[list[NetSpec], SolverSpec]:
    """Applies overrides to the solver and to every net that has the layer they name."""
    layers = [{layer.name.text for layer in net.layers} for net in nets]
    changed: list[NetSpec] = []
    resolved = spec
    for net, own in zip(nets, layers, strict=True):
        others = set().union(*layers) - own
        mine = [text for text in sets if text.split(".", 1)[0] not in others]
        new_net, new_spec = apply_set(net, spec, mine)
        assert new_net is not None and new_spec is not None
        changed.append(new_net)
        resolved = new_spec
    return changed, resolved


def _test_nets(spec: SolverSpec, main: NetSpec | None, net_at: Any) -> list[NetSpec]:
    """Caffe's order: inline test nets, test net files, then the net itself for what is left."""
    found = [*spec.test_net_params, *(net_at(path) for path in spec.test_nets)]
    while main is not None and len(found) < len(spec.test_iters):
        found.append(main)
    return found


def _through_time(net: NetSpec, spec: SolverSpec) -> NetSpec:
    """Returns the net with what the solver says of time, which goes before what the net says."""
    if "carry_state" in spec.raw:
        net = replace(net, carry_state=spec.carry_state)
    return replace(net, unroll=spec.unroll) if "unroll" in spec.raw else net


def _where(path: str, spec: SolverSpec) -> Span:
    """Returns the place where a solver names a net's file."""
    name = {spec.net: "net", spec.train_net: "train_net"}.get(path, "test_net")
    return spec.where(name)


def _resolve(path: str, spec: SolverSpec) -> str:
    """Returns the file that a solver means by the path of a net.

    Beside the solver file first, then as seen from here. Caffe's solvers write paths as seen from
    Caffe's own root (`examples/mnist/lenet.prototxt`): from elsewhere, the net is still beside the
    solver.
    """
    folder = Path(spec.file).parent
    for found in (folder / path, Path(path), folder / Path(path).name):
        if found.is_file():
            return str(found)
    whole = folder / path
    return str(whole if whole.parent.is_dir() else folder / Path(path).name)


class Solver:
    """A training run from a solver file: compile, step, test, snapshot, resume.

    >>> solver = netdef.Solver("nets/lenet/solver.yaml")
    >>> solver.step(100)
    >>> solver.test()
    """

    def __init__(
        self,
        path: str | Path | SolverSpec,
        backend: str = "auto",
        *,
        precision: Precision | None = None,
        threads: int | None = None,
        sets: Sequence[str] = (),
        weights: Sequence[str | Path] = (),
        monitor: Monitor | None = None,
        snapshots: Path | None = None,
        lenient: bool = False,
        allow_python_layers: bool = False,
    ) -> None:
        spec = path if isinstance(path, SolverSpec) else read_solver(path, lenient=lenient)
        self.plan = plan_solver(spec, sets, allow_python_layers=allow_python_layers)
        self.spec = spec = self.plan.spec
        self.seed = spec.random_seed if spec.random_seed >= 0 else time.time_ns() % 2**31
        self.monitor = monitor or Monitor(quiet=True)
        self._engine: Engine = open_engine(
            backend,
            threads=threads,
            precision=precision or spec.precision,
            where=None if precision else spec.where("precision"),
            deterministic_reference=spec.deterministic_reference,
        )
        check_fits([self.plan.train, *self.plan.tests], self.plan.arena, self._engine.memory)
        step, apply = self.plan.steps()
        self._train = self._engine.load(step, self.plan.arena)
        self._apply = self._load(apply) if apply is not None else None
        self._tests = [self._load(plain(graph)) for graph in self.plan.tests]
        self._graphs = (self.plan.train, *self.plan.tests)
        self._arrays = [Arrays() for _ in self._graphs]
        self._nets: dict[int, Net] = {}
        initialise(self._train, self.seed, self.plan.train.first)
        self.warnings: list[str] = []
        own = [_resolve(file, spec) for file in spec.weights]
        for file in (path for given in (*own, *weights) for path in weight_files(given)):
            self.warnings += load_weights(self._train, file)
        self._loop = Training(
            spec,
            self._train,
            apply=self._apply,
            tests=self._tests,
            seed=self.seed,
            monitor=self.monitor,
            prefix=snapshots,
            openers=[checked(*both) for both in zip(self._graphs, self._arrays, strict=True)],
        )

    def _load(self, step: Step) -> Executable:
        return self._engine.load(step, self.plan.arena, self._train)

    @property
    def backend(self) -> str:
        return self._engine.name

    @property
    def device(self) -> str:
        """What the program runs on, as one would say it: `skylake, 8 threads`."""
        return self._engine.describe()

    @property
    def program(self) -> Program:
        """The compiled training step."""
        return self._train.program

    @property
    def iteration(self) -> int:
        return self._loop.iteration

    @property
    def snapshot_prefix(self) -> Path:
        """Where snapshots go: this path with `_iter_N` behind it."""
        return self._loop.prefix

    @property
    def net(self) -> Net:
        """The training net on the solver's own weights: each sees what the other changes."""
        return self._net(0)

    @property
    def test_nets(self) -> list[Net]:
        """The test nets, likewise."""
        return [self._net(number) for number in range(1, len(self._graphs))]

    def _net(self, number: int) -> Net:
        if number not in self._nets:
            graph, state = self._graphs[number], self.plan.states[number]
            self._nets[number] = Net(
                with_state(graph.spec, state.level, state.stages),
                graph.phase,
                engine=self._engine,
                graph=graph,
                share=self._train,
                arrays=self._arrays[number],
            )
        return self._nets[number]

    def weights(self) -> dict[str, Array]:
        """Returns all learned blobs by key."""
        return {key: self._train.read(key) for key in self.plan.train.params}

    def step(self, count: int = 1) -> None:
        """Runs `count` iterations, with the displays and tests that fall due."""
        self._loop.step(count)

    def run(self) -> bool:
        """Runs to max_iter; SIGINT stops after the step, with a snapshot; returns False then."""
        with catch_signals(self._loop):
            return self._loop.run()

    def test(self, index: int = 0) -> Mapping[str, Any]:
        """Returns the mean of each output of a test net over its test_iter batches."""
        if not -len(self._tests) <= index < len(self._tests):
            message = f"there is no test net {index}: the solver has {len(self._tests)}"
            raise UsageError(message, hint="give test_iter and test_interval in the solver file")
        return self._loop.test(index)

    def snapshot(self, stem: str | Path | None = None) -> Path:
        """Writes a snapshot and returns the path of its manifest."""
        return self._loop.snapshot(Path(stem) if stem is not None else None)

    def restore(self, path: str | Path) -> None:
        """Continues from a snapshot, bit-identically."""
        self._loop.restore(Path(path))
        self.seed = self._loop.seed

    def record_to(self, folder: Path) -> None:
        """Writes metrics here from now on, and snapshots if they have no prefix of their own."""
        self.monitor.folder = folder
        self._loop.prefix = default_prefix(self.spec, folder)

    def close(self) -> None:
        """Stops the data threads and frees the device."""
        self._loop.close()
        for net in self._nets.values():
            net.close()
        self._engine.close()

    def resolved(self) -> dict[str, Any]:
        """Returns the solver as it runs: every field, the seed, the backend and its precision."""
        fields = {
            name: getattr(self.spec, name)
            for name in SolverSpec.__dataclass_fields__
            if name not in _UNSAID and not name.endswith(("_param", "_params"))
        }
        fields["train_state"] = _plain_state(self.spec.train_state)
        fields["test_states"] = [_plain_state(s) for s in self.spec.test_states]
        precision = self.program.meta["precision"]
        drawn = {"random_seed": self.seed, "backend": self.backend, "precision": precision}
        return {**fields, **drawn}


# What a resolved solver does not say: it is not of the run.
_UNSAID = ("spans", "raw", "span", "warnings", "lenient")


def _plain_state(state: NetState) -> dict[str, Any]:
    return {"phase": state.phase, "level": state.level or 0, "stages": list(state.stages)}
