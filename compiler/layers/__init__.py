"""The layer types: one dataclass each, found by their files."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

_REGISTERED = re.compile(r'^@\w+\("(\w+)"\)', re.MULTILINE)
_registry: dict[str, type[Any]] = {}
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
