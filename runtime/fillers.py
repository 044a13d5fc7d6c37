"""Fillers: the first values of a learned blob, by Caffe's formulas."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from schemas.errors import SpecError, did_you_mean
from schemas.net import NOWHERE
from schemas.params import Filler, ParamInfo
from schemas.span import Span

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
VARIANCE_NORMS = ("FAN_IN", "FAN_OUT", "AVERAGE")
_BLOCK = 1 << 16  # numbers that are still in a core's cache when they are scaled


def fill(info: ParamInfo, seed: int) -> Array:
    """Returns the first values of a blob, float32 in its Caffe shape.

    They depend on the seed and the blob's key only, never on other blobs. Formulas: Caffe's
    filler.hpp. Raises SpecError for a filler that does not exist or does not fit the shape.
    """
    return draw(info.filler, info.shape, seed, info.key, info.span)


def draw(filler: Filler, shape: Shape, seed: int, key: str, span: Span = NOWHERE) -> Array:
    """Returns float32 values of `shape`, random ones keyed by (seed, crc32 of `key`)."""
    make = FILLERS.get(filler.type)
    if make is None:
        message = f"'{key}': unknown filler '{filler.type}'"
        raise SpecError(message, span, did_you_mean(filler.type, FILLERS))
    words = np.array([seed & (2**64 - 1), zlib.crc32(key.encode())], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=words))
    try:
        if filler.sparse >= 0 and filler.type != "gaussian":
            raise ValueError("'sparse' is for gaussian fillers only")
        values = make(filler, shape, rng)
    except ValueError as error:
        raise SpecError(f"'{key}' ({filler.type} filler): {error}", span) from None
    return np.ascontiguousarray(values, np.float32).reshape(shape)


def fan(filler: Filler, shape: Shape) -> float:
    """Returns the n of xavier and msra: count / shape[0], count / shape[1], or their mean."""
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1.0
    fan_out = count / shape[1] if len(shape) > 1 else float(count)
    norms = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}
    if filler.variance_norm not in norms:
        hint = did_you_mean(filler.variance_norm, norms)
        raise ValueError(f"unknown variance_norm '{filler.variance_norm}'; {hint}")
    return norms[filler.variance_norm]


def _constant(filler: Filler, shape: Shape, rng: np.random.Generator) -> Array:
    return np.full(shape, filler.value, np.float32)


def _between(low: float, high: float, shape: Shape, rng: np.random.Generator) -> Array:
    # Drawn in float32, and clipped, since low + (high - low) * u may round to above `high`.
    values = np.empty(shape, np.float32)
    for part in _blocks(values):
        rng.random(dtype=np.float32, out=part)
        part *= np.float32(high - low)
        part += low
        np.clip(part, np.float32(low), np.float32(high), out=part)
    return values


def _normal(mean: float, std: float, shape: Shape, rng: np.random.Generator) -> Array:
    values = np.empty(shape, np.float32)
    for part in _blocks(values):
        rng.standard_normal(dtype=np.float32, out=part)
        part *= np.float32(std)
        part += mean
    return values


def _blocks(values: Array) -> Iterator[Array]:
    flat = values.reshape(-1)
    yield from (flat[at : at + _BLOCK] for at in range(0, flat.size, _BLOCK))


def _uniform(filler: Filler, shape: Shape, rng: np.random.Generator) -> Array:
    if filler.min > filler.max:
        raise ValueError(f"min {filler.min} is more than max {filler.max}")
    return _between(filler.min, filler.max, shape, rng)


def _gaussian(filler: Filler, shape: Shape, rng: np.random.Generator) -> Array:
    if filler.std < 0:
        raise ValueError(f"std {filler.std} is negative")
    values = _normal(filler.mean, filler.std, shape, rng)
    if filler.sparse < 0:
        return values
    # Caffe keeps each value with probability sparse / shape[0], whatever its documentation says.
    keep = filler.sparse / shape[0] if shape else 1.0
    if keep > 1:
        raise ValueError(f"sparse {filler.sparse} is more than the {shape[0]} outputs")
    return np.where(rng.random(shape) < keep, values, np.float32(0))


def _positive_unitball(filler: Filler, shape: Shape, rng: np.random.Generator) -> Array:
    rows = rng.random((shape[0] if shape else 1, math.prod(shape[1:])))
    scaled: Array = rows / rows.sum(axis=1, keepdims=True)
    return scaled


def _xavier(filler: Filler, shape: Shape, rng: np.random.Generator) -> Array:
    bound = math.sqrt(3.0 / fan(filler, shape))
    return _between(-bound, bound, shape, rng)


def _msra(filler: Filler, shape: Shape, rng: np.random.Generator) -> Array:
    return _normal(0.0, math.sqrt(2.0 / fan(filler, shape)), shape, rng)


def _bilinear(filler: Filler, shape: Shape, rng: np.random.Generator) -> Array:
    """f = ceil(K / 2), c = (K - 1) / (2 f): (1 - |x / f - c|) (1 - |y / f - c|), for every pair."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(f"it needs a blob of four axes with square kernels, not {shape}")
    side = shape[3]
    factor = math.ceil(side / 2)
    centre = (side - 1) / (2 * factor)
    line = 1 - np.abs(np.arange(side) / factor - centre)
    return np.broadcast_to(np.outer(line, line), shape)


FILLERS: dict[str, Callable[[Filler, Shape, np.random.Generator], Array]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "xavier": _xavier,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "bilinear": _bilinear,
}
