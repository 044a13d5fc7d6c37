"""Which layers take their time steps together, and initial states that nobody sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from compiler.frontend.wiring import Wiring
from compiler.ir.graph import Cycle, LayerInfo
from compiler.ir.node import Node
from schemas.errors import GraphError
from schemas.net import LayerSpec


def cycles(
    wiring: Wiring, infos: Mapping[int, LayerInfo], pasts: Mapping[int, Node]
) -> dict[int, Cycle]:
    """Returns the cycle of each layer that is on one; a recurrent layer is one by itself.

    `pasts` has one of the states of each recurrent layer; layers with errors have no info.
    """
    whole = [(i, k) for i, k in wiring.cyclic if i in infos]
    wheres = {i: (infos[i].bottoms[k][1], wiring.delays[i, k]) for i, k in whole}
    wheres |= {i: (s.shape, s.attr("by")) for i, s in pasts.items() if i not in wheres}
    found: dict[int, Cycle] = {}  # by what `together` calls it
    for i, (shape, by) in sorted(wheres.items()):
        found.setdefault(wiring.together[i], Cycle(len(found) + 1, shape[0], by < 0))
    return {i: found[part] for i, part in enumerate(wiring.together) if part in found}


def unseen(
    layers: Sequence[LayerSpec], wiring: Wiring, infos: Mapping[int, LayerInfo]
) -> Iterator[GraphError]:
    """Yields a warning of each initial state that nobody sees."""
    seen = {source[0] for i, k in wiring.delays if (source := wiring.sources[i][k])}
    for i, layer in enumerate(layers):
        if layer.initial is not None and i not in seen and i in infos:
            message = f"layer '{layer.name}' ({layer.type}): initial has no effect: nothing "
            message += "reads an earlier step of what it makes"
            own = bool(infos[i].remembered)
            hint = "expose_hidden: true takes initial states as bottoms" if own else None
            yield GraphError(message, layer.initial.span, hint)
