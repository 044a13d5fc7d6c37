"""Arrays are copied to the order of a slot: all numbers, and nothing beside them."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from runtime import tensor_bytes
from runtime.tensor_bytes import dense, fill, span, strided, unpack
from schemas.program import Tensor

PICTURES = [
    *((1, 3, 5, 7), (5, 2, 1, 1), (2, 8, 3, 1), (7, 9, 4, 4), (3, 1, 6, 5), (0, 3, 2, 2)),
    (37, 3, 61, 67),  # more than one piece, and a rest
]


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    n, c, *places = shape
    inner = tuple(c * prod(places[i + 1 :]) for i in range(len(places)))
    return (c * prod(places), 1, *inner)


@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize("given", ["plain", "turned", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
def test_pictures_are_turned(
    shape: tuple[int, ...], given: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_bytes, "_THREADS", threads)
    monkeypatch.setattr(tensor_bytes, "_MANY", 2)
    tensor = Tensor("x", "input", "f32", shape, "arena", 0, shape, channels_last(shape))
    assert dense(tensor)
    value = np.random.default_rng(1).standard_normal(shape, np.float32)
    if given == "turned":
        value = np.ascontiguousarray(np.moveaxis(value, 1, -1))
        value = np.moveaxis(value, -1, 1)
    raw = np.full(span(tensor) + 4, 7, np.uint8)
    fill(tensor, value.astype(given) if given == "float64" else value, strided(tensor, raw[:-4]))
    np.testing.assert_array_equal(unpack(tensor, raw[:-4]), value)
    np.testing.assert_array_equal(raw[:-4].view(np.float32), np.moveaxis(value, 1, -1).ravel())
    assert (raw[-4:] == 7).all()
