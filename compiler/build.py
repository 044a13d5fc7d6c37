"""NetSpec -> Graph: reads fields, connects blobs, builds layer after layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compiler import deploy as deployment
from compiler import ops
from compiler.delays import Delays
from compiler.graph import Cycle, Graph, LayerInfo
from compiler.ir import Node
from compiler.layers import layer_types
from compiler.layers.fields import read_fields
from compiler.layers.scope import Probe, Scope, Shape, Source
from compiler.wiring import Output, Wiring, wire
from schemas.errors import Diagnostics, GraphError, NetError, SpecError, UsageError, did_you_mean
from schemas.net import LayerSpec, NetSpec

MAX_RANK = 8
_TRIES = 32  # builds until a cycle's shapes must have settled
Shapes = dict[Output, Shape]


def build(
    spec: NetSpec,
    phase: str,
    *,
    level: int = 0,
    stages: frozenset[str] = frozenset(),
    probe: Probe | None = None,
    inputs: dict[str, Shape] | None = None,
    deploy: bool = False,
) -> Graph:
    """Returns the net that `spec` describes for a phase ("TRAIN" or "TEST"), level and stages.

    `probe` tells the shapes of data sources; `inputs` gives the shapes of inputs by name and wins
    over both the file and the probe. `deploy` leaves data sources, labels and losses out.
    Raises NetError, or NetErrors of all that is wrong; what only follows from another error is not
    mentioned. `Graph.warnings` holds what is probably not meant.
    """
    layers, hidden = used_layers(spec, phase, level, stages, deploy)
    given = dict(inputs or {})
    builder = _settled(
        lambda shapes: _Builder(
            Graph(spec.name, phase, spec), layers, phase, probe, dict(given), deploy, shapes
        )
    )
    builder.finish(hidden)
    return builder.graph


def _settled(fresh: Callable[[Shapes], _Builder]) -> _Builder:
    """Returns a builder that has run, with every blob as it was taken for before it was made.

    A blob on a cycle is read before its shape is known: the build is tried with what a guess leads
    to until the cycle gives back what it was given.
    """
    first: NetError | None = None
    waiting: list[Shapes] = [{}]
    tried: list[Shapes] = []
    while waiting and len(tried) < _TRIES:
        shapes = waiting.pop(0)
        if shapes in tried:
            continue
        tried.append(shapes)
        builder = fresh(shapes)
        try:
            builder.run(builder.graph.spec)
        except NetError as error:
            first = first or _with_hint(error, builder.delays)
            guessed = builder.delays.guessed if builder.delays is not None else {}
            others = list(builder.delays.other_shapes()) if builder.delays is not None else []
            waiting += [{**shapes, **dict.fromkeys(guessed, other)} for other in others if guessed]
            continue
        wrong = builder.delays.missing() if builder.delays is not None else {}
        if not wrong:
            return builder
        waiting.insert(0, {**shapes, **wrong})
    raise first or _unsettled(builder)


def _unsettled(builder: _Builder) -> NetError:
    """Returns the error about a cycle that never gives back the shape that it was given."""
    assert builder.delays is not None
    source, shape = next(iter(builder.delays.missing().items()))
    wiring, layers = builder.wiring, builder.layers
    i, k = next(at for at in sorted(wiring.cyclic) if wiring.sources[at[0]][at[1]] == source)
    bottom = layers[i].bottoms[k]
    message = f"layer '{layers[i].name}' ({layers[i].type}): '{bottom}' has another shape each "
    message += f"time round its cycle, at last {shape}"
    return GraphError(message, bottom.span, "what goes round must keep its shape")


def used_layers(
    spec: NetSpec, phase: str, level: int, stages: frozenset[str], deploy: bool
) -> tuple[Sequence[LayerSpec], frozenset[str]]:
    """Returns the layers of a phase, level and stages, and the inputs that none of them reads."""
    layers = [_with_top(s) for s in spec.layers if s.used(phase, level, stages)]
    if not deploy:
        return layers, frozenset()
    left = deployment.deployed(layers)
    return left, deployment.fallen(layers, left)


def _with_top(layer: LayerSpec) -> LayerSpec:
    """Returns a loss that names no top with one of its own name (Caffe's automatic top)."""
    if layer.tops or not deployment.is_loss(layer.type.text):
        return layer
    return replace(layer, tops=(layer.name,))


def _with_hint(error: NetError, delays: Delays | None) -> NetError:
    """Returns an error about shapes with a hint at what a cycle needs, if it lacks it."""
    hint = delays.hint() if delays is not None and delays.guessed else None
    return type(error)(error.message, error.span, hint) if hint and error.span else error


@dataclass
class _Builder:
    """The state of one build."""

    graph: Graph
    layers: Sequence[LayerSpec]
    phase: str
    probe: Probe | None
    given: dict[str, Shape]
    deploy: bool
    shapes: Shapes  # of blobs that are read before they are made
    delays: Delays | None = None
    diag: Diagnostics = field(default_factory=Diagnostics)
    wiring: Wiring = field(default_factory=Wiring)
    values: dict[tuple[int, int], Node] = field(default_factory=dict)  # (layer, top) -> node
    infos: dict[int, LayerInfo] = field(default_factory=dict)
    named: dict[str, Scope] = field(default_factory=dict)
    losses: list[Node] = field(default_factory=list)
    pasts: dict[int, Node] = field(default_factory=dict)  # recurrent layer -> one of its states

    def run(self, spec: NetSpec) -> None:
        if not self.layers:
            message = f"the net has no layers in phase {self.phase}"
            raise GraphError(message, spec.span, "check the include and exclude rules")
        made = [self._read(layer) for layer in self.layers]
        self.wiring = wire(self.layers, spec, self.diag)
        self.delays = Delays(self.graph, spec, self.layers, self.wiring, self.values, self.shapes)
        for i in self.wiring.order:
            if made[i] is not None:
                try:
                    self._build(i, made[i])
                except NetError as error:
                    self.diag.error(error)
        self.diag.errors.sort(key=lambda e: (e.span.line, e.span.column) if e.span else (0, 0))
        self.diag.raise_if_any()
        assert len(self.infos) == len(self.layers), "a layer failed and nobody said why"

    def finish(self, hidden: frozenset[str]) -> None:
        """Fills in what concerns the net as a whole; `hidden` blobs are not part of it."""
        graph = self.graph
        assert self.delays is not None
        for kept, layer in self.delays.close().items():
            claim(graph, [kept], layer)
        self._check_initial()
        for name in self.given:
            if name not in graph.inputs:
                hint = did_you_mean(name, graph.inputs)
                raise UsageError(f"the net has no input '{name}'", hint=hint)
        for i, keys in self.delays.learned.items():
            self.infos[i] = replace(self.infos[i], params=(*self.infos[i].params, *keys))
        cycles = self._cycles()
        graph.layers = tuple(replace(self.infos[i], cycle=cycles.get(i)) for i in self.wiring.order)
        graph.inputs = {k: v for k, v in graph.inputs.items() if k not in hidden}
        final = {k: self.values[v] for k, v in self.wiring.final.items() if k not in hidden}
        graph.blobs = final
        graph.outputs = {k: final[k] for k in self.wiring.unread() if k in final}
        for part in self.losses:
            graph.loss = part if graph.loss is None else ops.add(graph.loss, part)
        if graph.loss is not None:
            claim(graph, [graph.loss], "loss")

    def _check_initial(self) -> None:
        """Warns of an initial state that nobody sees."""
        seen = {source[0] for i, k in self.wiring.delays if (source := self.wiring.sources[i][k])}
        for i, layer in enumerate(self.layers):
            if layer.initial is not None and i not in seen:
                message = f"layer '{layer.name}' ({layer.type}): initial has no effect: nothing "
                message += "reads an earlier step of what it makes"
                own = bool(self.infos[i].remembered)
                hint = "expose_hidden: true takes initial states as bottoms" if own else None
                self.graph.warnings.append(GraphError(message, layer.initial.span, hint))

    def _cycles(self) -> dict[int, Cycle]:
        """Returns the cycle of each layer that is on one; a recurrent layer is one by itself."""
        wiring = self.wiring
        wheres = {i: (self.infos[i].bottoms[k][1], wiring.delays[i, k]) for i, k in wiring.cyclic}
        wheres |= {i: (s.shape, s.attr("by")) for i, s in self.pasts.items() if i not in wheres}
        found: dict[int, Cycle] = {}  # by what `together` calls it
        for i, (shape, by) in sorted(wheres.items()):
            fresh = Cycle(len(found) + 1, shape[0], by < 0)
            found.setdefault(wiring.together[i], fresh)
        return {i: found[part] for i, part in enumerate(wiring.together) if part in found}

    def _check_name(self, scope: Scope) -> None:
        """Raises where two layers of one name have something that is found by the name."""
        first = self.named.setdefault(scope.name, scope)
        self.graph.places.setdefault(scope.name, scope.spec.name.span)
        if first is scope:
            return
        message = f"two layers are called '{scope.name}' (line {first.spec.name.span.line})"
        span = scope.spec.name.span
        if scope.keyed or first.keyed:
            hint = "weights are found by layer names: give one another name"
            raise GraphError(message, span, hint)
        self.graph.warnings.append(GraphError(message, span, "give one another name"))

    def _read(self, spec: LayerSpec) -> Any | None:
        """Returns the layer as its dataclass, or None after errors."""
        types = layer_types()
        cls = types.get(spec.type.text)
        if cls is not None:
            return read_fields(cls, spec, self.diag)
        message = f"layer '{spec.name}': unknown layer type '{spec.type}'"
        hint = did_you_mean(spec.type.text, types) or "'netdef layers' lists them"
        self.diag.error(SpecError(message, spec.type.span, hint))
        return None

    def _build(self, i: int, layer: Any) -> None:
        spec, graph = self.layers[i], self.graph
        sources = [s for k, s in enumerate(self.wiring.sources[i]) if s and self._known(i, k, s)]
        if len(sources) < len(spec.bottoms):
            return  # the reason has been reported
        bottoms = [self._bottom(i, k, source) for k, source in enumerate(sources)]
        described = tuple(
            Source(name.text, self.layers[maker].name.text, node.shape)
            for name, (maker, _), node in zip(spec.bottoms, sources, bottoms, strict=True)
        )
        scope = Scope(
            graph, spec, self.phase, self.probe, described, self.given, deploy=self.deploy
        )
        _check_bottoms(scope, layer)
        for k, down in enumerate(spec.propagate_down):
            bottoms[k] = bottoms[k] if down else ops.stop(bottoms[k])
        made = layer.build(scope, *bottoms)
        tops = made if isinstance(made, tuple) else (made,)
        _check_made(scope, tops)
        self._check_name(scope)
        claim(graph, [*tops, *graph.updates, *graph.updates.values()], scope.name)
        self._weigh(scope, tops)
        self.values.update({(i, j): node for j, node in enumerate(tops)})
        graph.warnings += scope.warnings
        self.infos[i] = LayerInfo(
            scope.name,
            spec.type.text,
            spec.span,
            tuple((source.blob, source.shape) for source in described),
            tuple((top, node.shape) for top, node in zip(scope.tops, tops, strict=True)),
            tuple(scope.params),
            scope.macs,
            tuple(scope.running_keys),
            tuple((p.attr("name").rpartition("/")[2], p.attr("by")) for p in scope.pasts),
        )
        if scope.pasts:
            self.pasts[i] = scope.pasts[0]

    def _known(self, i: int, k: int, source: Output) -> bool:
        return source in self.values or (i, k) in self.wiring.cyclic

    def _bottom(self, i: int, k: int, source: Output) -> Node:
        if (i, k) not in self.wiring.delays:
            return self.values[source]
        assert self.delays is not None
        return self.delays.bottom(i, k, source)

    def _weigh(self, scope: Scope, tops: Sequence[Node]) -> None:
        """Adds the tops to the net's loss by loss_weight (1 for the first top of a Loss)."""
        weights = scope.spec.loss_weight
        if not weights and deployment.is_loss(scope.spec.type.text):
            weights = (1.0,) + (0.0,) * (len(tops) - 1)
        if weights and len(weights) != len(tops):
            scope.error(f"{_count(weights, 'loss_weight')} for {_count(tops, 'top')}")
        for name, node, weight in zip(scope.tops, tops, weights, strict=False):
            if weight:
                self.graph.loss_weights[name] = weight
                part = ops.sum_all(node)
                self.losses.append(part if weight == 1 else ops.mul(part, weight))


def claim(graph: Graph, roots: Iterable[Node], layer: str) -> None:
    """Notes `layer` as the origin of every node that no layer has been noted for."""
    stack = [node for node in roots if node not in graph.origin]
    while stack:
        node = stack.pop()
        if node not in graph.origin:
            graph.origin[node] = layer
            stack.extend(source for source in node.src if source not in graph.origin)


def bottom_names(cls: type[Any]) -> tuple[tuple[str, ...], int, bool]:
    """Returns the names of a layer type's bottoms, how many must be there, whether more may be."""
    named: list[str] = []
    needed, more = 0, False
    for parameter in list(inspect.signature(cls.build).parameters.values())[2:]:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            more = True
            continue
        named.append(parameter.name)
        needed += parameter.default is inspect.Parameter.empty
    return tuple(named), needed, more


def _check_bottoms(scope: Scope, layer: Any) -> None:
    """Raises where the number of bottoms is not what the layer's `build` takes."""
    names, least, more = bottom_names(type(layer))
    count, most = len(scope.bottoms), len(names)
    if count < least or (count > most and not more):
        want = "bottom" if least == 1 and not more else "bottoms"
        number = (
            f"{least} or more" if more else f"{least}" if least == most else f"{least} to {most}"
        )
        given = " and ".join(map(str, scope.bottoms)) or "none"
        listed = ", ".join([*names, "..."] if more else names)
        if names:
            message = f"needs {number} {want}, has {count}: {given}"
            scope.error(message, hint=f"bottom: [{listed}]", kind=GraphError)
        scope.error(f"takes no bottom, has {given}", hint="leave bottom out", kind=GraphError)
    for source in scope.bottoms:
        if len(source.shape) > MAX_RANK:
            scope.error(f"{source} has more than {MAX_RANK} axes")
    down = scope.spec.propagate_down
    if down and len(down) != count:
        scope.error(f"{_count(down, 'propagate_down')} for {_count(scope.bottoms, 'bottom')}")


def _check_made(scope: Scope, made: Sequence[Node]) -> None:
    """Raises where the tops or the param entries are not as many as the layer has made."""
    if len(made) != len(scope.tops):
        message = f"makes {_count(made, 'top')}, but {len(scope.tops)} are named"
        listed = ", ".join(str(node.shape) for node in made)
        scope.error(message, hint=f"shape of what it makes: {listed}", kind=GraphError)
    entries = scope.spec.param
    blobs = [*scope.params, *scope.running_keys]
    if len(entries) > len(blobs):
        message = f"{len(entries)} param entries for {_count(blobs, 'learned blob')}"
        scope.error(message, hint=", ".join(blobs) or None, span=entries[-1].span, kind=SpecError)


def _count(things: Sequence[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
