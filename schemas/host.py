"""Layers that are Python code: what a net asks for, and what it calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from schemas.errors import NetError
from schemas.span import Span

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A Python layer as the net has it: the class, what it is given, and where that is written."""

    layer: str
    module: str
    cls: str
    param_str: str
    phase: str
    bottoms: tuple[tuple[str, Shape], ...]
    tops: tuple[str, ...]
    span: Span
    module_span: Span
    cls_span: Span


class Host(Protocol):
    """A Python layer, set up for the shapes of one net.

    Values go in and out as one flat block of f32 each, every blob in Caffe's axis order: bottoms
    and then learned blobs go in, tops come out, and gradients the other way round.
    """

    @property
    def tops(self) -> tuple[Shape, ...]: ...

    @property
    def blobs(self) -> tuple[Array, ...]:
        """The first values of the learned blobs."""
        ...

    def forward(self, values: Array) -> Array:
        """Returns the tops."""
        ...

    def backward(self, gradient: Array, wanted: Sequence[bool]) -> Array:
        """Returns the gradients of bottoms and learned blobs; `wanted` tells which will be read."""
        ...

    def again(self) -> Host:
        """Returns this layer for a pass that repeats the last forward: it is not called again."""
        ...


# Makes the layers of one net; raises NetError where that is not allowed or does not work.
OpenHost = Callable[[HostSpec], Host]


class LayerError(NetError):
    """A Python layer has raised an exception; `trace` is the way to it through the user's files."""

    def __init__(self, message: str, span: Span, trace: str = "", hint: str | None = None) -> None:
        super().__init__(message, span, hint)
        self.trace = trace

    def render(self, severity: str = "error") -> str:
        return "\n".join(part for part in (super().render(severity), self.trace) if part)
