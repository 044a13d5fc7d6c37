"""Snapshots: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from runtime.files import decode_arrays, encode_arrays, write_in_order
from schemas.errors import Diagnostics, SnapshotError, near
from schemas.solver import SolverSpec

Array = np.ndarray[Any, Any]
T = TypeVar("T")
FORMAT = "netdef-snapshot"
VERSION = 1


@dataclass(frozen=True)
class Snapshot:
    """The state of a training run between two iterations.

    `tensors` are the learned blobs and all states by key; `positions` the number of the next batch
    of each data layer (`train/data`, `test0/data`); `losses` the window of the displayed mean;
    `metrics` the number of lines written to the run's metrics.
    """

    solver: str
    iteration: int
    seed: int
    tensors: Mapping[str, Array]
    positions: Mapping[str, int] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    metrics: int = 0


def write_snapshot(stem: Path, snapshot: Snapshot) -> Path:
    """Writes STEM.safetensors, then STEM.json, and returns the path of the second, the manifest.

    A crash leaves the earlier pair, the new pair, or a pair whose checksum tells that it is none.
    Raises SnapshotError.
    """
    arrays, manifest = _pair(stem)
    content = encode_arrays(snapshot.tensors)
    described = {
        key: {"shape": list(a.shape), "dtype": str(a.dtype)} for key, a in snapshot.tensors.items()
    }
    text = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "netdef": _own_version(),
            "solver": snapshot.solver,
            "iteration": snapshot.iteration,
            "seed": snapshot.seed,
            "positions": dict(snapshot.positions),
            "losses": list(snapshot.losses),
            "metrics": snapshot.metrics,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "tensors": described,
        },
        indent=1,
        allow_nan=False,
    )
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        write_in_order({arrays: content, manifest: text.encode()})
    except OSError as error:
        raise SnapshotError(f"cannot write snapshot {stem}: {error.strerror or error}") from None
    return manifest


def read_snapshot(path: Path) -> Snapshot:
    """Reads a snapshot by its stem, one of its two files, or a folder (the last one in it).

    Raises SnapshotError for anything but a whole, unchanged snapshot.
    """
    stem = find_snapshot(path)
    arrays, manifest = _pair(stem)
    fields = _manifest(manifest)
    try:
        content = arrays.read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot read {arrays}: {error.strerror or error}") from None
    if len(content) != fields.get("bytes"):
        message = f"{arrays} has {len(content)} bytes, but its manifest says {fields.get('bytes')}"
        raise SnapshotError(message, hint=_earlier(stem))
    if hashlib.sha256(content).hexdigest() != fields.get("sha256"):
        message = f"{arrays} is not the file that {manifest.name} was written for"
        raise SnapshotError(message, hint=_earlier(stem))
    try:
        tensors = decode_arrays(content)
    except ValueError as error:
        raise SnapshotError(f"cannot use {arrays}: {error}") from None
    positions = _get(fields, "positions", dict, manifest)
    losses = _get(fields, "losses", list, manifest)
    whole = all(_is_count(p) for p in positions.values())
    if not whole or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in losses):
        raise SnapshotError(f"{manifest} is damaged: wrong positions or losses")
    return Snapshot(
        _get(fields, "solver", str, manifest),
        _count(fields, "iteration", manifest),
        _count(fields, "seed", manifest),
        tensors,
        positions,
        tuple(float(x) for x in losses),
        _count(fields, "metrics", manifest),
    )


def check_snapshot(
    snapshot: Snapshot, solver: str, shapes: Mapping[str, tuple[int, ...]], origin: str
) -> None:
    """Raises SnapshotErrors, all at once, unless the snapshot is one of this solver and net.

    `shapes` are those of the learned blobs and states by key.
    """
    diagnostics = Diagnostics()
    if snapshot.solver != solver:
        message = f"{origin} was written by solver {snapshot.solver}; this one is {solver}"
        hint = "to start another solver from these weights, use --weights instead of --resume"
        diagnostics.error(SnapshotError(message, hint=hint))
    for key, shape in shapes.items():
        found = snapshot.tensors.get(key)
        if found is None:
            diagnostics.error(SnapshotError(f"{origin} has no '{key}', which the net needs"))
        elif found.shape != shape:
            message = f"'{key}' has shape {shape} in the net and {found.shape} in {origin}"
            diagnostics.error(SnapshotError(message))
    for key in snapshot.tensors.keys() - shapes.keys():
        diagnostics.error(SnapshotError(f"{origin} holds '{key}', which the net does not have"))
    diagnostics.raise_if_any()


def find_snapshot(path: Path) -> Path:
    """Returns the stem of the snapshot that a path means. Raises SnapshotError if there is none."""
    if path.is_dir():
        found = {int(_manifest(m)["iteration"]): m for m in _manifests(path)}
        if not found:
            raise SnapshotError(f"there is no snapshot in {path}", hint=_runs(path))
        return _stem(found[max(found)])
    stem = _stem(path)
    arrays, manifest = _pair(stem)
    if manifest.is_file() and arrays.is_file():
        return stem
    if arrays.is_file():
        message = f"{arrays} has no manifest: a weight file, or a snapshot that was interrupted"
        raise SnapshotError(message, hint=_earlier(stem) or f"--weights {arrays} loads it")
    if manifest.is_file():
        raise SnapshotError(f"{manifest} is there, but {arrays.name} is missing")
    raise SnapshotError(f"there is no snapshot {stem}", hint=_earlier(stem))


def check_writable(stem: Path) -> None:
    """Raises SnapshotError unless snapshots can be written beside `stem`; asked before training."""
    probe = stem.with_name(f".{stem.name}.probe")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        message = f"cannot write snapshots to {stem.parent}: {error.strerror or error}"
        raise SnapshotError(message, hint="choose another snapshot_prefix") from None


def default_prefix(spec: SolverSpec, folder: Path | None) -> Path:
    """Returns where snapshots go: `snapshot_prefix`, else the run folder, else beside the file.

    As in Caffe, a prefix that is a folder gets the name of the solver file.
    """
    own = Path(spec.file).with_suffix("")
    if spec.snapshot_prefix:
        given = Path(spec.snapshot_prefix)
        is_folder = given.is_dir() or spec.snapshot_prefix.endswith(("/", "\\"))
        return given / own.name if is_folder else given
    return folder / "snapshot" if folder else own


def _pair(stem: Path) -> tuple[Path, Path]:
    # Not with_suffix: it would cut `a_lr0.5`.
    return Path(f"{stem}.safetensors"), Path(f"{stem}.json")


def _stem(path: Path) -> Path:
    return Path(re.sub(r"\.(safetensors|json)$", "", os.fspath(path)))


def _manifest(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise SnapshotError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise SnapshotError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise SnapshotError(f"{path} is not the manifest of a snapshot")
    if fields.get("version") != VERSION:
        message = f"{path} has version {fields.get('version')}; this netdef reads {VERSION}"
        raise SnapshotError(message)
    _count(fields, "iteration", path)
    return fields


def _manifests(folder: Path) -> list[Path]:
    """Returns the manifests of complete snapshots in a folder, in order of their names."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            _manifest(path)
        except SnapshotError:
            continue  # solver.json, or damaged
        if _pair(_stem(path))[0].is_file():
            found.append(path)
    return found


