"""The folder of one run: where it is, its configuration, what a resumed run must match."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from netdef.solver import Solver
from netdef.spec_text import net_yaml
from runtime.caffe_resume import is_solverstate
from runtime.files import write_whole
from runtime.monitor import METRICS, Monitor, Outputs, new_run_folder
from runtime.snapshot import find_snapshot
from schemas.errors import SnapshotError, UsageError

CONFIG = "solver.json"
# Fields that may change between the parts of a run and leave what was computed so far as it is.
_FREE = {
    *("max_iter", "display", "snapshot", "snapshot_prefix", "snapshot_after_train", "weights"),
    *("random_seed", "debug_info", "file", "test_interval", "test_iters", "test_initialization"),
}


class Recording(Monitor):
    """A monitor that remembers the last test of the first test net, for the closing line."""

    last_test = ""
    tested_at = -1

    def test(self, iteration: int, net: int, outputs: Outputs) -> None:
        super().test(iteration, net, outputs)
        if net == 0:
            self.tested_at = iteration
            # Many numbers (one output a class) do not belong in one line.
            single = {k: v for k, v in outputs.items() if isinstance(v, float)}
            self.last_test = ", ".join(f"{k} = {v:.4g}" for k, v in single.items())


def open_folder(
    solver: Solver, resume: str | None, name: str | None
) -> tuple[Path, list[SnapshotError]]:
    """Makes the run's folder, or finds that of the snapshot to go on from and restores it.

    Returns the folder and what differs from the run that wrote the snapshot. Raises NetError
    before anything is written.
    """
    if resume is None:
        title = solver.plan.train.name or Path(solver.spec.file).stem
        folder = new_run_folder(title, Path(name).name, Path(name).parent) if name else None
        folder = folder or new_run_folder(title)
        solver.record_to(folder)
        return folder, []
    caffe = is_solverstate(Path(resume))
    stem = Path(resume) if caffe else find_snapshot(Path(resume))
    solver.restore(stem)
    is_run = not caffe and any((stem.parent / file).exists() for file in (METRICS, CONFIG))
    found = Path(name) if name else stem.parent if is_run else None
    if found is None:
        found = new_run_folder(solver.plan.train.name or Path(solver.spec.file).stem)
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {found}: {error.strerror or error}") from None
    solver.record_to(found)
    solver.monitor.rewind(solver.iteration)
    return found, _differences(solver, found)


def write_record(solver: Solver, folder: Path) -> None:
    """Writes the resolved solver and the nets, overrides included."""
    solver.monitor.write_config(solver.resolved(), CONFIG)
    for file, text in _nets(solver).items():
        write_whole(folder / file, text.encode())


def last_snapshot(solver: Solver) -> Path | None:
    """Returns the stem of the snapshot of the present iteration, if there is one."""
    stem = Path(f"{solver.snapshot_prefix}_iter_{solver.iteration}")
    return stem if stem.with_name(stem.name + ".json").is_file() else None


def _nets(solver: Solver) -> dict[str, str]:
    plan = solver.plan
    texts = [net_yaml(graph.spec) for graph in (plan.train, *plan.tests)]
    if len(set(texts)) == 1:
        return {"net.yaml": texts[0]}
    numbered = {f"test_net_{i}.yaml": text for i, text in enumerate(texts[1:])}
    return {"train_net.yaml": texts[0], **numbered}


def _differences(solver: Solver, folder: Path) -> list[SnapshotError]:
    """Returns why the run will not go on exactly as it would have without a stop."""
    before = _read(folder / CONFIG)
    if before is None:
        return []
    now = json.loads(json.dumps(solver.resolved()))
    changed = [
        f"{key} was {before[key]} and is {now[key]} now"
        for key in now
        if key in before and key not in _FREE and before[key] != now[key] and not _path(key)
    ]
    for file, text in _nets(solver).items():
        old = folder / file
        if old.is_file() and old.read_text(encoding="utf-8") != text:
            changed.append(f"the net differs from {old}")
    if not changed:
        return []
    message = "the run goes on, but not exactly as it would have: "
    return [SnapshotError(message + "; ".join(changed))]


def _path(key: str) -> bool:
    """Returns whether a field names a file: what is in the files is compared instead."""
    return key in ("net", "train_net", "test_nets")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
