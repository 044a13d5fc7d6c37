"""Snapshots: whole or refused, whatever happens to their files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import files
from runtime.snapshot import (
    Snapshot,
    check_snapshot,
    check_writable,
    default_prefix,
    find_snapshot,
    read_snapshot,
    write_snapshot,
)
from schemas.errors import NetError, SnapshotError
from schemas.solver import SolverSpec

ONE = Snapshot(
    "Adam",
    100,
    2**64 - 1,
    {"ip/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.float32(3)[...]},
    {"train/data": 25, "test0/data": 4},
    (0.1, 1 / 3),
    7,
)


def test_round_trip(tmp_path: Path) -> None:
    stem = tmp_path / "deep" / "a_lr0.5_iter_100"
    manifest = write_snapshot(stem, ONE)
    assert manifest.name == "a_lr0.5_iter_100.json"
    assert sorted(os.listdir(stem.parent)) == [f"{stem.name}.json", f"{stem.name}.safetensors"]
    for path in (stem, manifest, Path(f"{stem}.safetensors"), stem.parent):
        back = read_snapshot(path)
        assert replace(back, tensors={}) == replace(ONE, tensors={})
        assert back.tensors.keys() == ONE.tensors.keys()
        for key, array in ONE.tensors.items():
            assert back.tensors[key].shape == array.shape
            assert np.array_equal(back.tensors[key], array)


def test_the_last_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "solver.json").write_text("{}")
    for n in (900, 1000):
        write_snapshot(tmp_path / f"a_iter_{n}", replace(ONE, iteration=n))
    write_snapshot(tmp_path / "a_iter_2000", replace(ONE, iteration=2000))
    (tmp_path / "a_iter_2000.safetensors").unlink()
    assert find_snapshot(tmp_path) == tmp_path / "a_iter_1000"
    with pytest.raises(SnapshotError, match=r"no snapshot .*a_iter_90\n  hint: .*a_iter_900"):
        read_snapshot(tmp_path / "a_iter_90")
    with pytest.raises(SnapshotError, match="there is no snapshot in"):
        (tmp_path / "empty").mkdir()
        read_snapshot(tmp_path / "empty")
    write_snapshot(tmp_path / "runs/one/a_iter_5", ONE)
    with pytest.raises(SnapshotError) as caught:
        find_snapshot(tmp_path / "runs")
    assert caught.value.hint == f"it holds runs: {tmp_path / 'runs/one'}"


def test_crash_between_the_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "a_iter_1", tmp_path / "a_iter_2"
    write_snapshot(old, ONE)
    rename = os.replace

    def crash(source: Any, target: Any) -> None:
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_snapshot(new, replace(ONE, iteration=2))
    with pytest.raises(SnapshotError, match=r"no manifest: .* interrupted\n  hint: .*a_iter_1"):
        read_snapshot(new)
    # The same name again: the old manifest does not vouch for the new arrays.
    with pytest.raises(KeyboardInterrupt):
        write_snapshot(old, replace(ONE, tensors={"ip/weight": np.ones((2, 3), np.float32)}))
    with pytest.raises(SnapshotError, match="bytes|is not the file"):
        read_snapshot(old)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = tmp_path / "a"
    write_snapshot(stem, ONE)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(SnapshotError, match="cannot write snapshot .*: No space left"):
        write_snapshot(stem, replace(ONE, iteration=5))
    assert read_snapshot(stem).iteration == 100
    assert len(os.listdir(tmp_path)) == 2


def damage(stem: Path, **changes: Any) -> None:
    manifest = Path(f"{stem}.json")
    fields = json.loads(manifest.read_text())
    fields.update(changes)
    manifest.write_text(json.dumps({k: v for k, v in fields.items() if v != "gone"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not the manifest of a snapshot"),
        ({"version": 9}, "has version 9; this netdef reads 1"),
        ({"iteration": -1}, "'iteration' is -1"),
        ({"iteration": True}, "'iteration' is True"),
        ({"iteration": "gone"}, "'iteration' is None"),
        ({"seed": 1.5}, "'seed' is 1.5"),
        ({"solver": None}, "'solver' is None"),
        ({"positions": [1]}, "'positions' is"),
        ({"positions": {"train/data": "x"}}, "wrong positions or losses"),
        ({"losses": ["x"]}, "wrong positions or losses"),
        ({"losses": [float("nan")]}, "wrong positions or losses"),
        ({"bytes": 1}, "but its manifest says 1"),
        ({"sha256": "0" * 64}, "is not the file that a.json was written for"),
        ({"metrics": None}, "'metrics' is None"),
    ],
)
def test_wrong_manifests(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_snapshot(tmp_path / "a", ONE)
    damage(tmp_path / "a", **changes)
    with pytest.raises(SnapshotError, match=message):
        read_snapshot(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100000, b"[1]", b"null"])
def test_garbage_manifests(tmp_path: Path, content: bytes) -> None:
    write_snapshot(tmp_path / "a", ONE)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SnapshotError, match="damaged|not the manifest"):
        read_snapshot(tmp_path / "a")


def test_damaged_arrays(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "a", ONE)
    path = tmp_path / "a.safetensors"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1], "has 183 bytes" if len(whole) == 184 else "bytes, but its manifest"),
        (whole[:-1] + b"x", "is not the file"),
    ):
        path.write_bytes(content)
        with pytest.raises(SnapshotError, match=message):
            read_snapshot(tmp_path / "a")
    path.unlink()
    with pytest.raises(SnapshotError, match="a.safetensors is missing"):
        read_snapshot(tmp_path / "a")
    import hashlib

    garbage = b"\x80\x04garbage, or a pickle"
    path.write_bytes(garbage)
    damage(tmp_path / "a", bytes=len(garbage), sha256=hashlib.sha256(garbage).hexdigest())
    with pytest.raises(SnapshotError, match="it is not a safetensors file"):
        read_snapshot(tmp_path / "a")


def test_a_snapshot_of_another_run() -> None:
    shapes = {"ip/weight": (3, 2), "ip/bias": (2,)}
    with pytest.raises(NetError) as caught:
        check_snapshot(ONE, "SGD", shapes, "a")
    text = str(caught.value)
    assert "a was written by solver Adam; this one is SGD" in text
    assert "'ip/weight' has shape (3, 2) in the net and (2, 3) in a" in text
    assert "a has no 'ip/bias', which the net needs" in text
    assert "a holds 'n', which the net does not have" in text
    check_snapshot(ONE, "Adam", {"ip/weight": (2, 3), "n": ()}, "a")


def test_prefix_and_permission(tmp_path: Path) -> None:
    spec = SolverSpec(file="nets/lenet/solver.yaml")
    assert default_prefix(spec, None) == Path("nets/lenet/solver")
    assert default_prefix(spec, tmp_path) == tmp_path / "snapshot"
    assert default_prefix(replace(spec, snapshot_prefix="x/y"), tmp_path) == Path("x/y")
    assert default_prefix(replace(spec, snapshot_prefix="x/"), None) == Path("x/solver")
    assert default_prefix(replace(spec, snapshot_prefix=str(tmp_path)), None).parent == tmp_path
    check_writable(tmp_path / "new" / "a")
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(SnapshotError, match="cannot write snapshots to"):
        check_writable(tmp_path / "file" / "a")
