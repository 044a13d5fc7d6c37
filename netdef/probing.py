"""Builds a net whose data need not be here: shapes from its fields, the user, or assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler.frontend.build import Attempt, attempt, in_order
from compiler.frontend.deploy import is_python_source
from compiler.ir.graph import Graph
from netdef.guessing import Unknown, assume
from runtime.data import probe
from schemas.errors import Diagnostics, NetError, Question, SourceError
from schemas.net import LayerSpec, NetSpec, NetState
from schemas.params import Feed

Shape = tuple[int, ...]
PHASES = ("TRAIN", "TEST")
# Layers whose shapes stand in the net, or in code: a shape that is given for them is the whole one.
WRITTEN = ("Input", "DummyData", "MemoryData", "Python")
# Data layers with any number of tops of any shape; the others have labels of one number.
FREE = ("HDF5Data",)


@dataclass
class Prober:
    """Tells the shapes of a data layer as `runtime.data.probe` does, also without its data.

    `given` holds the shape of one item by blob name (or, with more than three sizes, of the whole
    batch); without it, an item of a missing source is a square of crop_size or new_height x
    new_width, and `warnings` says so. What nothing tells is a Question, and is added to `unknown`,
    unless `assumed` has whole shapes for all tops.
    """

    given: Mapping[str, Shape] = field(default_factory=dict)
    assumed: Mapping[str, Shape] = field(default_factory=dict)
    warnings: list[NetError] = field(default_factory=list)
    unknown: list[tuple[Feed, NetError]] = field(default_factory=list)

    def __call__(self, feed: Feed) -> tuple[Shape, ...]:
        given = [top for top in feed.tops if top in self.given]
        if given and feed.tops[0] in given and feed.type not in FREE:
            return self._around(feed, self.given[feed.tops[0]])
        try:
            if given:
                missing = [top for top in feed.tops if top not in given]
                message = (
                    f"layer '{feed.layer}' ({feed.type}): shapes of some of its tops are given"
                )
                hint = f"give those of {', '.join(missing)} too"
                raise SourceError(message, feed.span, hint)
            return probe(feed)
        except SourceError as error:
            item = _told(feed)
            if item is None:
                return self._unknown(feed, error)
            known = "x".join(map(str, item))
            message = f"{error.message}; an item is taken to be {known}"
            self.warnings.append(SourceError(message, error.span, error.hint))
            return self._around(feed, item)

    def _unknown(self, feed: Feed, error: SourceError) -> tuple[Shape, ...]:
        known = {**self.assumed, **{k: _whole(feed, item) for k, item in self.given.items()}}
        if all(top in known for top in feed.tops):
            return tuple(known[top] for top in feed.tops)
        self.unknown.append((feed, error))
        name = feed.tops[0] if feed.tops else feed.layer
        way = f"without the data: --input-shape {name}=C,H,W gives the shape of one item"
        hint = f"{error.hint}\n        {way}" if error.hint else way
        raise Question(error.message, error.span, hint)

    def _around(self, feed: Feed, item: Shape) -> tuple[Shape, ...]:
        """Returns the shapes of all tops, given that of one item of the first."""
        first = _whole(feed, item)
        labels = [(first[0], *self.given.get(top, ())) for top in feed.tops[1:]]
        return (first, *labels)


def build_anyhow(
    spec: NetSpec, phase: str, shapes: Mapping[str, Shape] | None = None, deploy: bool = False
) -> tuple[Graph, list[NetError]]:
    """Returns the net of a phase and what is probably not meant, without asking for its data.

    Raises NetError, headed by the questions whose answers were assumed. With `deploy`, which makes
    something that stays, none are.
    """
    found = examine(spec, phase, spec.state, shapes, deploy)
    if found.errors or found.questions:
        diag = Diagnostics()
        asked = [w for w in found.graph.warnings if isinstance(w, Question)]
        refused = [question.refusal for question in found.questions]
        diag.errors = [*asked, *in_order([*found.errors, *refused])]
        diag.raise_if_any()
    return found.graph, found.graph.warnings


def examine(
    spec: NetSpec,
    phase: str,
    state: NetState,
    shapes: Mapping[str, Shape] | None = None,
    deploy: bool = False,
) -> Attempt:
    """Builds as much of a net as can be built without its data.

    The graph's warnings hold those of the file too, and the Questions that were answered by an
    assumption: the shapes of data that is not here, and of inputs that say none.
    """
    given = dict(shapes or {})
    fed = {
        top.text
        for layer in spec.layers
        if not layer.bottoms and layer.type.text not in WRITTEN
        for top in layer.tops
    }
    items = {name: shape for name, shape in given.items() if name in fed}
    inputs = {name: shape for name, shape in given.items() if name not in fed}
    stages = frozenset(state.stages)
    layers = [layer for layer in spec.layers if layer.used(phase, state.level or 0, stages)]
    bare = [u for layer in layers for u in _bare_inputs(layer, inputs) if not deploy]

    done: dict[tuple[tuple[str, Shape], ...], tuple[Attempt, Prober]] = {}

    def tried(assumed: Mapping[str, Shape]) -> tuple[Attempt, Prober]:
        if (key := tuple(assumed.items())) not in done:
            prober = Prober(items, assumed)
            own = inputs | {u.blob: assumed[u.blob] for u in bare if u.blob in assumed}
            done[key] = attempt(spec, phase, state, prober, own, deploy), prober
        return done[key]

    found, prober = tried({})
    unknown = [*bare, *(u for feed, why in prober.unknown for u in _tops(feed, why, layers, items))]
    asked: list[Question] = []
    if unknown and not deploy:
        assumed = assume(unknown, layers, spec, lambda shapes: tried(shapes)[0])
        found, prober = tried(assumed)
        asked = [u.question(assumed[u.blob]) for u in unknown if u.asks(assumed[u.blob])]
    found.graph.warnings[:0] = [*asked, *spec.warnings]
    found.graph.warnings += prober.warnings
    return found


def _whole(feed: Feed, item: Shape) -> Shape:
    """Returns the shape of a batch; one of more than three sizes is given as a whole."""
    return item if len(item) > 3 else (batch_of(feed), *item)


def written(spec: NetSpec, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes that the user gives for inputs rather than for data layers."""
    inputs = {top.text for one in spec.layers if one.type.text == "Input" for top in one.tops}
    inputs |= {one.tops[0].text for one in spec.layers if is_python_source(one) and one.tops}
    return {name: shape for name, shape in shapes.items() if name in inputs}


