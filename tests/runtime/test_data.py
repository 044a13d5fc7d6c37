"""Data sources: the embedded digits, .npz files, transforms, made-up data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.data import RecordSource, open_source, probe
from runtime.data.digits import load_digits
from schemas.errors import NetError, ShapeError, SourceError, SpecError
from schemas.params import Feed, Filler
from schemas.span import Span


def feed(phase: str = "TRAIN", tops: int = 2, **options: Any) -> Feed:
    names = ("data", "label", "more")[:tops]
    return Feed("d", "Data", names, (), {"batch_size": 4, **options}, phase)


def opened(one: Feed, seed: int = 1) -> RecordSource:
    source = open_source(one, seed)
    assert isinstance(source, RecordSource)
    return source


def npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "set.npz", **arrays)
    return str(folder / "set.npz")


def test_digits_split_is_disjoint_and_stratified() -> None:
    train, test = load_digits("digits8", "TRAIN"), load_digits("digits8", "TEST")
    assert (len(train), len(test)) == (1438, 359)
    assert train.label is not None and test.label is not None
    for digit in range(10):
        ours, theirs = (train.label == digit).sum(), (test.label == digit).sum()
        assert abs(theirs - (ours + theirs) / 5) <= 0.5
    rows = {r.tobytes() for r in train.data} & {r.tobytes() for r in test.data}
    assert not rows  # the published set holds no digit twice
    first = np.bincount(train.label[:100].astype(int), minlength=10)
    assert first.min() >= 3  # mixed from the start


def test_digits_enlarged() -> None:
    small, large = load_digits("digits8", "TRAIN").data, load_digits("digits", "TRAIN").data
    assert small.shape == (1438, 1, 8, 8) and (small.min(), small.max()) == (0, 16)
    assert large.shape == (1438, 1, 28, 28) and (large.min(), large.max()) == (0, 255)
    assert large.dtype == np.float32 and np.array_equal(large, np.round(large))
    assert not large[:, :, :4].any() and not large[:, :, :, 24:].any()
    # Corners are clamped, and the mean brightness is kept.
    assert np.array_equal(large[:, 0, 4, 4], np.floor(small[:, 0, 0, 0] * 255 / 16 + 0.5))
    inner = large[:, 0, 4:24, 4:24].mean(axis=(1, 2)) * 16 / 255
    assert np.allclose(inner, small.mean(axis=(1, 2, 3)), atol=0.6)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_pairs_are_two_digits_of_the_same_part_and_whether_they_are_alike(phase: str) -> None:
    single, pairs = load_digits("digits", phase), load_digits("digits-pairs", phase)
    assert single.label is not None and pairs.label is not None
    assert pairs.data.shape == (10 * len(single), 2, 28, 28)
    known = {one.tobytes(): label for one, label in zip(single.data, single.label, strict=True)}
    left, right = (
        np.array([known[one[which].astype(np.float32)[None].tobytes()] for one in pairs.data])
        for which in (0, 1)
    )
    assert np.array_equal(pairs.label, left == right) and 0.08 < pairs.label.mean() < 0.12
    assert len({one.tobytes() for one in pairs.data}) > 0.95 * len(pairs)


def test_order_is_sequential_and_cyclic() -> None:
    source = opened(feed(source="digits", batch_size=1000))
    assert probe(feed(source="digits", batch_size=1000)) == ((1000, 1, 28, 28), (1000,))
    label = source.records.label
    assert label is not None
    two = np.concatenate([source.batch(0)["label"], source.batch(1)["label"]])
    assert np.array_equal(two, np.concatenate([label, label])[:2000])
    batch = source.batch(1)["data"]
    assert batch.dtype == np.float32 and batch.flags.c_contiguous


def test_shuffle_is_another_permutation_each_pass() -> None:
    options = {"source": "digits8", "batch_size": 1438, "shuffle": True}
    source = opened(feed(**options))
    passes = [source.order.chosen(i) for i in range(3)]
    assert all(np.array_equal(np.sort(p), np.arange(1438)) for p in passes)
    assert not np.array_equal(passes[0], passes[1])
    assert np.array_equal(opened(feed(**options)).order.chosen(2), passes[2])  # no history
    assert not np.array_equal(opened(feed(**options), seed=2).order.chosen(0), passes[0])
    # A batch over the end of a pass takes from both.
    odd = opened(feed(**{**options, "batch_size": 1000}))
    both = np.concatenate([odd.order.chosen(0), odd.order.chosen(1)])
    assert np.array_equal(both[:1438], passes[0]) and np.array_equal(both[1438:], passes[1][:562])


def test_mean_and_scale(tmp_path: Path) -> None:
    data = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    source = npz(tmp_path, data=data, label=np.arange(4))
    got = opened(feed(source=source, mean_value=(1, 2, 3), scale=0.5)).batch(0)["data"]
    mean = np.array([1, 2, 3]).reshape(3, 1, 1)
    assert np.array_equal(got, (data - mean.astype(np.float32)) * 0.5)
    got = opened(feed(source=source, mean_value=(7,))).batch(0)["data"]
    assert np.array_equal(got, data.astype(np.float32) - 7)
    with pytest.raises(ShapeError, match="2 values in mean_value for 3 channels"):
        probe(feed(source=source, mean_value=(1, 2)))


def test_mirror_and_crop(tmp_path: Path) -> None:
    data = np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6).repeat(64, 0)
    source = npz(tmp_path, data=data, label=np.zeros(64, np.int64))
    options = {"source": source, "batch_size": 64, "crop_size": 3}
    assert probe(feed(**options)) == ((64, 1, 3, 3), (64,))
    test = opened(feed("TEST", **options)).batch(0)["data"]
    assert np.array_equal(test, data[:, :, 1:4, 1:4])  # (5 - 3) / 2 and floor((6 - 3) / 2)
    train = opened(feed(**options)).batch(5)["data"]
    corners = set(train[:, 0, 0, 0].astype(int))
    assert corners == {6 * y + x for y in range(3) for x in range(4)}
    mirrored = opened(feed("TEST", mirror=True, **options))
    flipped = [bool(one[0, 0, 0] > one[0, 0, 2]) for one in mirrored.batch(5)["data"]]
    assert 20 < sum(flipped) < 44
    assert np.array_equal(mirrored.batch(5)["data"], mirrored.batch(5)["data"])
    assert not np.array_equal(mirrored.batch(5)["data"], mirrored.batch(6)["data"])
    with pytest.raises(ShapeError, match="crop_size 6 does not fit into 5 x 6 pixels"):
        probe(feed(**{**options, "crop_size": 6}))


def test_rand_skip_starts_later() -> None:
    starts = {
        int(opened(feed(source="digits8", rand_skip=50), s).order.chosen(0)[0]) for s in range(20)
    }
    assert len(starts) > 10 and max(starts) < 50


def test_npz_by_phase_and_kinds_of_arrays(tmp_path: Path) -> None:
    source = npz(
        tmp_path,
        x_train=np.zeros((6, 5, 7), np.uint8),
        y_train=np.arange(6).reshape(6, 1),
        x_test=np.ones((3, 5, 7)),
        y_test=np.ones((3, 2)),
    )
    assert probe(feed(source=source)) == ((4, 1, 5, 7), (4,))
    assert probe(feed("TEST", source=source)) == ((4, 1, 5, 7), (4, 2))
    assert opened(feed(source=source)).batch(0)["label"].tolist() == [0, 1, 2, 3]
    assert opened(feed("TEST", source=source)).batch(0)["data"].min() == 1
    features = npz(tmp_path, data=np.zeros((6, 9)))
    assert probe(feed(tops=1, source=features)) == ((4, 9),)
    assert set(opened(feed(tops=1, source=features)).batch(0)) == {"data"}


def test_npz_beside_the_net(tmp_path: Path) -> None:
    npz(tmp_path, data=np.zeros((6, 9)), label=np.zeros(6))
    one = replace(feed(source="set.npz"), span=Span(str(tmp_path / "net.yaml"), 3, 5))
    assert probe(one) == ((4, 9), (4,))
    with pytest.raises(SourceError, match=r"net.yaml:3:5: .*no file 'sett.npz'\n.*'set.npz'"):
        probe(replace(one, options={**one.options, "source": "sett.npz"}))


OK = np.zeros((6, 2))
BAD_ARRAYS: list[tuple[dict[str, Any], str]] = [
    ({"x": OK}, "no array 'data' or 'x_train'"),
    ({"data": OK}, "no array 'label' for the top 'label'"),
    ({"data": OK, "lable": OK}, "did you mean 'lable'"),
    ({"data": OK, "label": np.zeros(5)}, "6 'data' and 5 'label'"),
    ({"data": OK.astype(complex), "label": np.zeros(6)}, "holds complex128"),
    ({"data": np.array([{}] * 6), "label": np.zeros(6)}, "holds Python objects"),
    ({"data": np.array(["a"] * 6), "label": np.zeros(6)}, "holds <U1"),
    ({"data": np.zeros(6), "label": np.zeros(6)}, r"has shape \(6,\)"),
    ({"data": np.zeros((0, 2)), "label": np.zeros(0)}, "holds no records"),
    ({"data": OK, "label": np.array([0, 1, 2, -1, 0, 0])}, "label -1"),
    ({"data": OK, "label": np.full(6, 2**25)}, "label 33554432"),
    ({"data": OK, "label": np.full(6, np.nan)}, "'label' .* holds NaN"),
    ({"data": OK + np.inf, "label": np.zeros(6)}, "'data' .* holds NaN"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS)
def test_wrong_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        opened(feed(source=npz(tmp_path, **arrays)))


def test_files_that_are_not_npz(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    for content in (b"", b"garbage", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(SourceError, match="is not an .npz file"):
            probe(feed(source=str(path)))
    whole = Path(npz(tmp_path, data=np.zeros((100, 9)), label=np.zeros(100))).read_bytes()
    at = whole.index(b"\x93NUMPY") + 200
    path.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
    with pytest.raises(SourceError, match="cannot read 'data'"):
        opened(feed(source=str(path)))


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (feed(source="digts"), "'digts' is not a data source\n.*did you mean 'digits'"),
        (feed(source="mnist_lmdb"), "embedded: digits, digits-pairs, digits8"),
        (feed(), "has no source"),
        (feed(source="digits", mean_file="m.npy"), "there is no file 'm.npy'"),
        (feed(source="digits", mean_file="m", mean_value=[1]), "both 'mean_file' and"),
        (feed(source="digits", batch_size=0), "batch_size must be 1 or more, not 0"),
        (feed(source="digits", tops=3), "3 tops"),
        (replace(feed(), type="Python"), r"\(Python\): nothing reads data for layers"),
    ],
)
def test_errors(one: Feed, message: str) -> None:
    with pytest.raises((SourceError, SpecError), match=message) as caught:
        open_source(one, 0)
    assert isinstance(caught.value, NetError)


def test_a_name_of_the_same_kind_is_proposed(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits2.npz").write_bytes(b"")
    with pytest.raises(SourceError, match=r"there is no file .*\n.*did you mean '.*digits2.npz'"):
        open_source(feed(source=str(tmp_path / "digits.npz")), 0)
    (tmp_path / "digits2.npz").unlink()
    with pytest.raises(SourceError, match=r"there is no file .*\n.*paths are relative"):
        open_source(feed(source=str(tmp_path / "digits.npz")), 0)


def test_dummy_data() -> None:
    fillers = [Filler("constant", value=3), {"type": "uniform", "max": 2.0}]
    one = Feed("d", "DummyData", ("a", "b"), ((2, 3), (5,)), {"data_filler": fillers})
    source = open_source(one, 1)
    assert source is not None and source.constant == {"a"} and probe(one) == ((2, 3), (5,))
    first, second = source.batch(0), source.batch(1)
    assert first["a"] is second["a"] and np.array_equal(first["a"], np.full((2, 3), 3))
    assert not np.array_equal(first["b"], second["b"]) and second["b"].max() < 2
    assert np.array_equal(source.batch(0)["b"], first["b"])
    plain = open_source(replace(one, options={}), 1)
    assert plain is not None and not plain.batch(0)["b"].any()


def test_layers_that_the_api_fills() -> None:
    for kind in ("Input", "MemoryData"):
        assert open_source(Feed("d", kind, ("data",), ((2, 3),)), 0) is None
