"""Learned blobs and data feeds of a net: what the runtime must fill."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from schemas.net import NOWHERE
from schemas.span import Span


@dataclass(frozen=True, slots=True)
class Filler:
    """How a blob gets its first values; fields and defaults are Caffe's FillerParameter."""

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: str = "FAN_IN"


@dataclass(frozen=True, slots=True)
class ParamInfo:
    """One learned blob. `key` is its name everywhere: `conv1/weight`, or the shared name."""

    key: str
    layer: str  # the layer that owns it
    name: str  # "weight", "bias", ...: its name within the layer
    shape: tuple[int, ...]  # Caffe's
    filler: Filler = Filler()
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    span: Span = NOWHERE

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A blob kept from step to step that is not learned: a running mean, a momentum.

    Its first values are all `fill`, or those of the file `source`, which a layer at `span` names.
    """

    key: str
    shape: tuple[int, ...]
    fill: float = 0.0
    source: str = ""
    span: Span = NOWHERE
    carried: bool = False  # what a sequence leaves to the next batch: a hidden state


@dataclass(frozen=True, slots=True)
class LayerBlobs:
    """Which blobs a layer has in Caffe's weight files, where they go by layer and number.

    `keys` are those of learned blobs, shared ones too, and of states that are weights (a running
    mean), in Caffe's order.
    """

    layer: str
    type: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sink:
    """A layer that writes blobs to a file: `tensors` has the program's tensor of each dataset."""

    layer: str
    file: str
    tensors: dict[str, str]
    span: Span = NOWHERE


@dataclass(frozen=True, slots=True)
class Feed:
    """A data layer: which inputs of the net it fills, and the fields it was written with."""

    layer: str
    type: str
    tops: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    options: dict[str, Any] = field(default_factory=dict)  # plain values, defaults filled in
    phase: str = "TRAIN"
    span: Span = NOWHERE
