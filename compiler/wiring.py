"""Which layer makes each bottom, and in which order layers can be built."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.errors import Diagnostics, GraphError, StageError, did_you_mean
from schemas.net import LayerSpec, Name, NetSpec

DELAY = re.compile(r"(.+)\[\s*t\s*-\s*\d+\s*\]")

Output = tuple[int, int]  # (layer, top), as indices


@dataclass
class Wiring:
    """Layers by their index in the list that was wired.

    `sources` has for each layer and bottom the output that it reads, None where that is unknown
    (which has been reported). `order` is the file's as far as possible. `final` is the output that
    a blob's name stands for in the end, after all layers that work in place on it.
    """

    sources: list[tuple[Output | None, ...]] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    final: dict[str, Output] = field(default_factory=dict)

    def unread(self) -> list[str]:
        """Returns the blobs that no layer reads, by alphabet: the outputs of the net."""
        read = {source for sources in self.sources for source in sources}
        return sorted(name for name, output in self.final.items() if output not in read)


def wire(layers: Sequence[LayerSpec], spec: NetSpec, diag: Diagnostics) -> Wiring:
    """Finds the layer behind each bottom; layers may stand in any order.

    A blob has one layer that makes it and any number that work on it in place (the blob is among
    their bottoms and their tops), each on what the one before it in the file has left. A reader
    gets what stands at its place in the file, or the last where all writers come later.
    """
    writers = _writers(layers, diag)
    wiring = Wiring(final={name: outputs[-1] for name, outputs in writers.items()})
    for i, layer in enumerate(layers):
        wiring.sources.append(
            tuple(_find(i, b, layers, writers, spec, diag) for b in layer.bottoms)
        )
    wiring.order = _sort(layers, wiring, diag)
    return wiring


def _writers(layers: Sequence[LayerSpec], diag: Diagnostics) -> dict[str, list[Output]]:
    """Returns the outputs that each blob's name stands for, one after the other."""
    makers: dict[str, Output] = {}
    later: dict[str, list[Output]] = {}
    for i, layer in enumerate(layers):
        bottoms = {bottom.text for bottom in layer.bottoms}
        for j, top in enumerate(layer.tops):
            if top.text in bottoms:
                later.setdefault(top.text, []).append((i, j))
            elif top.text in makers:
                first = layers[makers[top.text][0]]
                again = f" (line {first.tops[makers[top.text][1]].span.line})"
                message = f"blob '{top}' is made by two layers: '{first.name}'{again} and "
                hint = "give one of the tops another name"
                diag.error(GraphError(f"{message}'{layer.name}'", top.span, hint))
            else:
                makers[top.text] = (i, j)
    return {name: [made, *later.get(name, ())] for name, made in makers.items()}


def _find(
    i: int,
    bottom: Name,
    layers: Sequence[LayerSpec],
    writers: dict[str, list[Output]],
    spec: NetSpec,
    diag: Diagnostics,
) -> Output | None:
    """Returns the output that a bottom of layer i reads, or None after an error."""
    layer = layers[i]
    who = f"layer '{layer.name}' ({layer.type}): "
    if delayed := DELAY.fullmatch(bottom.text):
        message = f"{who}'{bottom}' reads '{delayed[1]}' one step earlier"
        diag.error(GraphError(message, bottom.span, "recurrence is not built yet"))
        return None
    outputs = writers.get(bottom.text)
    if outputs is None:
        message = f"{who}unknown bottom '{bottom}'"
        elsewhere = _elsewhere(bottom, spec)
        kind = StageError if elsewhere else GraphError
        hint = elsewhere or did_you_mean(bottom.text, writers)
        diag.error(kind(message, bottom.span, hint))
        return None
    if bottom.text in {top.text for top in layer.tops}:
        at = next(k for k, (writer, _) in enumerate(outputs) if writer == i)
        return outputs[at - 1] if at else None
    before = [output for output in outputs[1:] if output[0] < i]
    if before:
        return before[-1]
    return outputs[0] if outputs[0][0] < i else outputs[-1]


def _elsewhere(bottom: Name, spec: NetSpec) -> str | None:
    """Returns a hint where only layers that this net leaves out make the blob."""
    for layer in spec.layers:
        names = {top.text for top in layer.tops} - {name.text for name in layer.bottoms}
        if bottom.text in names:
            return f"layer '{layer.name}', which makes '{bottom}', is not in this phase or stage"
    return None


def _sort(layers: Sequence[LayerSpec], wiring: Wiring, diag: Diagnostics) -> list[int]:
    """Returns the layers, sources first, in the file's order where there is a choice."""
    readers: list[list[int]] = [[] for _ in layers]
    waiting = [0] * len(layers)
    for i, sources in enumerate(wiring.sources):
        for maker in {source[0] for source in sources if source is not None}:
            readers[maker].append(i)
            waiting[i] += 1
    ready = [i for i, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers[i]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(layers):
        _report_cycle(layers, wiring, {i for i, count in enumerate(waiting) if count}, diag)
    return order


def _report_cycle(
    layers: Sequence[LayerSpec], wiring: Wiring, stuck: set[int], diag: Diagnostics
) -> None:
    """Notes one cycle, in the direction in which the data flows."""
    path = [min(stuck)]
    while path.count(path[-1]) < 2:  # each stuck layer waits for another stuck one
        sources = wiring.sources[path[-1]]
        path.append(next(s[0] for s in sources if s is not None and s[0] in stuck))
    loop = path[path.index(path[-1]) :][::-1]
    first = loop.index(min(loop))  # begin with the layer that the file has first
    loop = [*loop[first:-1], *loop[: first + 1]]
    text = " -> ".join(layers[i].name.text for i in loop)
    start, before = layers[loop[0]], loop[-2]
    sources = wiring.sources[loop[0]]
    at = next(k for k, s in enumerate(sources) if s is not None and s[0] == before)
    bottom = start.bottoms[at]
    hint = f"read it one step earlier with '{bottom}[t-1]' if a recurrence is meant"
    diag.error(GraphError(f"the layers form a cycle: {text}", bottom.span, hint))
