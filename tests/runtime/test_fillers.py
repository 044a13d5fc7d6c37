"""Fillers: exact bounds and scales, and that a blob's values are its own."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from runtime.fillers import FILLERS, fan, fill
from schemas.errors import SpecError
from schemas.params import Filler, ParamInfo

CONV = (20, 10, 5, 5)


def filled(filler: Filler, shape: tuple[int, ...] = CONV, key: str = "c/w", seed: int = 1):  # type: ignore[no-untyped-def]
    return fill(ParamInfo(key, "c", "w", shape, filler), seed)


@pytest.mark.parametrize("kind", FILLERS)
def test_shape_dtype_and_determinism(kind: str) -> None:
    first, again = filled(Filler(kind)), filled(Filler(kind))
    assert first.dtype == np.float32 and first.shape == CONV and first.flags.c_contiguous
    assert np.array_equal(first, again)
    if kind not in ("constant", "bilinear"):
        assert not np.array_equal(first, filled(Filler(kind), key="d/w"))
        assert not np.array_equal(first, filled(Filler(kind), seed=2))


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 250), ("FAN_OUT", 500), ("AVERAGE", 375)])
def test_scales(norm: str, n: int) -> None:
    assert fan(Filler(variance_norm=norm), CONV) == n
    xavier = filled(Filler("xavier", variance_norm=norm))
    bound = math.sqrt(3 / n)
    assert 0.99 * bound < abs(xavier).max() <= np.float32(bound)
    assert xavier.std() == pytest.approx(math.sqrt(1 / n), rel=0.03)
    msra = filled(Filler("msra", variance_norm=norm))
    assert msra.std() == pytest.approx(math.sqrt(2 / n), rel=0.03)


def test_fans_of_a_bias() -> None:
    assert fan(Filler(), (50,)) == 1
    assert fan(Filler(variance_norm="FAN_OUT"), (50,)) == 50


def test_uniform_and_gaussian() -> None:
    uniform = filled(Filler("uniform", min=-0.5, max=2.0))
    assert -0.5 <= uniform.min() < -0.49 and 1.99 < uniform.max() <= 2.0
    assert uniform.mean() == pytest.approx(0.75, abs=0.03)
    gaussian = filled(Filler("gaussian", mean=3.0, std=0.5))
    assert gaussian.mean() == pytest.approx(3.0, abs=0.02)
    assert gaussian.std() == pytest.approx(0.5, rel=0.03)


def test_large_blobs_hold_what_one_draw_gives() -> None:
    shape = (37, 7001)  # several blocks, the last of them smaller
    words = np.array([1, zlib.crc32(b"c/w")], np.uint64)
    drawn = np.random.Generator(np.random.Philox(key=words)).standard_normal(shape, np.float32)
    assert np.array_equal(filled(Filler("gaussian", std=0.3), shape), np.float32(0.3) * drawn)
    drawn = np.random.Generator(np.random.Philox(key=words)).random(shape, np.float32)
    assert np.array_equal(filled(Filler("uniform", max=0.5), shape), np.float32(0.5) * drawn)


def test_sparse_keeps_that_share_of_the_outputs() -> None:
    values = filled(Filler("gaussian", sparse=5), (20, 500))
    assert (values != 0).mean() == pytest.approx(5 / 20, abs=0.02)


def test_positive_unitball_rows_sum_to_one() -> None:
    values = filled(Filler("positive_unitball"))
    assert values.min() >= 0
    assert np.allclose(values.reshape(20, -1).sum(1), 1, atol=1e-5)


def test_bilinear() -> None:
    # K = 4: f = 2, c = 3/4, weights 1/4 3/4 3/4 1/4 a line.
    line = np.array([0.25, 0.75, 0.75, 0.25])
    assert np.array_equal(filled(Filler("bilinear"), (2, 3, 4, 4))[1, 2], np.outer(line, line))
    # K = 3: f = 2, c = 1/2.
    line = np.array([0.5, 1.0, 0.5])
    assert np.array_equal(filled(Filler("bilinear"), (1, 1, 3, 3))[0, 0], np.outer(line, line))


@pytest.mark.parametrize(
    ("filler", "shape", "message"),
    [
        (Filler("xaver"), CONV, "unknown filler 'xaver'\n  hint: did you mean 'xavier'"),
        (Filler("bilinear"), (3, 4), "four axes"),
        (Filler("xavier", sparse=3), CONV, "gaussian fillers only"),
        (Filler("gaussian", sparse=30), CONV, "more than the 20 outputs"),
        (Filler("gaussian", std=-1), CONV, "negative"),
        (Filler("uniform", min=2), CONV, "more than max"),
        (Filler("msra", variance_norm="FANIN"), CONV, "did you mean 'FAN_IN'"),
    ],
)
def test_errors(filler: Filler, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("?", r"\?")):
        filled(filler, shape)
