"""The recurrent nets that are shipped: their counts, pages, compiled steps, and what they learn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import netdef
from compiler.frontend.build import build
from compiler.summary import summarize
from netdef.formats import read_net, read_solver
from netdef.inspecting import Inspection
from netdef.stepping import step_of
from runtime.data import probe
from tests.nets.sequences import SEQUENCES

ROOT = Path(__file__).parent.parent.parent
NETS = ROOT / "nets"
FILES = [NETS / name / "net.yaml" for name in SEQUENCES] + [NETS / "adding_problem" / "rnn.yaml"]
SHORT = ["max_iter=30", "test_interval=1000", "lr_policy=fixed", "warmup_iter=0"]


@pytest.mark.parametrize("name", SEQUENCES)
def test_counts(name: str) -> None:
    parameters, macs, items = SEQUENCES[name]
    for phase in ("TRAIN", "TEST"):
        graph = build(read_net(NETS / name / "net.yaml"), phase, probe=probe)
        assert graph.loss is not None and not graph.warnings
        assert summarize(graph).parameters == parameters
    assert summarize(graph).macs == macs * items


@pytest.mark.parametrize("name", SEQUENCES)
def test_an_item_of_a_summary_is_a_sequence(name: str) -> None:
    _, macs, items = SEQUENCES[name]
    graph = build(read_net(NETS / name / "net.yaml"), "TEST", probe=probe)
    steps = 50 if name == "char_rnn" else 1  # its table counts characters
    found = summarize(graph)
    assert (found.batch, found.macs_an_item) == (items // steps, macs * steps)


@pytest.mark.parametrize("name", SEQUENCES)
def test_pages_tell_the_counts(name: str) -> None:
    told = [f"{count:,}" for count in SEQUENCES[name][:2]]
    page = (NETS / name / "README.md").read_text()
    table = (ROOT / "docs" / "nets.md").read_text()
    (row,) = re.findall(rf"^\| \[{name}\]\(\.\./nets/{name}/README\.md\) \|.*\|$", table, re.M)
    assert all(count in page and f" {count} |" in row for count in told)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_training_step_compiles(path: Path) -> None:
    step, arena, phase, warnings = step_of(read_net(path))
    inspection = Inspection(read_net(path), step, arena, "cpu")
    inspection.run("fuse")
    assert phase == "TRAIN" and not warnings
    assert 0 < len(inspection.unit.kernels) < len(inspection.unit.graph.nodes()) / 2


def test_both_nets_of_the_adding_problem_have_the_same_budget() -> None:
    one, other = (read_solver(NETS / "adding_problem" / f"solver{n}.yaml") for n in ("", "_rnn"))
    assert (one.net, other.net) == ("net.yaml", "rnn.yaml")
    same = ("base_lr", "type", "max_iter", "random_seed", "clip_gradients", "lr_policy")
    assert all(getattr(one, field) == getattr(other, field) for field in same)


# Small enough to be quick: fewer streams and units leave the nets what they are.
LEARNS = {
    "char_rnn": [
        "data.batch_size=8",
        "data.steps=20",
        "lstm1.num_output=32",
        "lstm2.num_output=32",
    ],
    "seq_digits": ["digits.batch_size=32"],
    "tdnn_siamese": ["data.batch_size=32"],
    "copy_memory": ["gru.num_output=32", "data.batch_size=16"],
}


@pytest.mark.parametrize("name", LEARNS)
def test_a_short_training_lowers_the_loss(name: str) -> None:
    sets = [*SHORT, *LEARNS[name]]
    solver = netdef.Solver(NETS / name / "solver.yaml", backend="cpu", threads=1, sets=sets)
    before = solver.test()["loss"]
    solver.step(30)
    assert solver.test()["loss"] < 0.9 * before
    solver.close()
