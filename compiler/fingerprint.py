"""A name for what compiling a unit gives: everything that decides it, as one digest."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from compiler.ir.node import Node, toposort
from compiler.ir.recurrence import Recurrence
from compiler.unit import Unit


def fingerprint(unit: Unit) -> str | None:
    """Returns a key: units with the same one compile to the same Program.

    None where the compiler's own source is not at hand: whether it changed could not be told. And
    for a graph that calls Python layers: no file holds its Program.
    """
    compiler = source_digest()
    if compiler is None or unit.graph.hosts:
        return None
    digest = hashlib.sha256()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for part in (compiler, python, np.__version__, *_backend(unit), *_graph(unit)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _backend(unit: Unit) -> Iterable[str]:
    backend = unit.backend
    precision = backend.precision
    return backend.name, backend.target, precision, repr(backend.traits), backend.version()


def _graph(unit: Unit) -> Iterable[str]:
    """Yields the graph as text: its nodes numbered, and every field that refers to them."""
    graph = unit.graph
    # Whatever a graph holds counts, but the text that it was read from.
    held = [getattr(graph, f.name) for f in fields(graph) if f.name not in ("spec", "warnings")]
    held += [unit.names, unit.arena, unit.tables]
    numbers: dict[Node, int] = {}
    for node in toposort(_nodes(held)):
        numbers[node] = len(numbers)
        yield repr((node.prim, [numbers[s] for s in node.src], node.attrs, node.type))
    for value in held:
        yield repr(_plain(value, numbers))


def _nodes(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _nodes(pair)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _nodes(one)
    elif isinstance(value, Recurrence):
        yield from (value.leaf, value.source)


def _plain(value: Any, numbers: Mapping[Node, int]) -> Any:
    """Returns lists, numbers and texts, in the order in which they stand."""
    if isinstance(value, Node):
        return ["node", numbers[value]]
    if isinstance(value, Mapping):
        return [[_plain(k, numbers), _plain(v, numbers)] for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(one, numbers) for one in value]
    if is_dataclass(value):  # its repr may leave fields out: the text of a line
        return [_plain(getattr(value, f.name), numbers) for f in fields(value)]
    assert value is None or isinstance(value, (bool, int, float, str)), f"{value!r} is not plain"
    return value


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