def _earlier(stem: Path) -> str | None:
    """Returns a hint that names other snapshots of the folder, the likeliest first."""
    names = [_stem(m).name for m in _manifests(stem.parent)] if stem.parent.is_dir() else []
    others = [name for name in names if name != stem.name]
    if not others:
        return None
    return f"there is {stem.with_name(near(stem.name, others) or others[-1])}"


def _runs(folder: Path) -> str | None:
    """Returns a hint that names the run folders within a folder, the latest first."""
    inner = [path for path in folder.iterdir() if path.is_dir() and _manifests(path)]
    latest = sorted(inner, key=lambda path: (path.stat().st_mtime, path.name), reverse=True)[:3]
    return f"it holds runs: {', '.join(map(str, latest))}" if latest else None


def _get(fields: Mapping[str, Any], name: str, kind: type[T], path: Path) -> T:
    value = fields.get(name)
    if not isinstance(value, kind):
        raise SnapshotError(f"{path} is damaged: '{name}' is {value!r:.40}")
    return value


def _count(fields: Mapping[str, Any], name: str, path: Path) -> int:
    value = fields.get(name)
    if not _is_count(value):
        raise SnapshotError(f"{path} is damaged: '{name}' is {value!r:.40}")
    return int(fields[name])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _own_version() -> str:
    from importlib import metadata  # slow to load, and only a snapshot needs it

    try:
        return metadata.version("netdef")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
