"""Bottoms of other time steps: `h[t-1]` while a net is built, and what stands before its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from compiler.frontend.wiring import Output, Wiring, never_cyclic
from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.ir.recurrence import Recurrence, truncated
from compiler.prims import leaves
from compiler.prims.maps import stop
from compiler.prims.moves import broadcast, concat, delayed, reshape, slice_axis
from schemas.errors import GraphError, did_you_mean
from schemas.net import LayerSpec, Name, Value
from schemas.params import Filler, ParamInfo, StateInfo

Shape = tuple[int, ...]
LEARNED = "learned"


@dataclass
class Delays:
    """The delayed bottoms of one build.

    A blob that is read before it is made needs a shape: `shapes` has those that an earlier try
    found out, else one is guessed from what the reader's other bottoms have (`guessed`).
    """

    graph: Graph
    layers: Sequence[LayerSpec]
    wiring: Wiring
    values: Mapping[Output, Node]
    shapes: Mapping[Output, Shape]
    guessed: dict[Output, Shape] = field(default_factory=dict)
    learned: dict[int, list[str]] = field(default_factory=dict)  # layer -> its initial states
    _leaves: dict[tuple[Output, int], Node] = field(default_factory=dict)
    # One is made for each shape that the blob is taken for: a wrong guess is noticed in the end.
    _starts: dict[tuple[Output, bool, Shape], Node] = field(default_factory=dict)

    def bottom(self, i: int, k: int, source: Output) -> Node:
        """Returns the sequence that bottom k of layer i reads, some steps earlier."""
        delay = self.wiring.delays[i, k]
        if (source, delay) not in self._leaves:
            shape = self._shape(i, k, source)
            name = self.layers[source[0]].tops[source[1]].text
            label = f"{name}[t{-delay:+d}]"
            start = self._start(i, source, shape, delay)
            leaf = delayed(label, shape, delay, start)
            self._leaves[source, delay] = leaf
        return truncated(self._leaves[source, delay], self.graph.spec.unroll)

    def missing(self) -> dict[Output, Shape]:
        """Returns the shapes of blobs that turned out to be others than they were taken for."""
        made = [source for source, _ in self._leaves if source in self.values]
        found = {source: self.values[source].shape for source in made}
        return {s: shape for s, shape in found.items() if shape != self._taken(s)}

    def other_shapes(self) -> Iterator[Shape]:
        """Yields shapes that the guessed blobs might have: those of the blobs of the net."""
        seen = set(self.guessed.values())
        for node in self.values.values():
            if node.shape and node.shape not in seen:
                seen.add(node.shape)
                yield node.shape

    def close(self) -> dict[Node, str]:
        """Ties every delayed sequence to the blob that it is, and keeps the last steps.

        Returns what is kept and the layer that it is of.
        """
        graph = self.graph
        for (source, _), leaf in self._leaves.items():
            if source in self.values:  # else there are errors
                graph.recurrences.append(Recurrence(leaf, self.values[source]))
        kept: dict[Node, str] = {}
        for (source, past, _), start in self._starts.items():
            if past and start.prim == "state" and source in self.values:
                graph.updates[start] = last_rows(start, self.values[source])
                kept[graph.updates[start]] = self.layers[source[0]].name.text
        return kept

    def hint(self) -> str | None:
        """Returns what is often forgotten where the shapes on a cycle do not fit."""
        for i, _ in sorted(self.wiring.cyclic):
            layer = self.layers[i]
            if layer.type.text == "InnerProduct" and "axis" not in layer.params:
                return f"layer '{layer.name}' reads a sequence (T, N, ...): give it axis: 2"
        return None

    def _taken(self, source: Output) -> Shape:
        return next(leaf.shape for (s, _), leaf in self._leaves.items() if s == source)

    def _shape(self, i: int, k: int, source: Output) -> Shape:
        bottom = self.layers[i].bottoms[k]
        if source in self.values:
            shape = self.values[source].shape
        elif source in self.shapes:
            shape = self.shapes[source]
        else:
            shape = self.guessed.setdefault(source, self._guess(i, bottom))
        if not shape:
            who = f"layer '{self.layers[i].name}' ({self.layers[i].type}): "
            message = f"{who}'{bottom}' is one number, not a sequence with a value for each step"
            hint = "a cycle cannot go through a loss, nor through what sums over time"
            raise GraphError(message, bottom.span, hint)
        return shape

    def _guess(self, i: int, bottom: Name) -> Shape:
        """Returns the shape of another bottom of the reader, else of what has been made last."""
        sources = [s for k, s in enumerate(self.wiring.sources[i]) if s in self.values]
        shapes = [self.values[s].shape for s in sources if s is not None]
        shapes += [node.shape for node in self.values.values()]
        longest = max((len(shape) for shape in shapes), default=0)
        if not longest:
            message = f"the shape of '{bottom}' cannot be told from anything that is known"
            hint = "a cycle needs an input from outside: (T, N, ...)"
            raise GraphError(message, bottom.span, never_cyclic(self.layers[i]) or hint)
        return next(shape for shape in shapes if len(shape) >= min(3, longest))

    # ---- what stands before the first step ---------------------------------------------------

    def _start(self, i: int, source: Output, shape: Shape, delay: int) -> Node:
        """Returns the |delay| rows before the first step (behind the last where it is negative)."""
        past = delay > 0
        every = [
            abs(d)
            for at, d in self.wiring.delays.items()
            if self.wiring.sources[at[0]][at[1]] == source and (d > 0) == past
        ]
        rows = max(every)
        key = source, past, (rows, *shape[1:])
        if key not in self._starts:
            self._starts[key] = self._rows(i, *key)
        start = self._starts[key]
        return slice_axis(start, 0, rows - delay, rows) if past else slice_axis(start, 0, 0, -delay)

    def _rows(self, i: int, source: Output, past: bool, shape: Shape) -> Node:
        maker = self.layers[source[0]]
        initial = maker.initial
        label = maker.tops[source[1]].text
        if initial is None or isinstance(initial.data, int | float):
            fill = float(initial.data) if initial is not None else 0.0
            if past and self.graph.spec.carry_state:
                return carried(self.graph, f"{maker.name}/{label}", shape, fill)
            return broadcast(leaves.const(fill), shape)
        if initial.data == LEARNED:
            self.learned.setdefault(source[0], []).append(f"{maker.name}/{label}.initial")
            return self._learned(maker, label, shape, initial)
        return self._from_blob(maker, shape, initial)

    def _learned(self, maker: LayerSpec, label: str, shape: Shape, initial: Value) -> Node:
        """One learned state for all sequences, of the blob's shape without T and N."""
        key = f"{maker.name}/{label}.initial"
        own = shape[2:] or (1,)
        self.graph.params[key] = ParamInfo(
            key, maker.name.text, f"{label}.initial", own, Filler(), span=initial.span
        )
        node = self.graph.param_nodes[key] = leaves.param(key, own)
        return broadcast(reshape(node, (1,) * (len(shape) - len(own)) + own), shape)

    def _from_blob(self, maker: LayerSpec, shape: Shape, initial: Value) -> Node:
        """The state is a blob: (N, ...), or with the steps before, (rows, N, ...)."""
        name = str(initial.data)
        who = f"layer '{maker.name}' ({maker.type}): initial: "
        made = self.wiring.final.get(name)
        if made is None or made not in self.values:
            message = f"{who}unknown blob '{name}'"
            hint = did_you_mean(name, self.wiring.final)
            raise GraphError(message, initial.span, hint or "a number, 'learned' or a blob")
        node = self.values[made]
        if node.shape not in (shape, shape[1:], (1, *shape[1:])):
            message = f"{who}'{name}' {node.shape} does not fit the state {shape[1:]}"
            hint = "it is what one time step of the blob is, without T"
            raise GraphError(message, initial.span, hint)
        if node.shape == shape[1:]:
            node = reshape(node, (1, *node.shape))
        return broadcast(node, shape)


def carried(graph: Graph, key: str, shape: Shape, fill: float = 0.0) -> Node:
    """Declares a state that a batch leaves to the next one, and returns its leaf.

    Each phase has its own: what the test net has read is not where training goes on.
    """
    key = key if graph.phase == "TRAIN" else f"{key}@{graph.phase}"
    graph.states[key] = StateInfo(key, shape, fill, carried=True)
    return leaves.state(key, shape)


def last_rows(start: Node, sequence: Node) -> Node:
    """Returns the last rows of a sequence, as many as `start` has, which stands before it.

    No gradient goes through them: back-propagation through time ends with the batch.
    """
    rows, steps = start.shape[0], sequence.shape[0]
    if rows <= steps:
        return stop(slice_axis(sequence, 0, steps - rows, steps))
    return stop(concat((slice_axis(start, 0, steps, rows), sequence), 0))
