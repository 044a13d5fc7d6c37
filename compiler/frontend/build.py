"""NetSpec -> Graph: reads fields, connects blobs, builds layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compiler.frontend import deploy as deployment
from compiler.frontend.arity import check_bottoms, check_made, count_of
from compiler.frontend.cycles import cycles, unseen
from compiler.frontend.delays import Delays
from compiler.frontend.wiring import Output, Wiring, wire
from compiler.ir import ops
from compiler.ir.graph import Graph, LayerInfo
from compiler.ir.node import Node
from compiler.layers import is_loss, layer_type, layer_types
from compiler.layers.fields import read_fields
from compiler.layers.scope import Probe, Scope, Shape, Source
from schemas.errors import (
    Diagnostics,
    GraphError,
    NetError,
    Question,
    ShapeError,
    SpecError,
    UsageError,
    did_you_mean,
)
from schemas.net import LayerSpec, NetSpec, NetState

_TRIES = 32  # builds until a cycle's shapes must have settled
Shapes = dict[Output, Shape]


def build(
    spec: NetSpec,
    phase: str,
    *,
    level: int | None = None,
    stages: frozenset[str] | None = None,
    probe: Probe | None = None,
    inputs: dict[str, Shape] | None = None,
    deploy: bool = False,
) -> Graph:
    """Returns the net that `spec` describes for a phase ("TRAIN" or "TEST"), level and stages.

    Level and stages are those of `spec.state` unless they are given.
    `probe` tells the shapes of data sources; `inputs` gives the shapes of inputs by name and wins
    over both the file and the probe. `deploy` leaves data sources, labels and losses out.
    Raises NetError, or NetErrors of all that is wrong; what only follows from another error is not
    mentioned. `Graph.warnings` holds what is probably not meant.
    """
    state = NetState(level=level, stages=spec.state.stages if stages is None else tuple(stages))
    found = attempt(spec, phase, spec.state.merged(state), probe, inputs, deploy)
    diag = Diagnostics()
    diag.errors = in_order([*found.errors, *(q.refusal for q in found.questions)])
    diag.raise_if_any()
    return found.graph


@dataclass(frozen=True)
class Attempt:
    """A net as far as it can be built: `graph` holds the layers that could be.

    The others are `wrong` (they have errors of their own), or ask for data that is not here or for
    leave to run code, or depend on such layers.
    """

    graph: Graph
    layers: Sequence[LayerSpec]  # those of the phase, level and stages
    errors: list[NetError]
    questions: list[Question]
    wrong: int

    @property
    def unreached(self) -> int:
        """Returns how many layers could not be looked at, for what stands before them."""
        return len(self.layers) - len(self.graph.layers) - self.wrong - len(self.questions)


def attempt(
    spec: NetSpec,
    phase: str,
    state: NetState,
    probe: Probe | None = None,
    inputs: dict[str, Shape] | None = None,
    deploy: bool = False,
) -> Attempt:
    """Builds as much of a net as can be built; never raises NetError for what is wrong with it."""
    rest = (state.level or 0, frozenset(state.stages))
    layers, hidden = used_layers(spec, phase, *rest, deploy)
    unread = hidden - set(inputs or {})  # their shapes need not be known
    layers = [one for one in layers if not one.tops or {t.text for t in one.tops} - unread]
    given = dict(inputs or {})

    def fresh(shapes: Shapes) -> _Builder:
        graph, diag = Graph(spec.name, phase, spec), Diagnostics(spec.lenient)
        return _Builder(graph, layers, phase, probe, dict(given), deploy, diag, shapes)

    builder = _settled(fresh)
    builder.finish(hidden)
    graph, diag = builder.graph, builder.diag
    graph.warnings += diag.warnings
    wrong = len(builder.wrong)
    return Attempt(graph, layers, in_order(diag.errors), builder.questions, wrong)


def _settled(fresh: Callable[[Shapes], _Builder]) -> _Builder:
    """Returns a builder that has run, with every blob as it was taken for before it was made.

    A blob on a cycle is read before its shape is known: the build is tried with what a guess leads
    to until the cycle gives back what it was given.
    """
    first: _Builder | None = None
    waiting: list[Shapes] = [{}]
    tried: list[Shapes] = []
    while waiting and len(tried) < _TRIES:
        shapes = waiting.pop(0)
        if shapes in tried:
            continue
        tried.append(shapes)
        builder = fresh(shapes)
        builder.run()
        delays = builder.delays
        if builder.diag.errors:
            first = first or builder
            others = delays.other_shapes() if delays.guessed else ()
            waiting += [{**shapes, **dict.fromkeys(delays.guessed, other)} for other in others]
        elif not (wrong := delays.missing()):
            return builder
        else:
            waiting.insert(0, {**shapes, **wrong})
    if first is None:
        builder.diag.error(_unsettled(builder))
        return builder
    if first.delays.guessed and (hint := first.delays.hint()):
        at = next((n for n, e in enumerate(first.diag.errors) if isinstance(e, ShapeError)), None)
        if at is not None:
            error = first.diag.errors[at]
            first.diag.errors[at] = ShapeError(error.message, error.span, hint)
    return first


def _unsettled(builder: _Builder) -> NetError:
    """Returns the error about a cycle that never gives back the shape that it was given."""
    source, shape = next(iter(builder.delays.missing().items()))
    wiring, layers = builder.wiring, builder.layers
    i, k = next(at for at in sorted(wiring.cyclic) if wiring.sources[at[0]][at[1]] == source)
    bottom = layers[i].bottoms[k]
    message = f"layer '{layers[i].name}' ({layers[i].type}): '{bottom}' has another shape each "
    message += f"time round its cycle, at last {shape}"
    return GraphError(message, bottom.span, "what goes round must keep its shape")


def in_order(errors: Iterable[NetError]) -> list[NetError]:
    """Returns errors in the order of their places in the file."""
    return sorted(errors, key=lambda e: (e.span.line, e.span.column) if e.span else (0, 0))


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
    if layer.tops or not is_loss(layer.type.text):
        return layer
    return replace(layer, tops=(layer.name,))


@dataclass
class _Builder:
    """The state of one build."""

    graph: Graph
    layers: Sequence[LayerSpec]
    phase: str
    probe: Probe | None
    given: dict[str, Shape]
    deploy: bool
    diag: Diagnostics
    shapes: Shapes  # of blobs that are read before they are made
    delays: Delays = field(init=False)
    questions: list[Question] = field(default_factory=list)
    wrong: set[int] = field(default_factory=set)  # layers with errors of their own
    wiring: Wiring = field(default_factory=Wiring)
    values: dict[tuple[int, int], Node] = field(default_factory=dict)  # (layer, top) -> node
    infos: dict[int, LayerInfo] = field(default_factory=dict)
    named: dict[str, Scope] = field(default_factory=dict)
    losses: list[Node] = field(default_factory=list)
    pasts: dict[int, Node] = field(default_factory=dict)  # recurrent layer -> one of its states

    def __post_init__(self) -> None:
        self._wire(Wiring())

    def _wire(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.delays = Delays(self.graph, self.layers, wiring, self.values, self.shapes)

    def run(self) -> None:
        spec = self.graph.spec
        if not self.layers:
            message = f"the net has no layers in phase {self.phase}"
            hint = "check the include and exclude rules"
            self.diag.error(GraphError(message, spec.span, hint))
            return
        made = [self._read(layer) for layer in self.layers]
        self._wire(wire(self.layers, spec, self.diag))
        self.wrong = {i for i, layer in enumerate(made) if layer is None}
        self.wrong |= {i for i, sources in enumerate(self.wiring.sources) if None in sources}
        for i in self.wiring.order:
            if made[i] is not None:
                try:
                    self._build(i, made[i])
                except Question as question:
                    self.questions.append(question)
                except NetError as error:
                    self.diag.error(error)
                    self.wrong.add(i)
        tops = {top.text for layer in spec.layers for top in layer.tops}
        for name in self.given.keys() - self.graph.inputs.keys():
            if name not in tops:  # else it is made elsewhere, or in another phase
                near = did_you_mean(name, self.graph.inputs)
                self.diag.error(UsageError(f"the net has no input '{name}'", hint=near))
        whole = len(self.infos) == len(self.layers)
        assert whole or self.diag.errors or self.questions, "a layer failed, nobody said why"

    def finish(self, hidden: frozenset[str]) -> None:
        """Fills in what concerns the net as a whole; `hidden` blobs are not part of it."""
        graph = self.graph
        for kept, layer in self.delays.close().items():
            claim(graph, [kept], layer)
        for i, keys in self.delays.learned.items():
            if i in self.infos:
                self.infos[i] = replace(self.infos[i], params=(*self.infos[i].params, *keys))
        graph.warnings += unseen(self.layers, self.wiring, self.infos)
        found = cycles(self.wiring, self.infos, self.pasts)
        built = [i for i in self.wiring.order if i in self.infos]
        graph.layers = tuple(replace(self.infos[i], cycle=found.get(i)) for i in built)
        graph.inputs = {k: v for k, v in graph.inputs.items() if k not in hidden}
        made = {k: v for k, v in self.wiring.final.items() if v in self.values}
        final = {k: self.values[v] for k, v in made.items() if k not in hidden}
        graph.blobs = final
        graph.outputs = {k: final[k] for k in self.wiring.unread() if k in final}
        for part in self.losses:
            graph.loss = part if graph.loss is None else ops.add(graph.loss, part)
        if graph.loss is not None:
            claim(graph, [graph.loss], "loss")

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
        cls = layer_type(spec.type.text)
        if cls is not None:
            return read_fields(cls, spec, self.diag)
        message = f"layer '{spec.name}': unknown layer type '{spec.type}'"
        hint = did_you_mean(spec.type.text, layer_types()) or "'netdef layers' lists them"
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
        check_bottoms(scope, layer)
        for k, down in enumerate(spec.propagate_down):
            bottoms[k] = bottoms[k] if down else ops.stop(bottoms[k])
        made = layer.build(scope, *bottoms)
        tops = made if isinstance(made, tuple) else (made,)
        check_made(scope, tops)
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
        return self.delays.bottom(i, k, source)

    def _weigh(self, scope: Scope, tops: Sequence[Node]) -> None:
        """Adds the tops to the net's loss by loss_weight (1 for the first top of a Loss)."""
        weights = scope.spec.loss_weight
        if not weights and is_loss(scope.spec.type.text):
            weights = (1.0,) + (0.0,) * (len(tops) - 1)
        if weights and len(weights) != len(tops):
            scope.error(f"{count_of(weights, 'loss_weight')} for {count_of(tops, 'top')}")
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
