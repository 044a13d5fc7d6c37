"""A name for what compiling a unit gives: everything that decides it, as one digest."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from compiler.ir import Node, toposort
from compiler.unit import Unit
from schemas.program_file import plain


def fingerprint(unit: Unit) -> str | None:
    """Returns a key: units with the same one compile to the same Program.

    None where the compiler's own source is not at hand: whether it changed could not be told.
    """
    compiler = source_digest()
    if compiler is None:
        return None
    digest = hashlib.sha256()
    for part in (compiler, sys.version, np.__version__, *_backend(unit), *_graph(unit)):
        digest.update(part.encode() + b"\0")
    for name, table in unit.tables.items():
        digest.update(f"{name} {table.dtype} {table.shape}\0".encode() + table.tobytes())
    return digest.hexdigest()


def _backend(unit: Unit) -> Iterable[str]:
    backend = unit.backend
    return backend.name, backend.target, repr(backend.traits), backend.version()


def _graph(unit: Unit) -> Iterable[str]:
    """Yields the graph as text: its nodes numbered, and all that refers to them."""
    graph = unit.graph
    named: list[Mapping[str, Node]] = [
        graph.inputs,
        graph.param_nodes,
        graph.blobs,
        graph.outputs,
        {"loss": graph.loss} if graph.loss is not None else {},
    ]
    marked: list[Mapping[Node, str]] = [graph.origin, unit.names]
    roots = [node for table in named for node in table.values()]
    roots += [node for table in marked for node in table]
    roots += [node for pair in graph.updates.items() for node in pair]
    numbers: dict[Node, int] = {}
    for node in toposort(roots):
        numbers[node] = len(numbers)
        yield repr((node.prim, [numbers[s] for s in node.src], node.attrs, node.type))
    # In the order in which they stand: the first of two names of a blob is not the second.
    yield repr([[(name, numbers[node]) for name, node in table.items()] for table in named])
    yield repr([[(numbers[node], name) for node, name in table.items()] for table in marked])
    yield repr([(numbers[leaf], numbers[value]) for leaf, value in graph.updates.items()])
    yield repr((graph.name, graph.phase, graph.layers, graph.loss_weights, unit.arena))
    yield repr([(layer, str(span)) for layer, span in graph.places.items()])
    yield json.dumps([plain(graph.params), plain(graph.states), plain(graph.feeds)])


@lru_cache(maxsize=1)
def source_digest() -> str | None:
    """Returns a digest of this compiler's source, None if it is not there."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    files = sorted(file for room in ("compiler", "schemas") for file in (root / room).rglob("*.py"))
    try:
        for file in files:
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    except OSError:
        return None
    return digest.hexdigest() if files else None
