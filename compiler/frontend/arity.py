"""How many bottoms and tops a layer type takes, and what is said where there are others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.ir.node import Node
from compiler.layers import bottom_names
from compiler.layers.scope import Scope
from schemas.errors import GraphError, SpecError

MAX_RANK = 8


def check_bottoms(scope: Scope, layer: Any) -> None:
    """Raises where the number of bottoms is not what the layer's `build` takes."""
    names, least, more = bottom_names(type(layer))
    count, most = len(scope.bottoms), len(names)
    if count < least or (count > most and not more):
        want = "bottom" if least == 1 and not more else "bottoms"
        number = (
            f"{least} or more" if more else f"{least}" if least == most else f"{least} to {most}"
        )
        given = " and ".join(map(str, scope.bottoms)) or "none"
        listed = ", ".join([*names, "..."] if more else names)
        if names:
            message = f"needs {number} {want}, has {count}: {given}"
            scope.error(message, hint=f"bottom: [{listed}]", kind=GraphError)
        scope.error(f"takes no bottom, has {given}", hint="leave bottom out", kind=GraphError)
    for source in scope.bottoms:
        if len(source.shape) > MAX_RANK:
            scope.error(f"{source} has more than {MAX_RANK} axes")
    down = scope.spec.propagate_down
    if down and len(down) != count:
        scope.error(f"{count_of(down, 'propagate_down')} for {count_of(scope.bottoms, 'bottom')}")


def check_made(scope: Scope, made: Sequence[Node]) -> None:
    """Raises where the tops or the param entries are not as many as the layer has made."""
    if len(made) != len(scope.tops):
        message = f"makes {count_of(made, 'top')}, but {len(scope.tops)} are named"
        listed = ", ".join(str(node.shape) for node in made)
        scope.error(message, hint=f"shape of what it makes: {listed}", kind=GraphError)
    entries = scope.spec.param
    blobs = [*scope.params, *scope.running_keys]
    if len(entries) > len(blobs):
        message = f"{len(entries)} param entries for {count_of(blobs, 'learned blob')}"
        scope.error(message, hint=", ".join(blobs) or None, span=entries[-1].span, kind=SpecError)


def count_of(things: Sequence[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
