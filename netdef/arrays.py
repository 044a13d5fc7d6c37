"""What a caller gives: arrays of numbers, of the shape of a blob."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.errors import UsageError

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def numbers(name: str, value: Any) -> Array:
    """Returns what was given for a blob as an array of real numbers. Raises UsageError."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and array.ndim:  # numbers of several kinds; None is none
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        given = f" of {array.dtype}" if isinstance(value, np.ndarray) else ""
        raise UsageError(f"'{name}' must be an array of numbers, not {type(value).__name__}{given}")
    return array


def shaped(name: str, value: Any, shape: Shape) -> Array:
    """Returns it as an array of this shape; a single number may have any. Raises UsageError."""
    array = numbers(name, value)
    if array.shape != shape and not (array.size == 1 == np.prod(shape, dtype=int)):
        raise UsageError(f"'{name}' has shape {shape}, not {array.shape}")
    return array.reshape(shape)
