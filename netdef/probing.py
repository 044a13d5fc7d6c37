"""Builds a net whose data need not be here: shapes from crop_size or from the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler.build import build
from compiler.graph import Graph
from runtime.data import probe
from schemas.errors import NetError, SourceError
from schemas.net import NetSpec
from schemas.params import Feed

Shape = tuple[int, ...]
PHASES = ("TRAIN", "TEST")
# Layers whose shapes stand in the net, or in code: a shape that is given for them is the whole one.
WRITTEN = ("Input", "DummyData", "MemoryData", "Python")


@dataclass
class Prober:
    """Tells the shapes of a data layer as `runtime.data.probe` does, also without its data.

    `given` holds the shape of one item by blob name (or, with more than three sizes, of the whole
    batch); without it, an item of a missing source is a square of crop_size or new_height x
    new_width. `warnings` says for which layers that was done.
    """

    given: Mapping[str, Shape] = field(default_factory=dict)
    warnings: list[NetError] = field(default_factory=list)

    def __call__(self, feed: Feed) -> tuple[Shape, ...]:
        if feed.tops and feed.tops[0] in self.given:
            return self._around(feed, self.given[feed.tops[0]])
        try:
            return probe(feed)
        except SourceError as error:
            item = _cropped(feed)
            if item is None:
                raise _question(feed, error) from None
            known = "x".join(map(str, item))
            message = f"{error.message}; an item is taken to be {known}"
            self.warnings.append(SourceError(message, error.span, error.hint))
            return self._around(feed, item)

    def _around(self, feed: Feed, item: Shape) -> tuple[Shape, ...]:
        """Returns the shapes of all tops, given that of one item of the first."""
        batch = feed.options.get("batch_size")
        count = batch if isinstance(batch, int) and batch > 0 else 1
        first = item if len(item) > 3 else (count, *item)
        labels = [(first[0], *self.given.get(top, ())) for top in feed.tops[1:]]
        return (first, *labels)


def build_anyhow(
    spec: NetSpec, phase: str, shapes: Mapping[str, Shape] | None = None, deploy: bool = False
) -> tuple[Graph, list[NetError]]:
    """Returns the net of a phase and what is probably not meant, without asking for its data.

    Raises NetError, also for a data layer whose shape cannot be known; it then says what to give.
    """
    shapes = dict(shapes or {})
    fed = {
        top.text
        for layer in spec.layers
        if not layer.bottoms and layer.type.text not in WRITTEN
        for top in layer.tops
    }
    prober = Prober({name: shape for name, shape in shapes.items() if name in fed})
    inputs = {name: shape for name, shape in shapes.items() if name not in fed}
    state = spec.state
    graph = build(
        spec,
        phase,
        level=state.level,
        stages=frozenset(state.stages),
        probe=prober,
        inputs=inputs,
        deploy=deploy,
    )
    return graph, [*spec.warnings, *graph.warnings, *prober.warnings]


def phases_used(spec: NetSpec) -> tuple[str, ...]:
    """Returns the phases in which the net has something to read, TRAIN first.

    A file with a data layer for training only describes no net for testing.
    """
    stages = frozenset(spec.state.stages)
    used = tuple(
        phase
        for phase in PHASES
        if any(not one.bottoms and one.used(phase, spec.state.level, stages) for one in spec.layers)
    )
    return used or PHASES[1:]


def shown_phase(spec: NetSpec) -> str:
    """Returns the phase to show where the user has named none: TEST if the net has it."""
    return phases_used(spec)[-1]


def _cropped(feed: Feed) -> Shape | None:
    """Returns the shape that the layer's own fields give an item, or None."""
    options = feed.options
    channels = 1 if options.get("force_gray") else 3
    crop = options.get("crop_size")
    if isinstance(crop, int) and crop > 0:
        return (channels, crop, crop)
    sides = (options.get("new_height"), options.get("new_width"))
    if all(isinstance(side, int) and side > 0 for side in sides):
        return (channels, *(int(side) for side in sides if side is not None))
    return None


def _question(feed: Feed, error: SourceError) -> SourceError:
    """Returns the error, with the way to go on without the data."""
    name = feed.tops[0] if feed.tops else feed.layer
    way = f"without the data: --input-shape {name}=C,H,W gives the shape of one item"
    hint = f"{error.hint}\n        {way}" if error.hint else way
    return SourceError(error.message, error.span, hint)
