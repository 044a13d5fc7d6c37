"""Which layer makes each bottom, and in which order layers can be built."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler.layers import bottom_names, is_loss, layer_type
from schemas.errors import Diagnostics, GraphError, StageError, did_you_mean
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
    after = [sorted({s[0] for s in sources if s is not None}) for sources in wiring.sources]
    wiring.together = together = _parts(after)
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
            if (blob := split_delay(top.text)[0]) != top.text:
                message = f"layer '{layer.name}' ({layer.type}): a top is of this time step, "
                hint = f"top: {blob}; '{top}' is what a bottom may say"
                diag.error(GraphError(f"{message}not '{top}'", top.span, hint))
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
    own = bottom.text in {top.text for top in layer.tops}
    if outputs is None:
        near = did_you_mean(bottom.text, writers)
        if own and not (near or "").startswith("did you mean"):
            message = f"{who}reads '{bottom}', which nothing but the layer itself makes"
            diag.error(GraphError(message, bottom.span, _once_earlier(bottom)))
            return None
        elsewhere = _elsewhere(bottom, spec)
        kind = StageError if elsewhere else GraphError
        hint = elsewhere or _other_step(bottom, writers) or near
        diag.error(kind(f"{who}unknown bottom '{bottom}'", bottom.span, hint))
        return None
    if own:
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


def _parts(after: Sequence[Sequence[int]]) -> list[int]:
    """Returns for each layer the number of the cycle that it is on, its own where it is on none.

    `after` has the layers that each one reads. These are the strongly connected parts (Tarjan's
    algorithm, without recursion).
    """
    count = len(after)
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


def _other_step(bottom: Name, writers: Mapping[str, object]) -> str | None:
    """Returns a hint where a bottom looks like a blob of another time step: `h[-1]`, `h[t-k]`."""
    blob = bottom.text.partition("[")[0]
    if blob == bottom.text or blob not in writers:
        return None
    return f"the step before is '{blob}[t-1]', two before '{blob}[t-2]', the next '{blob}[t+1]'"


def _once_earlier(bottom: Name) -> str:
    return f"read it one step earlier with '{bottom}[t-1]' if a recurrence is meant"


def _sort(layers: Sequence[LayerSpec], wiring: Wiring, diag: Diagnostics) -> list[int]:
    """Returns the layers, sources first, in the file's order where there is a choice."""
    readers: list[list[int]] = [[] for _ in layers]
    waiting = [0] * len(layers)
    needs = [_needs(i, wiring) for i in range(len(layers))]
    for i, makers in enumerate(needs):
        for maker in makers:
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
        parts = _parts(needs)
        for i, part in enumerate(parts):
            mates = [j for j, other in enumerate(parts) if other == part]
            if mates[0] == i and (len(mates) > 1 or i in needs[i]):
                _report_cycle(layers, wiring, mates, diag)
    return order


def _needs(i: int, wiring: Wiring) -> list[int]:
    """Returns the layers that must have been built before layer i."""
    sources = enumerate(wiring.sources[i])
    now = {s[0] for k, s in sources if s is not None and (i, k) not in wiring.cyclic}
    return sorted(now | wiring.starts.get(i, set()))


def _report_cycle(
    layers: Sequence[LayerSpec], wiring: Wiring, mates: Sequence[int], diag: Diagnostics
) -> None:
    """Notes one cycle among layers that all wait for each other, as the data flows."""
    path = [mates[0]]
    while path.count(path[-1]) < 2:
        path.append(next(s for s in _needs(path[-1], wiring) if s in mates))
    loop = path[path.index(path[-1]) :][::-1]
    first = loop.index(min(loop))  # begin with the layer that the file has first
    loop = [*loop[first:-1], *loop[: first + 1]]
    text = " -> ".join(layers[i].name.text for i in loop)
    for before, at in zip([loop[-2], *loop], loop, strict=False):
        now = [s for k, s in enumerate(wiring.sources[at]) if (at, k) not in wiring.cyclic]
        if before not in {s[0] for s in now if s is not None}:
            _report_start(layers, wiring, before, text, diag)
            return
    sources = wiring.sources[loop[0]]
    at = next(k for k, s in enumerate(sources) if s is not None and s[0] == loop[-2])
    bottom = layers[loop[0]].bottoms[at]
    message = f"the layers form a cycle: {text}"
    hints = (hint for i in loop if (hint := never_cyclic(layers[i])))
    diag.error(GraphError(message, bottom.span, next(hints, _once_earlier(bottom))))


def never_cyclic(layer: LayerSpec) -> str | None:
    """Says why a layer cannot be on a cycle, with whatever delay; None if it can."""
    if is_loss(layer.type.text):
        return f"a cycle cannot go through a loss: '{layer.name}' is one number for all steps"
    cls = layer_type(layer.type.text)
    if cls is not None and bottom_names(cls) == ((), 0, False):
        return f"a cycle cannot go through data: '{layer.name}' ({layer.type}) takes no bottom"
    return None


def _report_start(
    layers: Sequence[LayerSpec], wiring: Wiring, maker: int, text: str, diag: Diagnostics
) -> None:
    """Notes an initial state that hangs on the cycle which it begins."""
    for layer in layers:
        if layer.initial is not None and (made := wiring.final.get(str(layer.initial.data))):
            if made[0] == maker:
                message = f"layer '{layer.name}' ({layer.type}): initial: '{layer.initial.data}' "
                message += f"depends on the cycle that it begins: {text}"
                hint = "an initial state comes from outside of its cycle"
                diag.error(GraphError(message, layer.initial.span, hint))
                return