def batch_of(feed: Feed) -> int:
    batch = feed.options.get("batch_size")
    return batch if isinstance(batch, int) and batch > 0 else 1


def _bare_inputs(layer: LayerSpec, given: Mapping[str, Shape]) -> list[Unknown]:
    """Returns the inputs of an Input layer that says no shape, as Caffe allows."""
    if layer.type.text != "Input" or "shape" in layer.params:
        return []
    return [Unknown(top.text, top.span) for top in layer.tops if top.text not in given]


def _tops(
    feed: Feed, why: NetError, layers: list[LayerSpec], given: Mapping[str, Shape]
) -> list[Unknown]:
    """Returns the tops of a data layer whose data is not here."""
    layer = next(one for one in layers if one.span == feed.span and one.name.text == feed.layer)
    free = feed.type in FREE
    batch, channels = batch_of(feed), _channels(feed)
    return [
        Unknown(top.text, top.span, batch, channels, i > 0, free or not i, not free, why)
        for i, top in enumerate(layer.tops)
        if top.text not in given
    ]


def states_of(spec: NetSpec) -> list[NetState]:
    """Returns the states to check a net in: its own, and with each stage that its rules name."""
    rules = (rule for layer in spec.layers for rule in (*layer.include, *layer.exclude))
    stages = dict.fromkeys(s for rule in rules for s in (*rule.stages, *rule.not_stages))
    others = [stage for stage in stages if stage not in spec.state.stages]
    return [spec.state, *(spec.state.merged(NetState(stages=(one,))) for one in others)]


def phases_used(spec: NetSpec, state: NetState | None = None) -> tuple[str, ...]:
    """Returns the phases in which the net has something to read, TRAIN first.

    A file with a data layer for training only describes no net for testing.
    """
    state = state or spec.state
    rest = (state.level or 0, frozenset(state.stages))
    used = tuple(
        phase
        for phase in PHASES
        if any(not one.bottoms and one.used(phase, *rest) for one in spec.layers)
    )
    return used or PHASES[1:]


def shown_phase(spec: NetSpec) -> str:
    """Returns the phase to show where the user has named none: TEST if the net has it."""
    return phases_used(spec)[-1]


def _told(feed: Feed) -> Shape | None:
    """Returns the shape that the layer's own fields give an item, or None."""
    channels = _channels(feed) or 3
    crop = feed.options.get("crop_size")
    if isinstance(crop, int) and crop > 0:
        return (channels, crop, crop)
    sides = (feed.options.get("new_height"), feed.options.get("new_width"))
    if all(isinstance(side, int) and side > 0 for side in sides):
        return (channels, *(int(side) for side in sides if side is not None))
    return None


def _channels(feed: Feed) -> int | None:
    """Returns how many channels the layer's fields say its items have."""
    options = feed.options
    if options.get("force_gray") or options.get("is_color") is False:
        return 1
    means = options.get("mean_value") or ()
    return 3 if options.get("force_color") or len(means) == 3 else None
