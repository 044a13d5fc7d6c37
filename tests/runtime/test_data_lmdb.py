"""Data layers on LMDB: Datums of every kind, order, epochs, damage."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from runtime.data import RecordSource, open_source, probe
from runtime.data.datum import datum, read_datum
from runtime.protobuf import chunk, integer
from schemas.errors import BackendError, NetError, SourceError
from tests.runtime import wire_oracle
from tests.runtime.data_files import encoded, feed_of, images, write_lmdb

IMAGES = images(5, 3, 4, 6)
GREY = images(1, 1, 4, 6)[0]


def opened(folder, seed=1, **options):
    source = open_source(feed_of("Data", folder, source="db", **options), seed)
    assert isinstance(source, RecordSource)
    return source


@pytest.mark.parametrize(
    ("record", "want"),
    [
        (datum(IMAGES[0], 7), IMAGES[0]),
        (datum(IMAGES[0] / 4 - 9, 7), (IMAGES[0] / 4 - 9).astype(np.float32)),
        (datum(encoded(IMAGES[0]), 7), IMAGES[0]),
        (datum(encoded(IMAGES[0], "BMP"), 7), IMAGES[0]),
        (datum(encoded(GREY), 7), GREY),
    ],
    ids=["uint8", "float", "png", "bmp", "grey"],
)
def test_datum(record, want):
    item = read_datum(record)
    assert item.label == 7 and item.data.dtype == want.dtype and np.array_equal(item.data, want)


@pytest.mark.parametrize("fields", ["data", "float_data", "encoded"])
def test_datum_is_what_protobuf_writes_and_reads(fields):
    message = wire_oracle.messages()["Datum"]
    theirs = message(channels=3, height=4, width=6, label=-2)
    if fields == "float_data":
        theirs.float_data.extend((IMAGES[0] / 4).ravel().tolist())
        ours = datum(IMAGES[0] / 4, -2)
    elif fields == "data":
        theirs.data = IMAGES[0].tobytes()
        ours = datum(IMAGES[0], -2)
    else:
        theirs = message(label=-2, data=encoded(IMAGES[0]), encoded=True)
        ours = datum(encoded(IMAGES[0]), -2)
    assert message.FromString(ours) == theirs
    item = read_datum(theirs.SerializeToString())
    assert item.label == -2
    assert np.array_equal(item.data, IMAGES[0] / 4 if fields == "float_data" else IMAGES[0])


def test_packed_floats_are_read():
    values = np.arange(6, dtype="<f4")
    head = integer(1, 1) + integer(2, 2) + integer(3, 3)
    assert read_datum(head + b"".join(chunk(6, values.tobytes()))).data.tolist() == [
        [[0, 1, 2], [3, 4, 5]]
    ]


def test_order_of_keys_and_epochs(tmp_path):
    keys = ["b", "a", "aa", "c", "ab"]  # written in another order than LMDB keeps
    write_lmdb(tmp_path / "db", {k: datum(IMAGES[i], i) for i, k in enumerate(keys)})
    source = opened(tmp_path)
    assert source.shapes == {"data": (4, 3, 4, 6), "label": (4,)}
    order = [1, 2, 4, 0, 3]
    labels = np.concatenate([source.batch(i)["label"] for i in range(5)])
    assert labels.tolist() == order * 4  # batches of 4 lie across the ends of passes of 5
    batch = source.batch(1)["data"]
    assert batch.dtype == np.float32 and np.array_equal(batch, IMAGES[[3, 1, 2, 4]])
    assert np.array_equal(opened(tmp_path).batch(1)["data"], batch)  # and no history


def test_one_top_has_no_labels(tmp_path):
    write_lmdb(tmp_path / "db", [datum(one) for one in IMAGES])
    feed = feed_of("Data", tmp_path, tops=["data"], source="db")
    source = open_source(feed, 1)
    assert probe(feed) == ((4, 3, 4, 6),) and list(source.batch(0)) == ["data"]


def test_rand_skip_and_shuffle(tmp_path):
    write_lmdb(tmp_path / "db", [datum(images(1, 1, 2, 2)[0], i) for i in range(40)])
    first = {int(opened(tmp_path, s, rand_skip=9).batch(0)["label"][0]) for s in range(90)}
    assert first == set(range(9))
    shuffled = opened(tmp_path, shuffle=True)
    once = np.concatenate([shuffled.batch(i)["label"] for i in range(10)])
    again = np.concatenate([shuffled.batch(i)["label"] for i in range(10, 20)])
    assert sorted(once) == sorted(again) == list(range(40)) and once.tolist() != again.tolist()


@pytest.mark.parametrize(
    ("options", "channels"),
    [({}, 1), ({"force_color": True}, 3), ({"force_encoded_color": True}, 3)],
)
def test_channels_of_encoded_pictures(tmp_path, options, channels):
    write_lmdb(tmp_path / "db", [datum(encoded(GREY))])
    source = opened(tmp_path, **options)
    assert source.shapes["data"] == (4, channels, 4, 6)
    assert np.array_equal(source.batch(0)["data"][0], np.broadcast_to(GREY, (channels, 4, 6)))


def test_force_gray(tmp_path):
    write_lmdb(tmp_path / "db", [datum(encoded(IMAGES[0]))])
    blue, green, red = IMAGES[0].astype(float)
    grey = opened(tmp_path, force_gray=True).batch(0)["data"][0, 0]
    assert np.abs(grey - (0.114 * blue + 0.587 * green + 0.299 * red)).max() <= 0.51


def test_force_gray_leaves_raw_items_alone(tmp_path):
    write_lmdb(tmp_path / "db", [datum(IMAGES[0])])
    assert opened(tmp_path, force_gray=True).shapes["data"] == (4, 3, 4, 6)


def test_items_of_several_sizes_meet_in_a_crop(tmp_path):
    sizes = [(4, 6), (8, 4), (5, 5)]
    items = [images(1, 3, *size)[0] for size in sizes]
    write_lmdb(tmp_path / "db", [datum(item) for item in items])
    batch = opened(tmp_path, crop_size=3, phase="TEST", batch_size=3).batch(0)["data"]
    for got, item, (top, left) in zip(batch, items, [(0, 1), (2, 0), (1, 1)], strict=True):
        assert np.array_equal(got, item[:, top : top + 3, left : left + 3])
    with pytest.raises(SourceError, match=r"record '00000001' .* is 3x8x4, but the first is 3x4x6"):
        opened(tmp_path).batch(0)
    with pytest.raises(SourceError, match="'00000001' .* is 3x8x4: less than crop_size 5"):
        write_lmdb(tmp_path / "db", [datum(images(1, 3, 9, 9)[0])])
        opened(tmp_path, crop_size=5).batch(0)


def test_train_and_test_share_a_database(tmp_path):
    write_lmdb(tmp_path / "db", [datum(one, i) for i, one in enumerate(IMAGES)])
    both = [opened(tmp_path, phase=phase) for phase in ("TRAIN", "TEST")]
    assert both[0].records.database is both[1].records.database
    assert np.array_equal(both[0].batch(3)["data"], both[1].batch(3)["data"])


def test_a_database_that_was_replaced_is_another(tmp_path):
    write_lmdb(tmp_path / "db", [datum(one, 1) for one in IMAGES])
    old = opened(tmp_path)
    (tmp_path / "db").rename(tmp_path / "old")
    write_lmdb(tmp_path / "db", [datum(one, 2) for one in IMAGES])
    assert opened(tmp_path).batch(0)["label"].tolist() == [2] * 4
    assert old.batch(0)["label"].tolist() == [1] * 4


WHOLE = datum(IMAGES[0])
DAMAGED = [
    (WHOLE[:-9], "it is no Datum: field 4 has 72 bytes"),
    (b"\xff" * 20, "it is no Datum"),
    (b"", "it holds 0 values for 0x0x0 pixels"),
    (integer(1, 3) + WHOLE + integer(2, 9), "it holds 72 values for 3x9x6 pixels"),
    (datum(encoded(IMAGES[0])[:60]), "truncated|cannot identify|broken"),
    (datum(b"no picture"), "cannot identify image"),
    (integer(7, 1), "holds no picture"),
]


@pytest.mark.parametrize(("record", "message"), DAMAGED)
def test_damaged_records_are_named(tmp_path, record, message):
    write_lmdb(tmp_path / "db", {"a": WHOLE, "the bad one": record})
    with pytest.raises(SourceError, match=rf"net.yaml:3:5: .*'the bad one'.*({message})"):
        opened(tmp_path).batch(0)


def test_what_is_no_lmdb(tmp_path):
    for name in ("level", "empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "level/CURRENT").write_text("MANIFEST-000001\n")
    (tmp_path / "broken/data.mdb").write_bytes(b"nothing" * 5000)
    cases = {
        "level": "'.*level' is a LevelDB.*\n.*LMDB",
        "empty": "'empty' is not a data source\n.*LMDB folder",
        "broken": "cannot read the database '.*broken'",
        "leveld": "'leveld' is not a data source\n.*did you mean 'level'",
    }
    for name, message in cases.items():
        with pytest.raises(SourceError, match=rf"net.yaml:3:5: .*{message}"):
            probe(feed_of("Data", tmp_path, source=name))
    write_lmdb(tmp_path / "none", [])
    with pytest.raises(SourceError, match="'.*none' holds no records"):
        probe(feed_of("Data", tmp_path, source="none"))


@pytest.mark.parametrize(
    ("module", "extra"), [("lmdb", "netdef.lmdb."), ("PIL.Image", "netdef.pillow.")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, module, extra):
    write_lmdb(tmp_path / "db", [datum(encoded(IMAGES[0]))])
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(BackendError, match=extra) as caught:
        probe(feed_of("Data", tmp_path, source="db"))
    assert isinstance(caught.value, NetError)
    assert bool(caught.value.span) == (module == "lmdb")  # a record does not know its layer


def test_the_program_of_the_docs_makes_a_data_set(tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(program.replace("2**40", "2**24"), {})
    source = open_source(feed_of("Data", tmp_path, source="my_lmdb"), 1)
    assert source.shapes["data"] == (4, 3, 32, 32)
    assert source.batch(1)["label"].tolist() == [4, 5, 6, 7]


def test_wrong_items_are_refused():
    with pytest.raises(ValueError, match=r"this one is \(4, 6\)"):
        datum(IMAGES[0, 0])
