"""What a net definition says, and where: NetSpec, LayerSpec, Value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.errors import NetError
from schemas.host import OpenHost
from schemas.span import Span

NOWHERE = Span("<generated>", 0, 0)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a spec with its place.

    `data` is an int, float, str, bool or None, a tuple of Values, or a dict from str to Value.
    `key_span` is the place of the field's name where the value stands in a mapping; errors about
    the field itself (unknown, twice) point there, errors about the value point to `span`.
    """

    data: Any
    span: Span = NOWHERE
    key_span: Span | None = None

    @property
    def key(self) -> Span:
        return self.key_span or self.span

    def plain(self) -> Any:
        """Returns the data without places: scalars, lists and dicts."""
        if isinstance(self.data, tuple):
            return [v.plain() for v in self.data]
        if isinstance(self.data, Mapping):
            return {k: v.plain() for k, v in self.data.items()}
        return self.data


def value_of(data: Any, span: Span = NOWHERE) -> Value:
    """Wraps plain Python data (scalars, lists, dicts) as a Value at one place."""
    if isinstance(data, Value):
        return data
    if isinstance(data, Mapping):
        return Value({str(k): value_of(v, span) for k, v in data.items()}, span)
    if isinstance(data, (list, tuple)):
        return Value(tuple(value_of(v, span) for v in data), span)
    return Value(data, span)


@dataclass(frozen=True, slots=True)
class Name:
    """A blob or layer name with its place."""

    text: str
    span: Span = NOWHERE

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """What `param:` says of one learned blob of a layer (Caffe's ParamSpec)."""

    name: str | None = None
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    share_mode: str = "STRICT"
    given: frozenset[str] = frozenset()  # which of the two multipliers are written
    span: Span = NOWHERE


@dataclass(frozen=True, slots=True)
class Rule:
    """One `include` or `exclude` rule (Caffe's NetStateRule); None or () means: not set."""

    phase: str | None = None
    min_level: int | None = None
    max_level: int | None = None
    stages: tuple[str, ...] = ()
    not_stages: tuple[str, ...] = ()
    span: Span = NOWHERE

    def met(self, phase: str, level: int, stages: frozenset[str]) -> bool:
        """Returns whether a net of this state meets the rule (CAFFE.md section 6)."""
        return (
            (self.phase is None or self.phase == phase)
            and (self.min_level is None or level >= self.min_level)
            and (self.max_level is None or level <= self.max_level)
            and all(s in stages for s in self.stages)
            and not any(s in stages for s in self.not_stages)
        )


@dataclass(frozen=True, slots=True)
class NetState:
    """Which part of a net file one net uses (Caffe's NetState); None and () mean: not set."""

    phase: str | None = None
    level: int | None = None
    stages: tuple[str, ...] = ()

    def merged(self, over: NetState) -> NetState:
        """Returns this state with another over it, as protobuf merges: stages add up."""
        level = self.level if over.level is None else over.level
        stages = tuple(dict.fromkeys((*self.stages, *over.stages)))
        return NetState(over.phase or self.phase, level, stages)


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer as written. `params` holds the layer type's own fields, flat."""

    name: Name
    type: Name
    bottoms: tuple[Name, ...] = ()
    tops: tuple[Name, ...] = ()
    params: dict[str, Value] = field(default_factory=dict)
    param: tuple[ParamSpec, ...] = ()
    include: tuple[Rule, ...] = ()
    exclude: tuple[Rule, ...] = ()
    loss_weight: tuple[float, ...] = ()
    propagate_down: tuple[bool, ...] = ()
    initial: Value | None = None  # before the first step: a number, "learned" or a blob
    phase: str | None = None  # Caffe's `phase` of one layer: overrides the net's
    span: Span = NOWHERE

    def used(self, phase: str, level: int = 0, stages: frozenset[str] = frozenset()) -> bool:
        """Returns whether the layer takes part in a net of this state."""
        state = (phase, level, stages)
        included = not self.include or any(rule.met(*state) for rule in self.include)
        return included and not any(rule.met(*state) for rule in self.exclude)


@dataclass(frozen=True, slots=True)
class NetSpec:
    """A whole net as written: the same for YAML, prototxt and binary protobuf.

    Nothing is resolved yet: `bottoms` and `tops` are filled in where the file leaves them out, and
    blocks are expanded, but phases are not filtered and types and shapes are not checked.
    """

    name: str
    layers: tuple[LayerSpec, ...]
    force_backward: bool = False
    debug_info: bool = False
    carry_state: bool = True  # hidden states go on from one batch to the next
    unroll: int = 0  # steps that a gradient goes back through time, 0: all of a batch
    span: Span = NOWHERE
    file: str = "<string>"
    state: NetState = NetState()  # the file's own `state`: below the solver's train/test state
    warnings: tuple[NetError, ...] = ()  # what the reader passed over, for `netdef check`
    lenient: bool = False  # fields that a layer type does not have are passed over, with a warning
    # What opens layers of type Python; never from a file: only the caller can let code run.
    python: OpenHost | None = field(default=None, compare=False, repr=False)

    def with_param(self, layer: str, key: str, value: Value) -> NetSpec:
        """Returns a copy in which every layer of this name has `key` set (for `--set`)."""
        layers = tuple(
            replace(one, params={**one.params, key: value}) if one.name.text == layer else one
            for one in self.layers
        )
        return replace(self, layers=layers)


def with_state(spec: NetSpec, level: int | None, stages: tuple[str, ...]) -> NetSpec:
    """Returns a net of another level, and with these stages beside its own."""
    return replace(spec, state=spec.state.merged(NetState(level=level, stages=stages)))
