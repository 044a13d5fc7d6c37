"""Net: a compiled net that runs forward and backward from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from netdef.engine import Engine, open_engine, plain
from netdef.formats import read_net
from runtime.data import probe
from runtime.executable import Executable
from runtime.params import initialise
from runtime.weights import load_weights, save_weights
from schemas.errors import UsageError, did_you_mean
from schemas.net import NetSpec

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
SEED = 1  # of a net that is loaded on its own; a solver has its own


class Blobs(Mapping[str, Array]):
    """The learned blobs of one layer by name, in Caffe's order; reading copies, assigning writes.

    >>> net.params["conv1"]["weight"] = np.zeros((20, 1, 5, 5))
    """

    def __init__(self, exe: Executable, keys: dict[str, str], prefix: str = "") -> None:
        self._exe = exe
        self._keys = keys
        self._prefix = prefix

    def __getitem__(self, name: str) -> Array:
        if name not in self._keys:
            raise UsageError(f"no blob '{name}'", hint=did_you_mean(name, self._keys))
        return self._exe.read(self._prefix + self._keys[name])

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self._keys:
            raise UsageError(f"no blob '{name}'", hint=did_you_mean(name, self._keys))
        key = self._keys[name]
        shape = self._exe.program.tensors[key].shape
        array = np.asarray(value)
        if array.shape != shape:
            raise UsageError(f"'{key}' has shape {shape}, not {array.shape}")
        self._exe.write(key, array)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


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
    ) -> None:
        self.spec = spec
        self.phase = phase
        self._deploy = deploy
        self.graph = self._build(dict(inputs or {}))
        self._engine = engine or open_engine(backend, threads=threads)
        self._arena: Arena = plan_arena(self.graph)
        self._programs: dict[Any, Executable] = {}
        self._main = self._program(self.graph, ())
        initialise(self._main, seed)
        self._iteration = 0
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
    def params(self) -> dict[str, Blobs]:
        """The learned blobs by layer, in Caffe's shapes; assignable."""
        return {layer: Blobs(self._main, keys) for layer, keys in self._layer_keys().items()}

    @property
    def grads(self) -> dict[str, Blobs]:
        """The gradients of the learned blobs after `backward`."""
        if self._backward is None:
            raise UsageError("there are no gradients yet", hint="call net.backward first")
        exe = self._backward
        return {layer: Blobs(exe, keys, "d:") for layer, keys in self._layer_keys().items()}

    def _layer_keys(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for layer in self.graph.layers:
            if layer.params:
                found[layer.name] = {self.graph.params[k].name: k for k in layer.params}
        return found

    # ---- running -----------------------------------------------------------------------------

    def forward(self, blobs: tuple[str, ...] | list[str] = (), **inputs: Array) -> dict[str, Array]:
        """Runs the net and returns its outputs by name, and inner `blobs` if asked for.

        Inputs are arrays in Caffe's axis order. One left out keeps its last value. A batch of
        another size than the net's compiles the net again for that size (once).
        """
        graph = self._shaped(inputs)
        exe = self._program(graph, tuple(blobs))
        for name, value in inputs.items():
            exe.write(name, np.asarray(value))
        self._last = (graph, {n: np.asarray(v) for n, v in inputs.items()})
        exe.write("iteration", self._iteration)
        self._iteration += 1
        exe.run()
        return {name: exe.read(name) for name in exe.program.outputs}

    def backward(self, **gradient: Array) -> dict[str, Array]:
        """Returns the gradient of each input for given gradients of outputs (or inner blobs).

        Without arguments: the gradient of the net's loss. Parameter gradients are in `net.grads`.
        It uses the inputs of the last `forward`.
        """
        graph, inputs = getattr(self, "_last", (self.graph, {}))
        exe = self._backward_program(graph, tuple(sorted(gradient)))
        for name, value in inputs.items():
            if name in exe.program.tensors:
                exe.write(name, value)
        for name, value in gradient.items():
            exe.write(f"d:{name}", np.asarray(value))
        exe.write("iteration", self._iteration - 1)
        exe.run()
        self._backward = exe
        return {name: exe.read(f"d:{name}") for name in graph.inputs}

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
            wanted = replace(graph, outputs={**graph.outputs, **extra})
            self._programs[key] = self._engine.load(plain(wanted), self._arena, self._shared())
        return self._programs[key]

    def _shared(self) -> Executable | None:
        return getattr(self, "_main", None)

    def _backward_program(self, graph: Graph, given: tuple[str, ...]) -> Executable:
        key = (id(graph), "backward", given)
        if key not in self._programs:
            step = backward_step(graph, self._arena, given)
            self._programs[key] = self._engine.load(step, self._arena, self._shared())
        return self._programs[key]

    # ---- files -------------------------------------------------------------------------------

    def load_weights(self, path: str | Path) -> list[str]:
        """Loads learned blobs by layer name; returns warnings about layers that do not match."""
        return load_weights(self._main, Path(path))

    def save_weights(self, path: str | Path) -> None:
        """Writes the learned blobs as safetensors, by key (`conv1/weight`)."""
        save_weights(self._main, Path(path))

    def close(self) -> None:
        """Frees memory and threads."""
        self._engine.close()


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
    outputs = {f"d:{n}": g for n, g in zip(graph.inputs, found, strict=False)}
    inputs = {**graph.inputs, **{f"d:{n}": seeds[graph.blobs[n]] for n in given}}
    names = {}
    if keys:
        slots = [arena.slots[k] for k in keys]
        parts = tuple(s.stored(g) for s, g in zip(slots, found[count:], strict=True))
        packed = pack(parts, tuple(s.offset for s in slots), arena.shape)
        outputs["gradients"] = packed
        names[packed] = "gradients"
    return Step(replace(graph, inputs=inputs, outputs=outputs, updates={}), names=names)


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
) -> Net:
    """Reads, builds and compiles a net.

    `path` is a YAML file or a Caffe prototxt, or a NetSpec; or give `text` with its `format`
    ("yaml" or "prototxt"). Raises NetError, with the place in the file, for every mistake in it.
    """
    if isinstance(path, NetSpec):
        spec = path
    else:
        spec = read_net(str(path) if path is not None else None, text=text, format=format)
    net = Net(spec, phase, backend=backend, threads=threads, deploy=deploy)
    if weights is not None:
        net.load_weights(weights)
    return net
