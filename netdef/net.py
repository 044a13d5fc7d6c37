"""Net: a compiled net that runs forward and backward from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.arena import Arena, plan_arena
from compiler.autodiff import gradients
from compiler.build import build
from compiler.graph import Graph
from compiler.prims.leaves import input_
from compiler.prims.moves import pack
from compiler.update import Step
from netdef.blobs import Layers
from netdef.engine import Engine, open_engine, plain
from netdef.formats import read_net
from netdef.labels import checked
from netdef.python_layers import with_python
from runtime.data import given_items, probe
from runtime.executable import Executable
from runtime.feeder import Feeder
from runtime.params import initialise
from runtime.sinks import Sinks
from runtime.weights import load_weights, save_weights, weight_files
from schemas.errors import UsageError, did_you_mean
from schemas.net import NetSpec, with_state

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
SEED = 1  # of a net that is loaded on its own; a solver has its own
# Before the name of an output that is also an input's: a layer worked on it in place.
CHANGED = "changed:"


class Net:
    """A net on a device: inputs, outputs, parameters, forward and backward.

    Programs are compiled when they are first needed: forward once for each set of blobs asked for
    and each set of input shapes, backward for each set of gradients given. All of them share the
    parameters.
    """

    def __init__(
        self,
        spec: NetSpec,
        phase: str = "TEST",
        *,
        backend: str = "auto",
        engine: Engine | None = None,
        threads: int | None = None,
        deploy: bool = False,
        inputs: Mapping[str, Shape] | None = None,
        seed: int = SEED,
        graph: Graph | None = None,
        share: Executable | None = None,
    ) -> None:
        self.spec = spec
        self.phase = phase
        self._deploy = deploy
        self.graph = graph or self._build(dict(inputs or {}))
        self._engine = engine or open_engine(backend, threads=threads)
        self._arena: Arena = plan_arena(self.graph)
        self._programs: dict[Any, Executable] = {}
        self._shared = share  # whose weights are this net's
        self._main = self._program(self.graph, ())
        self._shared = share or self._main
        if share is None:
            initialise(self._main, seed, self.graph.first)
        self._seed = seed
        self._iteration = 0
        self._given: dict[str, Array] = {}
        self._feeder: Feeder | None = None
        self._sinks = Sinks(self._main.program.sinks)
        self._last: tuple[Graph, dict[str, Array]] | None = None
        self._backward: Executable | None = None

    def _build(self, inputs: dict[str, Shape]) -> Graph:
        return build(self.spec, self.phase, probe=probe, inputs=inputs, deploy=self._deploy)

    @property
    def backend(self) -> str:
        return self._engine.name

    @property
    def executable(self) -> Executable:
        """The forward program of the net as it was loaded."""
        return self._main

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of each input blob."""
        return {name: node.shape for name, node in self.graph.inputs.items()}

    @property
    def outputs(self) -> dict[str, Shape]:
        """The shape of each output: the blobs that no layer reads."""
        return {name: node.shape for name, node in self.graph.outputs.items()}

    @property
    def params(self) -> Layers:
        """The blobs by layer, in Caffe's shapes and order; assignable.

        They are the learned ones, and those a layer measures (BatchNorm's running sums).
        """
        return Layers(self._main, self._layer_keys())

    @property
    def grads(self) -> Layers:
        """The gradients of the learned blobs after `backward`."""
        if self._backward is None:
            raise UsageError("there are no gradients yet", hint="call net.backward first")
        return Layers(self._backward, self._layer_keys(running=False), "d:")

    def _layer_keys(self, running: bool = True) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for layer in self.graph.layers:
            keys = {self.graph.params[k].name: k for k in layer.params}
            if running:
                keys |= {k.rpartition("/")[2]: k for k in layer.running}
            if keys:
                found[layer.name] = keys
        return found

    # ---- running -----------------------------------------------------------------------------

    def forward(
        self, blobs: str | tuple[str, ...] | list[str] = (), **inputs: Array
    ) -> dict[str, Array]:
        """Runs the net and returns its outputs by name, and inner `blobs` if asked for.

        Inputs are arrays in Caffe's axis order. One left out keeps its last value; where none was
        ever given, data layers read their next batch. A batch of another size than the net's
        compiles the net again for that size (once). Items for a MemoryData layer are transformed
        as the layer says (scale, mean, mirror, crop); those for all others are taken as they are.
        """
        given = {**self._given, **{n: np.asarray(v) for n, v in inputs.items()}}
        values = given_items(self.graph.feeds, given, self._seed, self._iteration)
        graph = self._shaped(values)
        exe = self._program(graph, (blobs,) if isinstance(blobs, str) else tuple(blobs))
        self._given = given
        values = values or self._batch()
        _write(exe, values)
        self._last = (graph, values)
        exe.write("iteration", self._iteration)
        self._iteration += 1
        exe.run()
        self._sinks.collect(exe)
        return {name.removeprefix(CHANGED): exe.read(name) for name in exe.program.outputs}

    def _batch(self) -> dict[str, Array]:
        """Returns the next batch of the data layers by top."""
        if self._feeder is None:
            self._feeder = Feeder(self._main, self._seed, "net", checked([self.graph]))
        self._feeder.forget()
        self._feeder.feed()
        tops = [top for feed in self._main.program.feeds for top in feed.tops]
        return {top: self._main.read(top) for top in tops}

    def backward(self, **gradient: Array) -> dict[str, Array]:
        """Returns the gradient of each input for given gradients of outputs (or inner blobs).

        Without arguments: the gradient of the net's loss. Parameter gradients are in `net.grads`.
        It uses the inputs of the last `forward`.
        """
        if self._last is None:
            raise UsageError("nothing has been computed yet", hint="call net.forward first")
        graph, inputs = self._last
        exe = self._backward_program(graph, tuple(sorted(gradient)))
        for name, value in gradient.items():
            shape, own = np.shape(value), graph.blobs[name].shape
            if shape != own:
                raise UsageError(f"'{name}' has shape {own}, not {shape}")
            _write(exe, {f"d:{name}": np.asarray(value)})  # nothing may depend on it: a threshold
        _write(exe, inputs)
        exe.write("iteration", self._iteration - 1)
        exe.run()
        self._backward = exe
        found = {n.removeprefix(CHANGED): n for n in exe.program.outputs}
        return {name: exe.read(found[f"d:{name}"]) for name in graph.inputs}

    def _shaped(self, inputs: Mapping[str, Array]) -> Graph:
        """Returns the graph for the shapes of these inputs."""
        shapes = dict(self.inputs)
        for name, value in inputs.items():
            if name not in shapes:
                raise UsageError(f"no input '{name}'", hint=did_you_mean(name, shapes))
            shapes[name] = tuple(np.shape(value))
        if shapes == self.inputs:
            return self.graph
        for name, old in self.inputs.items():
            if shapes[name][1:] != old[1:]:
                raise UsageError(f"input '{name}' has shape {old}, not {shapes[name]}")
        key = ("graph", tuple(sorted(shapes.items())))
        if key not in self._programs:
            self._programs[key] = self._build(shapes)  # type: ignore[assignment]
        return self._programs[key]  # type: ignore[return-value]

    def _program(self, graph: Graph, blobs: tuple[str, ...]) -> Executable:
        key = (id(graph), blobs)
        if key not in self._programs:
            for name in blobs:
                if name not in graph.blobs:
                    raise UsageError(f"no blob '{name}'", hint=did_you_mean(name, graph.blobs))
            extra = {name: graph.blobs[name] for name in blobs}
            outputs = {
                CHANGED + name if node is not graph.inputs.get(name, node) else name: node
                for name, node in {**graph.outputs, **extra}.items()
            }
            wanted = replace(graph, outputs=outputs)
            self._programs[key] = self._engine.load(plain(wanted), self._arena, self._shared)
        return self._programs[key]

    def _backward_program(self, graph: Graph, given: tuple[str, ...]) -> Executable:
        key = (id(graph), "backward", given)
        if key not in self._programs:
            step = backward_step(graph, self._arena, given)
            self._programs[key] = self._engine.load(step, self._arena, self._shared)
        return self._programs[key]

    # ---- files -------------------------------------------------------------------------------

    def load_weights(self, path: str | Path) -> list[str]:
        """Loads weights by layer name; returns warnings about layers that do not match.

        By the extension: .safetensors, .caffemodel, .caffemodel.h5; or several, with commas.
        """
        return [text for file in weight_files(path) for text in load_weights(self._main, file)]

    def save_weights(self, path: str | Path) -> None:
        """Writes the weights: .caffemodel, .caffemodel.h5, else safetensors by key."""
        save_weights(self._main, Path(path))

    def close(self) -> None:
        """Ends the files of HDF5Output layers, stops the data threads, frees the net's memory."""
        self._sinks.finish()
        if self._feeder is not None:
            self._feeder.close()
        if self._shared is self._main:
            self._engine.close()


