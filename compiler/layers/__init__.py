"""The layer types: one dataclass each, found by their files."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

_registry: dict[str, type[Any]] = {}
L = TypeVar("L", bound=type[Any])


def layer(name: str) -> Callable[[L], L]:
    """Registers a dataclass as the layer type of this name."""

    def register(cls: L) -> L:
        assert name not in _registry, f"two layer types are called {name}"
        _registry[name] = cls
        return cls

    return register


@cache
def layer_types() -> dict[str, type[Any]]:
    """Returns every layer type by name; importing the files of this folder registers them."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_registry.items()))
