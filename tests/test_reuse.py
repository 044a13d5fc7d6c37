"""What was compiled before is read, not compiled; whatever changes the Program changes the key."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

import netdef
from compiler import fingerprint as fingerprints
from compiler import reuse
from compiler.backends import get_backend
from compiler.cache import Cache
from compiler.fingerprint import fingerprint
from compiler.frontend.build import build
from compiler.ir.graph import Graph
from compiler.passes.arena import plan_arena
from compiler.passes.update import Step, train_step
from compiler.pipeline import compile_unit
from compiler.unit import Unit
from netdef.formats import read_net
from schemas.program import written_out
from schemas.solver import SolverSpec

NET = """
name: small
layers:
- {name: data, type: Input, top: data, shape: [4, 2, 6, 6]}
- {name: label, type: Input, top: label, shape: [4]}
- name: conv
  type: Convolution
  bottom: data
  num_output: 3
  kernel_size: 3
  weight_filler: {type: xavier}
- {name: relu, type: ReLU, top: conv}
- {name: drop, type: Dropout, top: conv, dropout_ratio: 0.25}
- {name: ip, type: InnerProduct, num_output: 5, weight_filler: xavier}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""
SGD = SolverSpec(momentum=0.9, weight_decay=1e-3)


def unit_of(text: str = NET, solver: SolverSpec | None = SGD, target: str | None = None) -> Unit:
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    step = train_step(graph, arena, solver) if solver else Step(graph)
    return Unit(step.graph, arena, get_backend("cpu", target), step.names, step.tables)


@pytest.fixture
def passes(monkeypatch, tmp_path):
    """Keeps programs in a folder of the test's own and counts those that the passes make."""
    made = []

    def count(unit):
        made.append(unit)
        return compile_unit(unit)

    monkeypatch.setattr(reuse, "PROGRAMS", Cache(tmp_path / "programs"))
    monkeypatch.setattr("compiler.pipeline.compile_unit", count)
    return made


def test_a_program_that_was_read_is_the_one_that_was_compiled(passes):
    first = reuse.compile_or_load(unit_of())
    second = reuse.compile_or_load(unit_of())
    assert len(passes) == 1
    assert second == first and second is not first


def test_a_net_from_the_cache_computes_the_same(passes):
    x = np.random.default_rng(0).normal(size=(4, 2, 6, 6)).astype(np.float32)
    results = []
    for _ in range(2):
        net = netdef.load(text=NET, format="yaml", phase="TEST", backend="cpu")
        results.append(net.forward(data=x, label=np.zeros(4))["loss"])
        net.close()
    assert len(passes) == 1
    np.testing.assert_array_equal(*results)


def test_multipliers_of_blobs_are_kept_as_runs(passes):
    text = NET.replace("num_output: 3", "num_output: 3\n  param: [{lr_mult: 1}, {lr_mult: 2}]")
    text = text.replace("num_output: 5", "num_output: 5, param: [{lr_mult: 2}]")
    first = reuse.compile_or_load(unit_of(text))
    # Rows of 16 numbers: conv has 54 and 3, ip 240 and 5.
    assert first.initial == {"lr_mult": ((1.0, 4), (2.0, 1 + 15), (1.0, 1))}
    assert written_out(first.initial["lr_mult"]).tolist() == [1] * 4 + [2] * 16 + [1]
    assert reuse.compile_or_load(unit_of(text)) == first
    assert reuse.compile_or_load(unit_of(text.replace("lr_mult: 2", "lr_mult: 3"))) != first
    assert len(passes) == 2


@pytest.mark.parametrize(
    "damage",
    [lambda old: old[:-5], lambda old: b"", lambda old: old[:99] + b"\0" + old[100:]],
    ids=["truncated", "empty", "corrupted"],
)
def test_a_damaged_entry_is_written_anew(passes, damage):
    first = reuse.compile_or_load(unit_of())
    (entry,) = reuse.PROGRAMS.folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert reuse.compile_or_load(unit_of()) == first
    assert len(passes) == 2
    assert entry.read_bytes() == whole


def test_an_entry_of_another_format_is_written_anew(passes):
    first = reuse.compile_or_load(unit_of())
    (entry,) = reuse.PROGRAMS.folder.iterdir()
    reuse.PROGRAMS.save({entry.name: b"from another time"})
    assert reuse.compile_or_load(unit_of()) == first
    assert len(passes) == 2