def _write(exe: Executable, values: Mapping[str, Array]) -> None:
    """Writes those inputs that the program has."""
    for name, value in values.items():
        if name in exe.program.tensors:
            exe.write(name, value)


def backward_step(graph: Graph, arena: Arena, given: tuple[str, ...]) -> Step:
    """Returns the step that computes input and parameter gradients from output gradients."""
    seeds = {}
    for name in given:
        if name not in graph.blobs:
            raise UsageError(f"no blob '{name}'", hint=did_you_mean(name, graph.blobs))
        node = graph.blobs[name]
        seeds[node] = input_(f"d:{name}", node.shape)
    if not given and graph.loss is None:
        raise UsageError("the net has no loss", hint="give the gradient of an output by name")
    keys = [k for k in arena.slots if k in graph.params]
    wrt = [*graph.inputs.values(), *(graph.param_nodes[k] for k in keys)]
    found = gradients(None if given else graph.loss, wrt, seeds or None, origin=graph.origin)
    count = len(graph.inputs)
    named = (f"{CHANGED if n in given else ''}d:{n}" for n in graph.inputs)
    outputs = dict(zip(named, found, strict=False))
    inputs = {**graph.inputs, **{f"d:{n}": seeds[graph.blobs[n]] for n in given}}
    names = {}
    if keys:
        slots = [arena.slots[k] for k in keys]
        parts = tuple(s.stored(g) for s, g in zip(slots, found[count:], strict=True))
        packed = pack(parts, tuple(s.offset for s in slots), arena.shape)
        outputs["gradients"] = packed
        names[packed] = "gradients"
    again = {name: host.again() for name, host in graph.hosts.items()}
    apart = replace(graph, inputs=inputs, outputs=outputs, updates={}, kept={}, sinks=())
    return Step(replace(apart, effects=(), hosts=again), names=names)


