"""Net: a compiled net that runs forward and backward from Python."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.frontend.build import build
from compiler.ir.graph import Graph
from compiler.passes.arena import Arena, plan_arena
from netdef.arrays import numbers, shaped
from netdef.backward import backward_step, check_names
from netdef.blobs import Layers
from netdef.engine import Engine, forward_step, open_engine, plain
from netdef.filtering import next_filter, with_count
from netdef.formats import read_net
from netdef.labels import check_given, checked, set_arrays
from netdef.python_layers import with_python
from runtime.data import Arrays, given_items, probe
from runtime.executable import Executable
from runtime.feeder import Feeder, Opener
from runtime.params import initialise
from runtime.sinks import Sinks
from runtime.weights import load_weights, save_weights, weight_files
from schemas.errors import UsageError, did_you_mean
from schemas.net import NetSpec, with_state
from schemas.precision import Precision
from schemas.program import CHANGED

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
SEED = 1  # of a net that is loaded on its own; a solver has its own


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
        precision: Precision | None = None,
        engine: Engine | None = None,
        threads: int | None = None,
        deploy: bool = False,
        inputs: Mapping[str, Shape] | None = None,
        seed: int = SEED,
        graph: Graph | None = None,
        share: Executable | None = None,
        arrays: Arrays | None = None,
    ) -> None:
        self.spec = spec
        self.phase = phase
        self._deploy = deploy
        self.graph = graph or self._build(spec, dict(inputs or {}))
        self._engine = engine or open_engine(backend, threads=threads, precision=precision)
        self._arena: Arena = plan_arena(self.graph)
        self._programs: dict[Any, Executable] = {}
        self._graphs: dict[Any, Graph] = {(*sorted(self.inputs.items()),): self.graph}
        self._weights = _lasting(self.graph)
        self._shared = share  # whose weights are this net's
        self._main = self._program(self.graph, ())
        self._shared = share or self._main
        if share is None:
            initialise(self._main, seed, self.graph.first)
        self._seed = seed
        self._iteration = 0
        self._given: dict[str, Array] = {}
        self._arrays = arrays or Arrays()
        self._feeder: Feeder | None = None
        self._sinks = Sinks(self._main.program.sinks)
        self._last: tuple[Graph, dict[str, Array]] | None = None
        self._before: dict[str, Array] = {}  # the states that the last forward pass began with
        self._backward: Executable | None = None

    def _build(self, spec: NetSpec, inputs: dict[str, Shape]) -> Graph:
        return build(spec, self.phase, probe=probe, inputs=inputs, deploy=self._deploy)

    @property
    def backend(self) -> str:
        return self._engine.name

    @property
    def executable(self) -> Executable:
        """The forward program of the net as it was loaded."""
        return self._main

    @property
    def opener(self) -> Opener:
        """Opens the sources of the net's data layers."""
        return checked(self.graph, self._arrays)

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
        """The gradients of the learned blobs after `backward`; 0 for those of lr_mult 0."""
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

        Inputs are arrays in Caffe's axis order. One left out keeps its last value; one that was
        never given is the next batch of its data layer, or zeros if it has none. A batch of another
        size than the net's compiles the net again for that size (once). Items for a MemoryData
        layer are transformed as the layer says (scale, mean, mirror, crop); those for all others
        are taken as they are.
        """
        given = {**self._given, **{n: numbers(n, v) for n, v in inputs.items()}}
        items = given_items(self.graph.feeds, given, self._seed, self._iteration)
        graph = self._shaped(items)
        for name in inputs:
            check_given(graph, name, items[name])
        wanted = (blobs,) if isinstance(blobs, str) else tuple(blobs)
        check_names(wanted, graph)
        self._given = given
        # Zeros, too, are written each time: a run uses the memory of inputs for other things.
        blank = {n: np.zeros(v.shape) for n, v in graph.inputs.items() if n not in given}
        values = {**blank, **self._batch(given), **items}
        graph = self._filtered(graph, values)
        exe = self._program(graph, wanted)
        _write(exe, values)
        self._last = (graph, values)
        self._before = states(exe)
        exe.write("iteration", self._iteration)
        self._iteration += 1
        exe.run()
        self._sinks.collect(exe)
        return {name.removeprefix(CHANGED): exe.read(name) for name in exe.program.outputs}

    def _batch(self, given: Collection[str]) -> dict[str, Array]:
        """Returns the next batch of the data layers by top, if some of them are not given."""
        feeds = [f for f in self._main.program.feeds if not set(f.tops) <= set(given)]
        # Images alone will do for a MemoryData layer: its labels are 0.
        feeds = [f for f in feeds if f.type != "MemoryData" or not set(f.tops) & set(given)]
        if not feeds:
            return {}
        if self._feeder is None:
            self._feeder = Feeder(self._main, self._seed, "net", self.opener)
        self._feeder.forget()
        self._feeder.feed()
        return {top: self._main.read(top) for feed in feeds for top in feed.tops}

    def set_input_arrays(self, data: Array, labels: Array | None = None) -> None:
        """Makes the net's MemoryData layer read these arrays, batch by batch, again and again.

        `data` is (n, c, h, w), `labels` (n,) or (n, 1, 1, 1), n a multiple of batch_size. They are
        not copied. A net of a solver reads them in `solver.step`, too.
        """
        for top in set_arrays(self._arrays, self.graph, data, labels):
            self._given.pop(top, None)

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
            array = shaped(name, value, graph.blobs[name].shape)
            _write(exe, {f"d:{name}": array})  # nothing may depend on it: a threshold
        _write(exe, inputs)
        exe.write("iteration", self._iteration - 1)
        after = states(exe)
        _write(exe, self._before)
        exe.run()
        _write(exe, after)
        self._backward = exe
        found = {n.removeprefix(CHANGED): n for n in exe.program.outputs}
        return {name: exe.read(found[f"d:{name}"]) for name in graph.inputs}

    @property
    def state(self) -> dict[str, Array]:
        """The hidden states that the last batch has left to the next one, (steps, N, ...) each.

        By layer and blob: `lstm/h`. They are copies; `reset_state` begins anew.
        """
        return {name.partition("@")[0]: value for name, value in states(self._main).items()}

    def reset_state(self) -> None:
        """Gives every hidden state the value it has before the first batch."""
        for info in self._main.program.states:
            if info.carried:
                self._main.write(info.key, np.full(info.shape, info.fill, np.float32))

    def reshape(self, **shapes: Shape) -> None:
        """Makes inputs of other shapes the net's own, as images of another size; weights stay.

        >>> net.reshape(data=(1, 3, 500, 400))

        Raises UsageError where a learned blob would have another shape.
        """
        fed = {top: feed.layer for feed in self.graph.feeds for top in feed.tops}
        for name, shape in shapes.items():
            if name not in self.inputs:
                raise UsageError(f"no input '{name}'", hint=did_you_mean(name, self.inputs))
            if name in fed:
                raise UsageError(f"layer '{fed[name]}' gives '{name}' its shape, {shape} does not")
        self.graph = self._graph_of({**self.inputs, **{n: tuple(s) for n, s in shapes.items()}})
        self._given = {n: v for n, v in self._given.items() if v.shape == self.inputs[n]}

    def _shaped(self, inputs: Mapping[str, Array]) -> Graph:
        """Returns the graph for batches of the size of these inputs."""
        shapes = dict(self.inputs)
        fed = {top for feed in self.graph.feeds for top in feed.tops}
        for name, value in inputs.items():
            if name not in shapes:
                raise UsageError(f"no input '{name}'", hint=did_you_mean(name, shapes))
            own, shape = shapes[name], value.shape
            if (len(shape), shape[1:]) != (len(own), own[1:]):
                message = f"input '{name}' has shape {own}, not {shape}"
                hint = f"if that is meant: net.reshape({name}={shape})"
                can = len(shape) == len(own) and name not in fed
                raise UsageError(message, hint=hint if can else None)
            shapes[name] = shape
        return self._graph_of(shapes)

    def _graph_of(self, shapes: dict[str, Shape]) -> Graph:
        """Builds the net for inputs of these shapes, once. Raises where weights do not fit."""
        key = tuple(sorted(shapes.items()))
        if key not in self._graphs:
            graph = self._build(self.spec, shapes)
            for blob, shape in _lasting(graph).items():
                own = self._weights[blob]
                if shape != own:
                    given = ", ".join(f"'{n}' {s}" for n, s in shapes.items())
                    raise UsageError(
                        f"the net's weights do not fit {given}",
                        hint=f"'{blob}' would have shape {shape}, but has {own}",
                    )
            self._graphs[key] = graph
        return self._graphs[key]

    def _filtered(self, graph: Graph, values: Mapping[str, Array]) -> Graph:
        """Returns the graph in which each Filter has as many items as it chooses of `values`."""
        shapes = {name: node.shape for name, node in graph.inputs.items()}
        while (layer := next_filter(graph)) is not None:
            blob = layer.bottoms[-1][0]
            node, chosen = graph.blobs[blob], values.get(blob)
            if chosen is None or node is not graph.inputs[blob]:
                key = (id(graph), "selector", blob)
                if key not in self._programs:
                    alone = replace(graph, outputs={blob: node}, updates={}, kept={}, sinks=())
                    self._programs[key] = self._engine.load(plain(alone), self._arena, self._shared)
                exe = self._programs[key]
                _write(exe, values)
                exe.write("iteration", self._iteration)
                exe.run()
                chosen = exe.read(blob)
            count = int(np.count_nonzero(chosen))
            again = (id(graph), layer.name, count)
            if again not in self._graphs:
                spec = with_count(graph.spec, layer, count)
                self._graphs[again] = self._build(spec, shapes)
            graph = self._graphs[again]
        return graph

    def _program(self, graph: Graph, blobs: tuple[str, ...]) -> Executable:
        key = (id(graph), blobs)
        if key not in self._programs:
            step = forward_step(graph, blobs)
            self._programs[key] = self._engine.load(step, self._arena, self._shared)
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


def _lasting(graph: Graph) -> dict[str, Shape]:
    """Returns the shapes of all blobs of the layers: learned ones and measured ones."""
    measured = (key for layer in graph.layers for key in layer.running)
    learned = {key: info.shape for key, info in graph.params.items()}
    return learned | {key: graph.states[key].shape for key in measured}


def _write(exe: Executable, values: Mapping[str, Array]) -> None:
    """Writes those inputs that the program has."""
    for name, value in values.items():
        if name in exe.program.tensors:
            exe.write(name, value)


def states(exe: Executable) -> dict[str, Array]:
    """Returns the hidden states that a program carries from batch to batch."""
    tensors = exe.program.tensors
    return {s.key: exe.read(s.key) for s in exe.program.states if s.carried and s.key in tensors}


def load(
    path: str | Path | NetSpec | None = None,
    phase: str = "TEST",
    backend: str = "auto",
    *,
    text: str | None = None,
    format: str | None = None,
    weights: str | Path | None = None,
    precision: Precision | None = None,
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
    phase = phase.upper()
    net = Net(spec, phase, backend=backend, precision=precision, threads=threads, deploy=deploy)
    if weights is not None:
        net.load_weights(weights)
    return net
