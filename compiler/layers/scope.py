"""Scope: what a layer's `build` may ask for: parameters, random streams, errors."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

from compiler.frontend.delays import carried, last_rows
from compiler.ir import ops
from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.ir.recurrence import Recurrence, truncated
from compiler.prims import leaves
from compiler.prims.moves import broadcast, delayed, reshape
from schemas.errors import NetError, Question, ShapeError, SpecError
from schemas.host import HostSpec
from schemas.net import LayerSpec, ParamSpec
from schemas.params import Feed, Filler, ParamInfo, Sink, StateInfo
from schemas.span import Span

Shape = tuple[int, ...]
# Tells the shapes of a data layer's tops (whole batches, cropped) from its fields and phase.
Probe = Callable[[Feed], tuple[Shape, ...]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a bottom comes from."""

    blob: str
    layer: str
    shape: Shape

    def __str__(self) -> str:
        return f"'{self.blob}' {self.shape} of layer '{self.layer}'"


@dataclass
class Scope:
    """One layer's view of the net that is being built."""

    graph: Graph
    spec: LayerSpec
    phase: str
    probe: Probe | None = None
    bottoms: tuple[Source, ...] = ()
    given: dict[str, Shape] = field(default_factory=dict)  # shapes of inputs, over the file's
    deploy: bool = False  # inputs are filled by the caller, not by a data source
    params: list[str] = field(default_factory=list)  # keys that this layer uses, in Caffe's order
    running_keys: list[str] = field(default_factory=list)  # its states that Caffe has as blobs
    macs: int = 0
    warnings: list[NetError] = field(default_factory=list)
    _streams: int = 0
    pasts: list[Node] = field(default_factory=list)  # its states, one step earlier
    _open: dict[Node, Node] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name.text

    @property
    def training(self) -> bool:
        return self.phase == "TRAIN"

    @property
    def keyed(self) -> bool:
        """Whether something of this layer goes by its name: weights, states, random numbers."""
        prefix = f"{self.name}/"
        states = any(key.startswith(prefix) for key in self.graph.states)
        sinks = any(sink.layer == self.name for sink in self.graph.sinks)
        called = self.name in self.graph.hosts
        return bool(self.params) or states or sinks or called or self._streams > 0

    @property
    def tops(self) -> tuple[str, ...]:
        return tuple(top.text for top in self.spec.tops)

    @property
    def who(self) -> str:
        return f"layer '{self.name}' ({self.spec.type}): "

    def param(self, name: str, shape: Shape, filler: Filler, view: Shape | None = None) -> Node:
        """Declares a learned blob and returns its node, of shape `view` if given.

        `shape` is Caffe's, the one that files and the API show; `view` has the same elements in
        the same row-major order. The n-th call goes with the n-th `param:` entry of the spec, whose
        `name` shares the blob with every layer that uses the same name.
        """
        index = len(self.params)
        span = self.spec.span
        given = self.spec.param[index] if index < len(self.spec.param) else ParamSpec(span=span)
        key = given.name or f"{self.name}/{name}"
        self.params.append(key)
        known = self.graph.params.get(key)
        if known is None:
            known = ParamInfo(key, self.name, name, shape, filler, span=given.span)
        else:
            self._share(known, shape, given)
        self.graph.params[key] = self._multiplied(known, given)
        node = self.graph.param_nodes.setdefault(key, leaves.param(key, known.shape))
        return reshape(node, view or shape)

    def _share(self, known: ParamInfo, shape: Shape, given: ParamSpec) -> None:
        """Checks that a further layer may use a blob."""
        loose = given.share_mode == "PERMISSIVE" and known.size == math.prod(shape)
        if known.shape != shape and not loose:
            self.error(
                f"shares '{known.key}' {known.shape} with layer '{known.layer}', "
                f"but needs shape {shape}",
                span=given.span,
                hint="shared parameters have one shape (share_mode: PERMISSIVE: one size)",
            )

    def _multiplied(self, known: ParamInfo, given: ParamSpec) -> ParamInfo:
        """Returns a blob with the multipliers that this layer gives: all that are given agree."""
        for which in sorted(given.given):
            new = getattr(given, which)
            old, layer, place = self.graph.multipliers.setdefault(
                f"{known.key}.{which}", (new, self.name, given.span)
            )
            if new != old:
                self.error(
                    f"{which} {new:g} of shared '{known.key}' differs from {old:g} "
                    f"in layer '{layer}' (line {place.line})",
                    span=given.span,
                    hint="give it in one of the layers only",
                )
            known = replace(known, **{which: new})
        return known

    def state(self, name: str, shape: Shape, fill: float = 0.0) -> Node:
        """Declares a blob that is kept from step to step but not learned."""
        key = f"{self.name}/{name}"
        self.graph.states[key] = StateInfo(key, shape, fill)
        return leaves.state(key, shape)

    def table(self, name: str, shape: Shape, source: str) -> Node:
        """Declares numbers that a file holds and nothing changes; it is read when the net runs."""
        key = f"{self.name}/{name}"
        self.graph.states[key] = StateInfo(key, shape, source=source, span=self.place("source"))
        return leaves.state(key, shape)

    def running(
        self, name: str, shape: Shape, fill: float = 0.0, *, forgiving: bool = False
    ) -> Node:
        """Declares a state that is one of Caffe's blobs, after the learned ones.

        Its `param` entry may only say lr_mult 0 (`forgiving`: any other gives a warning), and a
        `name`, which shares it.
        """
        index = len(self.params) + len(self.running_keys)
        span = self.spec.span
        given = self.spec.param[index] if index < len(self.spec.param) else None
        key = f"{self.name}/{name}"
        if given is not None and given.lr_mult != 0:
            message = f"'{name}' is measured, not learned: its lr_mult is 0, not {given.lr_mult:g}"
            if not forgiving:
                self.error(message, span=given.span, hint="param: {lr_mult: 0, decay_mult: 0}")
            self.warnings.append(ShapeError(self.who + message, given.span, "it is taken as 0"))
        if given is not None and given.name:
            key = self.graph.shared_states.setdefault(given.name, key)
            span = given.span
        self.running_keys.append(key)
        known = self.graph.states.setdefault(key, StateInfo(key, shape, fill))
        if known.shape != shape:
            self.error(f"shares '{key}' {known.shape}, but needs shape {shape}", span=span)
        return leaves.state(key, shape)

    def latest(self, state: Node) -> Node:
        """Returns a state as the layers so far leave it: one that shares it may have updated it."""
        return self.graph.updates.get(state, state)

    def update(self, state: Node, value: Node) -> None:
        """Gives a state its new value at the end of each step."""
        self.graph.updates[state] = value

    def before(
        self, name: str, shape: Shape, initial: Node | None = None, *, reverse: bool = False
    ) -> Node:
        """Returns a sequence (T, N, ...) one step earlier (later if `reverse`); see `recur`.

        Before the first step it is `initial` (1, N, ...), or what the last batch has left.
        """
        spec, start = self.graph.spec, (1, *shape[1:])
        if initial is None:
            lasting = spec.carry_state and not reverse
            key = f"{self.name}/{name}"
            initial = (
                carried(self.graph, key, start) if lasting else broadcast(leaves.const(0.0), start)
            )
        leaf = delayed(f"{self.name}/{name}", shape, -1 if reverse else 1, initial)
        value = truncated(leaf, spec.unroll)
        self.pasts.append(leaf)
        self._open[value] = leaf
        return value

    def recur(self, before: Node, value: Node) -> Node:
        """Says what a sequence is that `before` gave one step earlier; returns it."""
        leaf = self._open.pop(before)
        self.graph.recurrences.append(Recurrence(leaf, value))
        if leaf.src[0].prim == "state":
            self.graph.updates[leaf.src[0]] = last_rows(leaf.src[0], value)
        return value

    def stream(self) -> int:
        """Returns a random stream of this layer's own: the same one each time the net is built."""
        self._streams += 1
        return zlib.crc32(f"{self.name}/{self._streams}".encode())

    def inputs(self, shapes: tuple[Shape, ...]) -> tuple[Node, ...]:
        """Makes this layer's tops inputs of the net; `given` shapes win over these."""
        assert len(shapes) == len(self.tops)
        for top, written in zip(self.tops, shapes, strict=True):
            shape = self.given.get(top, written)
            if len(shape) == 4 and shape[3] in (1, 3, 4) and 4 < shape[1] == shape[2]:
                message = f"'{top}' {shape} looks like pictures with their channels last"
                self.warn(message, "shape", "axes stand as N, C, H, W")
            self.graph.inputs[top] = leaves.input_(top, shape)
        return tuple(self.graph.inputs[top] for top in self.tops)

    def feed(
        self, options: dict[str, object], shapes: tuple[Shape, ...] | None
    ) -> tuple[Node, ...]:
        """Makes this layer's tops inputs of the net, filled by a data source of this type.

        `shapes` None: ask the source (an embedded or npz data set knows its item shape).
        """
        kind = self.spec.type.text
        feed = Feed(self.name, kind, self.tops, shapes or (), options, self.phase, self.spec.span)
        if shapes is None and all(top in self.given for top in self.tops):
            shapes = tuple(self.given[top] for top in self.tops)
        if shapes is None:
            if self.probe is None:
                self.error(
                    "the shape of its data is not known here", hint="give the shapes of the inputs"
                )
            shapes = self.probe(feed)
        nodes = self.inputs(shapes[: len(self.tops)])
        if not self.deploy:
            feed = replace(feed, shapes=tuple(node.shape for node in nodes))
            self.graph.feeds = (*self.graph.feeds, feed)
        return nodes

    def sink(self, file: str, **datasets: Node) -> None:
        """Has the runtime write blobs to a file after each run, under these names."""
        tensors = {dataset: f"{self.name}:{dataset}" for dataset in datasets}
        self.graph.kept |= {tensors[dataset]: node for dataset, node in datasets.items()}
        self.graph.sinks += (Sink(self.name, file, tensors, self.spec.span),)

    def call(
        self, module: str, cls: str, param_str: str, values: tuple[Node, ...]
    ) -> tuple[Node, ...]:
        """Makes a Python layer of the class and returns its tops; `values` are its bottoms."""
        spans = (self.spec.span, self.place("module"), self.place("layer"))
        bottoms = tuple((source.blob, source.shape) for source in self.bottoms)
        wanted = HostSpec(self.name, module, cls, param_str, self.phase, bottoms, self.tops, *spans)
        if self.graph.spec.python is None:
            code, span = f"'{cls}' of the Python module '{module}'", self.spec.span
            hint = "if you trust it: --allow-python-layers (allow_python_layers=True in Python)"
            refusal = SpecError(f"{self.who}would run {code}, and that is not allowed", span, hint)
            raise Question(f"{self.who}may it run {code}?", span, hint, refusal)
        made = self.graph.spec.python(wanted)
        learned = []
        for i, first in enumerate(made.blobs):
            learned.append(self.param(f"blob{i}", first.shape, Filler()))
            key = self.params[-1]
            if self.graph.params[key].layer == self.name:  # else it is another layer's, shared
                self.graph.first[key] = first
        before = self.graph.effects[-1] if self.graph.effects else None
        node = ops.host(self.name, (*values, *learned), made.tops, before)
        self.graph.hosts[self.name] = made
        self.graph.effects = (*self.graph.effects, node)
        return ops.tops_of(node, made.tops)

    def place(self, name: str | None = None) -> Span:
        """Returns where a field of this layer is written, or the layer itself."""
        value = self.spec.params.get(name) if name else None
        return value.span if value else self.spec.span

    def bottom(self, index: int) -> Span:
        """Returns where a bottom is written."""
        return self.spec.bottoms[index].span

    def error(
        self,
        message: str,
        field: str | None = None,
        hint: str | None = None,
        span: Span | None = None,
        kind: type[NetError] = ShapeError,
    ) -> NoReturn:
        """Raises a located error about this layer."""
        raise kind(self.who + message, span or self.place(field), hint)

    def mismatch(self, verb: str, first: Source, other: Source) -> NoReturn:
        """Raises for two bottoms that need one shape, at the name of the second."""
        shapes = ("x".join(map(str, s.shape)) or "scalar" for s in (first, other))
        one, two = (f"'{s.blob}' ({t})" for s, t in zip((first, other), shapes, strict=True))
        span = self.spec.bottoms[self.bottoms.index(other)].span
        hint = f"equal shapes only; '{first.blob}' is made by layer '{first.layer}'"
        self.error(
            f"cannot {verb} {one} and {two}",
            hint=f"{hint}, '{other.blob}' by '{other.layer}'",
            span=span,
        )

    def warn(self, message: str, field: str | None = None, hint: str | None = None) -> None:
        """Notes something that is probably not meant; `--strict` makes it an error."""
        self.warnings.append(ShapeError(self.who + message, self.place(field), hint))

    def need(
        self, condition: bool, message: str, field: str | None = None, hint: str | None = None
    ) -> None:
        """Raises an error about the bottoms, naming each with its layer and shape, if not so."""
        if not condition:
            both = " and ".join(map(str, self.bottoms))
            self.error(f"{message}: {both}" if both else message, field, hint)

    def axis(self, axis: int, rank: int, field: str = "axis") -> int:
        """Returns the axis counted from the front; negative ones count from the back."""
        if not -rank <= axis < rank:
            self.error(f"{field} {axis} is outside of {self.bottoms[0]}", field)
        return axis % rank