def load(
    path: str | Path | NetSpec | None = None,
    phase: str = "TEST",
    backend: str = "auto",
    *,
    text: str | None = None,
    format: str | None = None,
    weights: str | Path | None = None,
    threads: int | None = None,
    deploy: bool = False,
    level: int | None = None,
    stages: Sequence[str] = (),
    lenient: bool = False,
    allow_python_layers: bool = False,
) -> Net:
    """Reads, builds and compiles a net.

    `path` is a YAML file or a Caffe prototxt, or a NetSpec; or give `text` with its `format`
    ("yaml" or "prototxt"). `level` and `stages` choose layers by their rules; `lenient` passes over
    fields that only other programs know, with a warning (`net.graph.warnings`). Layers of type
    Python run the code that they name, so they must be allowed. Raises NetError, with the place in
    the file, for every mistake in it.
    """
    if phase.upper() not in ("TRAIN", "TEST"):
        raise UsageError(f"there is no phase '{phase}'", hint="phase is TRAIN or TEST")
    if isinstance(path, NetSpec):
        spec = path
    else:
        name = str(path) if path is not None else None
        spec = read_net(name, text=text, format=format, lenient=lenient)
    spec = with_python(with_state(spec, level, tuple(stages)), allow_python_layers)
    net = Net(spec, phase.upper(), backend=backend, threads=threads, deploy=deploy)
    if weights is not None:
        net.load_weights(weights)
    return net