def test_without_a_folder_nothing_is_kept(passes, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (None, tmp_path / "file" / "x"):
        monkeypatch.setattr(reuse, "PROGRAMS", Cache(folder))
        assert reuse.compile_or_load(unit_of()) == reuse.compile_or_load(unit_of())
    assert len(passes) == 4


CHANGES = {
    "a number of a layer": (NET.replace("num_output: 3", "num_output: 4"), SGD),
    "a batch": (NET.replace("[4", "[5"), SGD),
    "a ratio": (NET.replace("0.25", "0.5"), SGD),
    "a blob's name": (NET.replace("ip", "fc"), SGD),
    "a filler": (NET.replace("xavier", "msra"), SGD),
    "a line": ("\n" + NET, SGD),
    "the net's name": (NET.replace("small", "large"), SGD),
    "a rate's factor": (NET.replace("num_output: 5", "num_output: 5, param: [{lr_mult: 2}]"), SGD),
    "the solver's rule": (NET, replace(SGD, type="Adam")),
    "the solver's decay": (NET, replace(SGD, weight_decay=2e-3)),
    "no solver": (NET, None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_program_changes_the_key(change):
    assert fingerprint(unit_of(*CHANGES[change])) != fingerprint(unit_of())
    assert fingerprint(unit_of()) == fingerprint(unit_of())


def test_the_text_of_a_line_is_part_of_the_key():
    """It is shown in messages about a blob."""
    assert fingerprint(
        unit_of(NET.replace("5, weight_filler: xavier}", "5, weight_filler: xavier}  # why"))
    ) != fingerprint(unit_of())


def test_every_field_of_a_graph_is_part_of_the_key():
    """But what it was read from: a field that is new must not be forgotten."""
    known = fingerprint(unit_of())
    for field in fields(Graph):
        unit = unit_of()
        value = getattr(unit.graph, field.name)
        if isinstance(value, dict):
            value["more"] = "more"
        elif isinstance(value, (list, tuple)):
            setattr(unit.graph, field.name, (*value, "more"))
        else:
            setattr(unit.graph, field.name, "more")
        same = fingerprint(unit) == known
        assert same == (field.name in ("spec", "warnings")), field.name


def test_another_python_of_the_same_version_has_the_same_key(monkeypatch):
    """A program that was compiled on one machine is found on another, and in another folder."""
    known = fingerprint(unit_of())
    monkeypatch.setattr(sys, "version", f"{sys.version} of another day")
    assert fingerprint(unit_of()) == known
    minor = SimpleNamespace(major=3, minor=sys.version_info.minor + 1)
    monkeypatch.setattr(sys, "version_info", minor)
    assert fingerprint(unit_of()) != known


def test_processors_compilers_and_libraries_have_keys_of_their_own(monkeypatch):
    keys = {fingerprint(unit_of()), fingerprint(unit_of(target="x86-64-v2"))}
    unit = unit_of()
    unit.backend.host = replace(unit.backend.host, features="+other")
    keys.add(fingerprint(unit))
    with monkeypatch.context() as patch:
        patch.setattr("compiler.backends.cpu.version", lambda: "another LLVM")
        keys.add(fingerprint(unit_of()))
    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "source_digest", lambda: "another compiler")
        keys.add(fingerprint(unit_of()))
    monkeypatch.setattr(np, "__version__", "0.0")
    keys.add(fingerprint(unit_of()))
    assert len(keys) == 6


def test_the_digest_of_the_source_follows_it(monkeypatch, tmp_path):
    file = tmp_path / "compiler" / "fingerprint.py"
    (tmp_path / "schemas").mkdir()
    file.parent.mkdir()
    monkeypatch.setattr(fingerprints, "__file__", str(file))
    digest = fingerprints.source_digest.__wrapped__
    found = [digest()]
    for text in ("one", "two"):
        file.write_text(text)
        found.append(digest())
    (tmp_path / "schemas" / "new.py").write_text("")
    found.append(digest())
    assert found[0] is None and len(set(found)) == 4


def test_a_compiler_without_source_keeps_nothing(passes, monkeypatch):
    monkeypatch.setattr(fingerprints, "source_digest", lambda: None)
    assert reuse.compile_or_load(unit_of()) == reuse.compile_or_load(unit_of())
    assert len(passes) == 2 and not reuse.PROGRAMS.folder.exists()
