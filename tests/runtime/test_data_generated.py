"""Generated sequences: what each task promises, and that batches are functions of their number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.data import Source, open_source
from schemas.params import Feed

ADDING = {"batch_size": 40, "steps": 30, "min_steps": 30}
COPY = {"batch_size": 40, "symbols": 6, "alphabet": 8, "delay": 9}
CURVES = {"batch_size": 200, "steps": 50}
TOPS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "AddingData": (("x", "sum", "length"), ADDING),
    "CopyData": (("x", "label"), COPY),
    "CurveData": (("pair", "same"), CURVES),
}


def opened(kind: str, phase: str = "TRAIN", seed: int = 1, **changes: Any) -> Source:
    tops, options = TOPS[kind]
    feed = Feed("d", kind, tops, ((),) * len(tops), {**options, **changes}, phase)
    source = open_source(feed, seed)
    assert source is not None
    return source


@pytest.mark.parametrize("kind", TOPS)
def test_a_batch_depends_on_seed_phase_and_number(kind: str) -> None:
    source = opened(kind)
    first = TOPS[kind][0][0]
    batch = source.batch(5)[first]
    np.testing.assert_array_equal(opened(kind).batch(5)[first], batch)
    for other in (source.batch(6), opened(kind, "TEST").batch(5), opened(kind, seed=2).batch(5)):
        assert not np.array_equal(other[first], batch)
    for array in source.batch(0).values():
        assert array.dtype == np.float32 and array.flags.c_contiguous


def test_adding_marks_one_number_in_each_half() -> None:
    batch = opened("AddingData").batch(0)
    values, marks = batch["x"][..., 0], batch["x"][..., 1]
    assert batch["x"].shape == (30, 40, 2) and batch["sum"].shape == (40, 1)
    assert marks[:15].sum(axis=0).tolist() == marks[15:].sum(axis=0).tolist() == [1] * 40
    np.testing.assert_allclose((values * marks).sum(axis=0), batch["sum"][:, 0], rtol=1e-6)
    assert values.min() >= 0 and values.max() < 1
    assert batch["length"].tolist() == [30] * 40
    every = np.concatenate([opened("AddingData").batch(i)["sum"] for i in range(50)])
    assert abs(every.mean() - 1) < 0.05 and abs(every.var() - 1 / 6) < 0.02


def test_adding_with_lengths_is_zero_beyond_them() -> None:
    batch = opened("AddingData", min_steps=4).batch(0)
    length = batch["length"].astype(int)
    assert 4 <= length.min() < 10 and 24 < length.max() <= 30
    for n, end in enumerate(length):
        x = batch["x"][:, n]
        assert not x[end:].any() and x[: end // 2, 1].sum() == x[end // 2 : end, 1].sum() == 1


def test_copy_asks_for_the_symbols_after_the_delay() -> None:
    batch = opened("CopyData").batch(0)
    x, label = batch["x"], batch["label"]
    assert x.shape == label.shape == (21, 40)
    np.testing.assert_array_equal(label[-6:], x[:6])
    assert set(np.unique(x[:6])) == set(range(1, 9))
    assert not label[:-6].any() and not x[-6:].any() and not x[6:-7].any()
    assert set(x[-7]) == {9}


def test_curves_of_one_hand_are_nearer_than_forgeries() -> None:
    batch = opened("CurveData").batch(0)
    pair, same = batch["pair"], batch["same"] > 0
    assert pair.shape == (200, 4, 50) and 70 < same.sum() < 130
    apart = ((pair[:, :2] - pair[:, 2:]) ** 2).mean(axis=(1, 2))
    assert apart[same].mean() < apart[~same].mean() / 2
    others = ((pair[:-1, :2] - pair[1:, :2]) ** 2).mean()
    assert apart[~same].mean() < others  # a forgery is like the true form
