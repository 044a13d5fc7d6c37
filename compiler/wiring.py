"""Which layer makes each bottom, and in which order layers can be built."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.errors import Diagnostics, GraphError, did_you_mean
from schemas.net import LayerSpec, Name, NetSpec

# `h[t-1]`: the blob h one step earlier.
DELAY = re.compile(r"(.+?)\[\s*t\s*(?:([+-])\s*(\d+)\s*)?\]")

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
    # (layer, bottom) -> steps: the bottom is the output that many time steps earlier.
    delays: dict[tuple[int, int], int] = field(default_factory=dict)
    # Which of those are read before they are made: they close a cycle.
    cyclic: set[tuple[int, int]] = field(default_factory=set)
    # For each layer the number of the cycle that it is on, its own where it is on none.
    together: list[int] = field(default_factory=list)
    # Layers that a layer needs besides: the makers of what stands before the first step.
    starts: dict[int, set[int]] = field(default_factory=dict)

    def unread(self) -> list[str]:
        """Returns the blobs that no layer reads, by alphabet: the outputs of the net.

        That a cycle reads its own last step does not count.
        """
        read = {
            source
            for i, sources in enumerate(self.sources)
            for k, source in enumerate(sources)
            if (i, k) not in self.cyclic
        }
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
        found = []
        for k, bottom in enumerate(layer.bottoms):
            name, delay = _delay(layer, bottom, diag)
            if delay:
                wiring.delays[i, k] = delay
            found.append(_find(i, name, layers, writers, spec, diag, delayed=bool(delay)))
        wiring.sources.append(tuple(found))
    wiring.together = together = _cycles(wiring)
    wiring.cyclic = {
        (i, k)
        for i, k in wiring.delays
        if (source := wiring.sources[i][k]) is not None and together[source[0]] == together[i]
    }
    for i, k in wiring.delays:
        source = wiring.sources[i][k]
        initial = layers[source[0]].initial if source is not None else None
        if initial is not None and (start := wiring.final.get(str(initial.data))) is not None:
            wiring.starts.setdefault(i, set()).add(start[0])
    _check_directions(layers, wiring, together, diag)
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
    delayed: bool,
) -> Output | None:
    """Returns the output that a bottom of layer i reads, or None after an error."""
    layer = layers[i]
    who = f"layer '{layer.name}' ({layer.type}): "
    outputs = writers.get(bottom.text)
    if delayed and outputs:  # of an earlier step, all is done
        return outputs[-1]
    if outputs is None:
        hint = _elsewhere(bottom, spec) or did_you_mean(bottom.text, writers)
        diag.error(GraphError(f"{who}unknown bottom '{bottom}'", bottom.span, hint))
        return None
    if bottom.text in {top.text for top in layer.tops}:
        at = next(k for k, (writer, _) in enumerate(outputs) if writer == i)
        return outputs[at - 1] if at else None
    before = [output for output in outputs[1:] if output[0] < i]
    if before:
        return before[-1]
    return outputs[0] if outputs[0][0] < i else outputs[-1]


def split_delay(bottom: str) -> tuple[str, int]:
    """Returns the blob that `h[t-1]` names and how many steps earlier it is read, 0 for this one.

    Negative: later.
    """
    found = DELAY.fullmatch(bottom)
    if found is None:
        return bottom, 0
    return found[1], int(found[3] or 0) * (-1 if found[2] == "+" else 1)


def _delay(layer: LayerSpec, bottom: Name, diag: Diagnostics) -> tuple[Name, int]:
    """Returns the blob that a bottom names and how many steps earlier it is read."""
    blob, steps = split_delay(bottom.text)
    if blob != bottom.text and steps == 0:
        message = f"layer '{layer.name}' ({layer.type}): '{bottom}' has a delay of 0"
        hint = f"'{blob}' reads this step, '{blob}[t-1]' the one before"
        diag.error(GraphError(message, bottom.span, hint))
        steps = 1  # what is meant, so that nothing follows from the mistake
    return Name(blob, bottom.span), steps


def _cycles(wiring: Wiring) -> list[int]:
    """Returns for each layer the number of the cycle that it is on, its own where it is on none.

    These are the strongly connected parts (Tarjan's algorithm, without recursion).
    """
    count = len(wiring.sources)
    after = [sorted({s[0] for s in sources if s is not None}) for sources in wiring.sources]
    number, low, part = [-1] * count, [0] * count, [-1] * count
    stack: list[int] = []
    seen = 0
    for start in range(count):
        if number[start] >= 0:
            continue
        work = [(start, 0)]
        while work:
            i, k = work.pop()
            if k == 0:
                number[i] = low[i] = seen
                seen += 1
                stack.append(i)
            elif part[after[i][k - 1]] < 0:
                low[i] = min(low[i], low[after[i][k - 1]])
            while k < len(after[i]) and number[after[i][k]] >= 0:
                if part[after[i][k]] < 0:
                    low[i] = min(low[i], number[after[i][k]])
                k += 1
            if k < len(after[i]):
                work += [(i, k + 1), (after[i][k], 0)]
            elif low[i] == number[i]:
                while part[i] < 0:
                    part[stack.pop()] = i
    return part


def _check_directions(
    layers: Sequence[LayerSpec], wiring: Wiring, together: Sequence[int], diag: Diagnostics
) -> None:
    """Notes a cycle that reads both the past and the future: no step of it could come first."""
    first: dict[int, tuple[Name, int]] = {}
    for i, k in sorted(wiring.cyclic):
        bottom, delay = layers[i].bottoms[k], wiring.delays[i, k]
        other, before = first.setdefault(together[i], (bottom, delay))
        if (delay > 0) != (before > 0):
            message = f"layer '{layers[i].name}' ({layers[i].type}): '{bottom}' and '{other}' "
            message += "read the future and the past on one cycle"
            hint = "a cycle goes through time in one direction"
            diag.error(GraphError(message, bottom.span, hint))


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
        now = {s for k, s in enumerate(sources) if s is not None and (i, k) not in wiring.cyclic}
        for maker in {maker for maker, _ in now} | wiring.starts.get(i, set()):
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
        at = path[-1]
        path.append(
            next(
                s[0]
                for k, s in enumerate(wiring.sources[at])
                if s is not None and s[0] in stuck and (at, k) not in wiring.cyclic
            )
        )
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
