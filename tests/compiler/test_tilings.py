"""Tables of tilings: what a file may hold, who overrules whom."""

from __future__ import annotations

import json
import warnings

import pytest

from compiler import tilings
from compiler.fingerprint import fingerprint
from compiler.tilings import Tilings, known, read
from tests.test_reuse import unit_of

FOUND = {"a": {"mr": 6, "nv": 4}, "b": {"mr": 1, "nv": 2}}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The user's folder and that of the package."""
    monkeypatch.setattr(tilings, "FOLDER", tmp_path / "user")
    monkeypatch.setattr(tilings, "_SHIPPED", tmp_path / "shipped")
    for name in ("user", "shipped"):
        (tmp_path / name).mkdir()
    return tmp_path / "user", tmp_path / "shipped"


def test_a_table_is_read_as_it_was_written(folders):
    (folders[0] / "cpu.json").write_text(Tilings("cpu", FOUND).text())
    assert known("cpu") == Tilings("cpu", FOUND)
    assert known("another") == Tilings("another")
    assert Tilings("cpu", FOUND).digest != Tilings("cpu", {"a": FOUND["a"]}).digest
    assert Tilings("cpu", FOUND).digest == Tilings("cpu", dict(reversed(FOUND.items()))).digest


def test_the_user_overrules_what_came_along(folders):
    (folders[1] / "cpu.json").write_text(Tilings("cpu", FOUND).text())
    (folders[0] / "cpu.json").write_text(Tilings("cpu", {"a": {"mr": 2, "nv": 2}}).text())
    assert known("cpu").found == {"a": {"mr": 2, "nv": 2}, "b": FOUND["b"]}


def test_there_need_not_be_a_table(folders, monkeypatch):
    assert known("cpu") == Tilings("cpu")
    monkeypatch.setattr(tilings, "FOLDER", None)
    assert known("cpu") == Tilings("cpu") and tilings.file_of("cpu") is None


@pytest.mark.parametrize(
    "content, reason",
    [
        ("", "damaged"),
        ("[]", "damaged"),
        (Tilings("cpu", FOUND).text()[:-9], "damaged"),
        (json.dumps({"device": "cpu", "tilings": []}), "damaged"),
        (json.dumps({"device": "cpu", "tilings": {"a": 3}}), "damaged"),
        (json.dumps({"device": "cpu", "tilings": {"a": {"mr": "6"}}}), "damaged"),
        (json.dumps({"tilings": {}}), "damaged"),
        ("\0\1", "damaged"),
        (Tilings("sm_90", FOUND).text(), "for sm_90"),
    ],
)
def test_a_file_that_is_none_is_warned_of_once(folders, content, reason):
    tilings._parsed.cache_clear()
    file = folders[0] / "cpu.json"
    file.write_text(content)
    with pytest.warns(UserWarning, match=f"cpu.json' is not used: it is {reason}"):
        assert read(file, "cpu") == Tilings("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(file, "cpu") == Tilings("cpu")


def test_a_table_is_a_part_of_what_a_program_is_kept_by():
    unit = unit_of()
    before = fingerprint(unit)
    unit.backend = unit.backend.tuned(Tilings("cpu", FOUND))
    after = fingerprint(unit)
    unit.backend = unit.backend.tuned(Tilings("cpu", {}))
    assert before == fingerprint(unit) != after
