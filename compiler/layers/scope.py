"""Scope: what a layer's `build` may ask for: parameters, random streams, errors."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from compiler.graph import Graph
from compiler.ir import Node
from compiler.prims import leaves
from schemas.errors import NetError, ShapeError
from schemas.net import LayerSpec
from schemas.params import Feed, Filler, ParamInfo, StateInfo
from schemas.span import Span

Shape = tuple[int, ...]
# Tells the shapes of a data layer's tops: (layer spec, options, phase) -> {top: shape}.
Probe = Callable[[Feed], tuple[Shape, ...]]


@dataclass
class Scope:
    """One layer's view of the net that is being built."""

    graph: Graph
    spec: LayerSpec
    phase: str
    probe: Probe | None = None
    params: list[str] = field(default_factory=list)  # keys that this layer uses, in Caffe's order
    macs: int = 0
    _streams: int = 0

    @property
    def name(self) -> str:
        return self.spec.name.text

    @property
    def training(self) -> bool:
        return self.phase == "TRAIN"

    def param(self, name: str, shape: Shape, filler: Filler, view: Shape | None = None) -> Node:
        """Declares a learned blob and returns its node, of shape `view` if given.

        `shape` is Caffe's, the one that files and the API show; `view` has the same elements in
        the same row-major order. The n-th call goes with the n-th `param:` entry of the spec, whose
        `name` shares the blob with every layer that uses the same name.
        """
        index = len(self.params)
        given = self.spec.param[index] if index < len(self.spec.param) else None
        key = given.name if given and given.name else f"{self.name}/{name}"
        lr_mult, decay_mult = (given.lr_mult, given.decay_mult) if given else (1.0, 1.0)
        span = given.span if given else self.spec.span
        self.params.append(key)
        known = self.graph.params.get(key)
        if known is None:
            self.graph.params[key] = ParamInfo(
                key, self.name, name, shape, filler, lr_mult, decay_mult, span
            )
        elif known.size != _size(shape) or (
            known.shape != shape and not (given and given.share_mode == "PERMISSIVE")
        ):
            self.error(
                f"shares '{key}' of shape {known.shape} with layer '{known.layer}', "
                f"but needs shape {shape}",
                span=span,
                hint="shared parameters must have one shape (share_mode: PERMISSIVE: one size)",
            )
        node = self.graph.param_nodes.setdefault(
            key, leaves.param(key, self.graph.params[key].shape)
        )
        from compiler.prims.moves import reshape

        return reshape(node, view or shape)

    def state(self, name: str, shape: Shape, fill: float = 0.0) -> Node:
        """Declares a blob that is kept from step to step but not learned."""
        key = f"{self.name}/{name}"
        self.graph.states[key] = StateInfo(key, shape, fill)
        return leaves.state(key, shape)

    def update(self, state: Node, value: Node) -> None:
        """Gives a state its new value at the end of each step."""
        self.graph.updates[state] = value

    def stream(self) -> int:
        """Returns a random stream of this layer's own: the same one each time the net is built."""
        self._streams += 1
        return zlib.crc32(f"{self.name}/{self._streams}".encode())

    def feed(
        self, options: dict[str, object], shapes: tuple[Shape, ...] | None
    ) -> tuple[Node, ...]:
        """Makes this layer's tops inputs of the net, filled by a data source of this type.

        `shapes` None: ask the source (an embedded or npz data set knows its item shape).
        """
        tops = tuple(top.text for top in self.spec.tops)
        feed = Feed(
            self.name, self.spec.type.text, tops, shapes or (), options, self.phase, self.spec.span
        )
        if shapes is None:
            if self.probe is None:
                self.error("the shape of its data is not known here", hint="give a data source")
            shapes = self.probe(feed)
        feed = Feed(
            self.name, self.spec.type.text, tops, shapes, options, self.phase, self.spec.span
        )
        self.graph.feeds = (*self.graph.feeds, feed)
        nodes = tuple(leaves.input_(top, shape) for top, shape in zip(tops, shapes, strict=True))
        self.graph.inputs.update(zip(tops, nodes, strict=True))
        return nodes

    def place(self, name: str | None = None) -> Span:
        """Returns where a field of this layer is written, or the layer itself."""
        value = self.spec.params.get(name) if name else None
        return value.span if value else self.spec.span

    def error(
        self,
        message: str,
        field: str | None = None,
        hint: str | None = None,
        span: Span | None = None,
        kind: type[NetError] = ShapeError,
    ) -> NoReturn:
        """Raises a located error about this layer."""
        who = f"layer '{self.name}' ({self.spec.type.text}): "
        raise kind(who + message, span or self.place(field), hint)

    def warn(self, message: str, field: str | None = None, hint: str | None = None) -> None:
        who = f"layer '{self.name}' ({self.spec.type.text}): "
        self.graph.warnings.append(ShapeError(who + message, self.place(field), hint))


def _size(shape: Shape) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
