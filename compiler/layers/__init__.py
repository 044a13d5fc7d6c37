"""The layer types: one dataclass each, found by their files."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

_REGISTERED = re.compile(r'^@\w+\("(\w+)"\)', re.MULTILINE)
_registry: dict[str, type[Any]] = {}
_bottoms: dict[type[Any], tuple[tuple[str, ...], int, bool]] = {}  # signatures are slow to read
L = TypeVar("L", bound=type[Any])


def layer(name: str) -> Callable[[L], L]:
    """Registers a dataclass as the layer type of this name."""

    def register(cls: L) -> L:
        assert name not in _registry, f"two layer types are called {name}"
        _registry[name] = cls
        return cls

    return register


def layer_type(name: str) -> type[Any] | None:
    """Returns the layer type of this name, None if there is none."""
    home = _homes().get(name)
    if home is not None:
        importlib.import_module(f"{__name__}.{home}")
    return _registry.get(name) or layer_types().get(name)


def is_loss(kind: str) -> bool:
    """Returns whether a layer type is a loss: its first top counts in the net's loss."""
    return kind.endswith("Loss")


@cache
def _homes() -> dict[str, str]:
    """Returns the file of each type, as far as the text says it: importing all takes far longer."""
    texts = {path.stem: path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py")}
    return {name: home for home, text in texts.items() for name in _REGISTERED.findall(text)}


@cache
def layer_types() -> dict[str, type[Any]]:
    """Returns every layer type by name; importing the files of this folder registers them."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_registry.items()))


def bottom_names(cls: type[Any]) -> tuple[tuple[str, ...], int, bool]:
    """Returns the names of a layer type's bottoms, how many must be there, whether more may be."""
    if cls in _bottoms:
        return _bottoms[cls]
    named: list[str] = []
    needed, more = 0, False
    for parameter in list(inspect.signature(cls.build).parameters.values())[2:]:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            more = True
            continue
        named.append(parameter.name)
        needed += parameter.default is inspect.Parameter.empty
    _bottoms[cls] = tuple(named), needed, more
    return _bottoms[cls]
