"""Text: characters as classes, streams that go on from batch to batch, a part for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.data import open_source, probe
from runtime.data.text import CLASSES, VOCABULARY, TextSource, encode
from schemas.errors import SourceError
from schemas.params import Feed
from schemas.span import Span

LETTERS = "".join(chr(ord("a") + i * i % 26) for i in range(1000))


def opened(
    source: object, phase: str = "TRAIN", count: int = 4, steps: int = 5, tops: int = 3
) -> TextSource:
    names = ("data", "label", "cont")[:tops]
    options = {"source": str(source), "batch_size": count, "steps": steps}
    shapes = ((steps, count),) * tops
    feed = Feed("text", "TextData", names, shapes, options, phase, Span("net.yaml", 3, 3))
    assert probe(feed) == shapes
    found = open_source(feed, 1)
    assert isinstance(found, TextSource)
    return found


def text_of(codes: Any) -> str:
    return "".join(VOCABULARY[int(code) - 1] for code in codes)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    (tmp_path / "letters.txt").write_text(LETTERS)
    return tmp_path / "letters.txt"


def test_every_character_of_the_vocabulary_has_its_class() -> None:
    assert CLASSES == 98
    assert encode(VOCABULARY).tolist() == list(range(1, CLASSES))
    assert encode("\t\n ~").tolist() == [1, 2, 3, 97]


def test_any_other_character_is_class_0_and_one_character() -> None:
    assert encode("aé€😀\x07b").tolist() == [*encode("a"), 0, 0, 0, 0, *encode("b")]
    assert encode("a\r\nb").tolist() == encode("a\nb").tolist()


def test_streams_go_on_from_batch_to_batch(letters: Path) -> None:
    source = opened(letters)
    streams = np.concatenate([source.batch(i)["data"] for i in range(20)])
    length = 899 // 4  # of 900 characters for TRAIN, one of them behind the last
    for n in range(4):
        assert text_of(streams[:, n]) == LETTERS[n * length : n * length + 100]


def test_labels_are_the_next_characters(letters: Path) -> None:
    source = opened(letters)
    one, two = source.batch(3), source.batch(4)
    np.testing.assert_array_equal(one["label"][:-1], one["data"][1:])
    np.testing.assert_array_equal(one["label"][-1], two["data"][0])


def test_a_stream_begins_again_at_its_end_and_says_so(letters: Path) -> None:
    source = opened(letters)
    assert source.length == 224
    batches = [source.batch(i) for i in range(46)]
    data, label, cont = (np.concatenate([b[top] for b in batches]) for top in source.shapes)
    assert np.flatnonzero(cont[:, 0] == 0).tolist() == [0, 224]
    assert set(np.unique(cont)) == {0, 1}
    np.testing.assert_array_equal(data[224:], data[:6])
    assert text_of(label[223]) == "".join(LETTERS[224 * (n + 1)] for n in range(4))


def test_a_batch_depends_on_its_number_alone(letters: Path) -> None:
    one, other = opened(letters), opened(letters)
    expected = [one.batch(i) for i in range(60)]
    for i in (59, 7, 10**12):
        batch = other.batch(i)
        want = expected[i] if i < 60 else one.batch(i)
        for top, array in batch.items():
            np.testing.assert_array_equal(array, want[top])
            assert array.dtype == np.float32 and array.flags.c_contiguous


def test_the_last_tenth_is_for_tests(letters: Path) -> None:
    train, test = opened(letters), opened(letters, "TEST")
    assert text_of(train.codes) + text_of(test.codes) == LETTERS
    assert len(test.codes) == 100


def test_pythons_own_library_is_long_and_python() -> None:
    source = opened("stdlib", count=2, steps=2000, tops=2)
    assert len(source.codes) > 3_000_000
    text = text_of(np.maximum(source.batch(40)["data"][:, 0], 1))
    assert "self" in text and "\n    " in text


def test_a_folder_is_all_of_its_files(tmp_path: Path) -> None:
    for name, text in {"b.txt": "two " * 50, "a/x": "one " * 50, ".hidden": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    both = text_of(opened(tmp_path).codes) + text_of(opened(tmp_path, "TEST").codes)
    assert both == "one " * 50 + "two " * 50


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file or folder 'it.txt'"),
        (b"", "is empty"),
        (b"a\0b" * 100, "is no text file"),
        (b"short", "its text for TRAIN has 5 characters; 4 streams of 5 steps need 21"),
    ],
)
def test_what_cannot_be_read_is_located(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "it.txt").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        opened("it.txt")
    assert message in str(caught.value) and "layer 'text' (TextData)" in str(caught.value)
    assert caught.value.span == Span("net.yaml", 3, 3)
