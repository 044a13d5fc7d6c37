"""`netdef tune`: the table it writes, what it prints, its mistakes."""

from __future__ import annotations

import json
import warnings

import pytest

from compiler import tilings
from compiler.backends import get_backend
from netdef import tuning
from tests.test_tuning import made_up

HEADS = "of the model found ms ms found of it".split()


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A folder for tables, and a clock that needs no time."""
    monkeypatch.setattr(tilings, "FOLDER", tmp_path / "tables")
    monkeypatch.setattr(tuning, "kernel_seconds", made_up)
    return tmp_path / "tables"


@pytest.mark.parametrize("file", ["net.yaml", "solver.yaml"])
def test_a_table_for_this_machine(file, tiny, tables, netdef):
    result = netdef("tune", file, "--backend", "cpu", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    (table,) = tables.iterdir()
    found = json.loads(table.read_text())
    assert table.name == f"{found['device']}.json" and found["tilings"]
    assert get_backend("cpu").tilings.found == found["tilings"]
    lines = result.stdout.splitlines()
    assert lines[1].startswith("phase TRAIN, round 1 of ")
    assert "\nphase TEST, round 1 of" in result.stdout
    assert any(line.split() == ["kernel", "kernels", *HEADS] for line in lines)
    assert lines[-2].endswith(" contractions faster in other tiles") and str(table) in lines[-1]


def test_a_file_of_another_name(tiny, tables, netdef):
    assert netdef("tune", "net.yaml", "--backend", "cpu", "-o", "mine/t.json").exit_code == 0
    assert json.loads((tiny / "mine/t.json").read_text())["tilings"] and not tables.exists()


def test_ctrl_c_keeps_what_was_found(tiny, tables, netdef, monkeypatch):
    calls = []

    def stopped(exe):
        calls.append(exe)
        if len(calls) > 20:  # in the fourth round
            raise KeyboardInterrupt
        return made_up(exe)

    monkeypatch.setattr(tuning, "kernel_seconds", stopped)
    result = netdef("tune", "net.yaml", "--backend", "cpu")
    assert result.exit_code == 130 and "interrupted" in result.stderr
    (table,) = tables.iterdir()
    assert json.loads(table.read_text())["tilings"]


def test_a_net_without_contractions(tmp_path, netdef, tables):
    net = tmp_path / "net.yaml"
    net.write_text("layers:\n- {name: x, type: Input, shape: [3, 4]}\n- {name: y, type: ReLU}\n")
    result = netdef("tune", net, "--backend", "cpu")
    assert result.exit_code == 2
    assert f"{net}:1:1: error: net '' has no contraction" in result.stderr, result.stderr
    assert not tables.exists()


def test_a_backend_without_a_choice(tiny, tables, netdef):
    result = netdef("tune", "net.yaml", "--backend", "reference")
    assert result.exit_code == 2 and "the reference backend has no tilings" in result.stderr
    assert "hint: use --backend cpu" in result.stderr


def test_no_folder_for_caches(tiny, netdef, monkeypatch):
    monkeypatch.setattr(tilings, "FOLDER", None)
    result = netdef("tune", "net.yaml", "--backend", "cpu")
    assert result.exit_code == 2 and "hint: give -o a name" in result.stderr


def test_a_damaged_table_is_a_warning(tiny, tables, netdef):
    tables.mkdir()
    table = tables / f"{get_backend('cpu').tilings.device}.json"
    table.write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = netdef("time", "net.yaml", "--backend", "cpu", "--iterations", "1")
        assert result.exit_code == 0, result.stderr
        assert result.stderr.startswith(f"warning: '{table}' is not used: it is damaged")
        assert netdef("tune", "net.yaml", "--backend", "cpu").exit_code == 0
    assert json.loads(table.read_text())["tilings"]
