"""Imports packages that not everyone has, and says how to get one that is missing."""

from __future__ import annotations

import importlib
from typing import Any

from schemas.errors import BackendError
from schemas.span import Span


def package(module: str, extra: str, what: str, span: Span | None = None) -> Any:
    """Returns the module; raises BackendError, which names netdef's extra, where it is missing.

    `what` begins the message: "LMDB databases need the package lmdb"; `span` is the layer with such
    data.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        hint = f"pip install 'netdef[{extra}]'"
        name = {"PIL.Image": "pillow"}.get(module, module)
        raise BackendError(f"{what} need the package {name}", span, hint) from None
