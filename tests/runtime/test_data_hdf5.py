"""HDF5Data: datasets by top, order of files and rows, located mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.data import open_source, probe
from schemas.errors import BackendError, NetErrors, SourceError
from tests.runtime.data_files import feed_of, write_hdf5

TOPS = ("data", "label", "weight")


def arrays(start, count):
    """Rows that say which they are: row i holds i everywhere."""
    row = np.arange(start, start + count)
    return {
        "data": np.broadcast_to(row[:, None, None], (count, 2, 3)).astype(np.float64),
        "label": row.astype(np.int64),
        "weight": row.astype(np.float32).reshape(count, 1, 1, 1),
    }


@pytest.fixture
def folder(tmp_path):
    write_hdf5(tmp_path, arrays(0, 5), arrays(5, 2), arrays(7, 4))
    return tmp_path


def feed(folder, tops=TOPS, **options):
    return feed_of("HDF5Data", folder, tops=tops, source="list.txt", **options)


def labels(source, batches):
    return np.concatenate([source.batch(i)["label"] for i in range(batches)]).astype(int).tolist()


def test_one_top_for_each_dataset(folder):
    shapes = ((4, 2, 3), (4,), (4, 1, 1, 1))
    assert probe(feed(folder)) == shapes
    batch = open_source(feed(folder), 1).batch(1)
    assert {top: a.shape for top, a in batch.items()} == dict(zip(TOPS, shapes, strict=True))
    assert all(a.dtype == np.float32 for a in batch.values())
    for top in TOPS:  # over the ends of the first and of the second file
        assert batch[top].reshape(4, -1)[:, 0].tolist() == [4, 5, 6, 7]
    assert probe(feed(folder, tops=["weight"])) == shapes[2:]


def test_files_follow_each_other_round_and_round(folder):
    source = open_source(feed(folder), 1)
    assert labels(source, 11) == list(range(11)) * 4
    assert source.batch(9)["label"].tolist() == [(36 + i) % 11 for i in range(4)]


def test_shuffle_never_mixes_files(folder):
    found = labels(open_source(feed(folder, shuffle=True), 3), 110)
    passes = [found[i : i + 11] for i in range(0, len(found), 11)]
    homes = [[0] * 5, [1] * 2, [2] * 4]
    orders = set()
    for one in passes:
        assert sorted(one) == list(range(11))
        walked = [0 if row < 5 else 1 if row < 7 else 2 for row in one]
        order = tuple(dict.fromkeys(walked))
        assert walked == [home for file in order for home in homes[file]]
        orders.add(order)
    assert len(orders) > 2 and len({tuple(r for r in one if r < 5) for one in passes}) > 10
    assert labels(open_source(feed(folder, shuffle=True), 3), 11) == found[:44]
    assert labels(open_source(feed(folder, shuffle=True), 4), 11) != found[:44]


def replaced(name, array):
    return {**arrays(5, 2), name: array}


WRONG = [
    (replaced("label", np.zeros(3)), "holds 2 of 'data', 3 of 'label', 2 of 'weight'"),
    (replaced("data", np.zeros((2, 3, 3))), r"'data' is \(3, 3\) in '.*f1.h5', but \(2, 3\) in"),
    ({"data": np.zeros(2), "lable": np.zeros(2)}, "has no dataset 'label'(.|\n)*'lable'"),
    (replaced("label", np.array([b"a", b"b"])), "'label' of '.*f1.h5' holds .*S1"),
    (replaced("label", np.float32(3)), "'label' of '.*f1.h5' holds no rows"),
    (replaced("label", np.zeros(0)), "'label' of '.*f1.h5' holds no rows"),
]


@pytest.mark.parametrize(("second", "message"), WRONG)
def test_datasets_that_do_not_fit_are_located(tmp_path, second, message):
    write_hdf5(tmp_path, arrays(0, 5), second)
    message = rf"list.txt:2:1: error: .*{message}"
    with pytest.raises(SourceError, match=message):
        open_source(feed(tmp_path), 1)


def test_nan_is_found_when_it_is_read(tmp_path):
    write_hdf5(tmp_path, arrays(0, 5), {**arrays(5, 2), "weight": np.array([1, np.nan])[:, None]})
    source = open_source(feed(tmp_path, tops=["data", "label"]), 1)
    source.batch(1)  # nobody reads the weights
    write_hdf5(tmp_path, {**arrays(5, 2), "data": np.full((2, 2), np.inf)})
    source = open_source(feed(tmp_path), 1)
    with pytest.raises(SourceError, match="list.txt:1:1: error: 'data' of '.*f0.h5' holds NaN"):
        source.batch(0)


def test_broken_and_missing_files(tmp_path):
    write_hdf5(tmp_path, arrays(0, 5))
    (tmp_path / "bad.h5").write_bytes(b"nothing of that kind")
    (tmp_path / "list.txt").write_text("f0.h5\ngone.h5\n\nlost.h5\n")
    with pytest.raises(NetErrors, match="txt:2:1: error: .*'gone.h5'(.|\n)*txt:4:1: .*'lost.h5'"):
        open_source(feed(tmp_path), 1)
    (tmp_path / "list.txt").write_text("f0.h5\nbad.h5\n")
    with pytest.raises(SourceError, match="list.txt:2:1: error: cannot read '.*bad.h5'"):
        open_source(feed(tmp_path), 1)
    with pytest.raises(SourceError, match=r"3:5: .*'.*f0.h5' is no list\n.*text file"):
        probe(feed_of("HDF5Data", tmp_path, source="f0.h5"))
    with pytest.raises(SourceError, match="3:5: .*no file 'listt.txt'\n.*'list.txt'"):
        probe(feed_of("HDF5Data", tmp_path, source="listt.txt"))


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(BackendError, match="3:5: .*HDF5 files need the package h5py\n.*hdf5."):
        probe(feed(folder))
