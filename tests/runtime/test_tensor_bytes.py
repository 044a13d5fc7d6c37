"""Arrays are copied to the order of a slot: all numbers, and nothing beside them."""

from __future__ import annotations

import multiprocessing
import os
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


ORDERS = {"channels last": (0, 2, 3, 1), "planar": (0, 1, 2, 3), "weights": (2, 3, 1, 0)}


def strides_in(order: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    step = {axis: prod(shape[a] for a in order[i + 1 :]) for i, axis in enumerate(order)}
    return tuple(step[axis] for axis in range(len(shape)))


@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize("given", ["plain", "turned", "float64"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [1, 3])
def test_numbers_are_put_in_order(
    shape: tuple[int, ...],
    given: str,
    order: str,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensor_bytes, "_THREADS", threads)
    monkeypatch.setattr(tensor_bytes, "_SHARE", 16)
    axes = ORDERS[order]
    tensor = Tensor("x", "input", "f32", shape, "arena", 0, shape, strides_in(axes, shape))
    assert dense(tensor)
    value = np.random.default_rng(1).standard_normal(shape, np.float32)
    if given == "turned":
        value = np.ascontiguousarray(np.moveaxis(value, 1, -1))
        value = np.moveaxis(value, -1, 1)
    raw = np.full(span(tensor) + 4, 7, np.uint8)
    fill(tensor, value.astype(given) if given == "float64" else value, strided(tensor, raw[:-4]))
    np.testing.assert_array_equal(unpack(tensor, raw[:-4]), value)
    np.testing.assert_array_equal(raw[:-4].view(np.float32), value.transpose(axes).ravel())
    assert (raw[-4:] == 7).all()


def test_the_parts_of_an_array_are_written_before_an_error_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever catches it may release the memory."""
    monkeypatch.setattr(tensor_bytes, "_THREADS", 3)
    monkeypatch.setattr(tensor_bytes, "_SHARE", 1)
    elements = np.zeros(6, np.float32)
    with pytest.raises(ValueError, match="could not convert"):
        tensor_bytes._copy(np.array(["x", "x", "2", "3", "4", "5"], object), elements)
    np.testing.assert_array_equal(elements, [0, 0, 2, 3, 4, 5])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_copies_with_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_bytes, "_THREADS", 2)
    monkeypatch.setattr(tensor_bytes, "_SHARE", 1)
    value, elements = np.arange(8.0), np.zeros(8)
    tensor_bytes._copy(value, elements)
    child = multiprocessing.get_context("fork").Process(
        target=tensor_bytes._copy, args=(value, elements)
    )
    child.start()
    child.join(30)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0
