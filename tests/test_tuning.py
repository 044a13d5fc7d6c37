"""The search for tilings, with a made-up clock: what it finds, what it writes, what stops it."""

from __future__ import annotations

import hashlib
import importlib.util

import numpy as np
import pytest

from compiler import tilings
from compiler.tilings import Tilings, read
from netdef import tuning
from netdef.engine import Engine, open_engine
from netdef.formats import read_net
from netdef.stepping import step_of
from netdef.tuning import Search, kernel_seconds, merge
from schemas.errors import BackendError

NET = """
name: small
layers:
- {name: data, type: DummyData, top: [data, label], shape: [[8, 2, 9, 9], [8]]}
- {name: conv, type: Convolution, bottom: data, num_output: 20, kernel_size: 3}
- {name: relu, type: ReLU, top: conv}
- {name: ip, type: InnerProduct, num_output: 17}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


def made_up(exe) -> dict[str, float]:
    """Seconds that follow from a kernel's text alone."""
    text = exe.program.text
    return {
        k.name: 1 + int(hashlib.sha256(_text(text, k.name).encode()).hexdigest()[:4], 16) / 65536
        for launch in exe.program.launches
        for k in launch.kernels
    }


def _text(texts, name: str) -> str:
    found = texts.get(f"{name}.ll") or texts.get(f"{name}.py", "")
    if found.startswith("; k"):  # the function of another kernel
        found = texts[found.split("see ")[1].strip()]
    return found


@pytest.fixture
def engine():
    made = open_engine("cpu", threads=1)
    yield made
    made.close()


def search_of(engine: Engine, clock=made_up, phase="TRAIN", seen=()) -> Search:
    step, arena, *_ = step_of(read_net(text=NET, format="yaml"), phase)
    return Search(engine, step, arena, clock, seen)


def test_the_fastest_is_found(engine):
    search = search_of(engine)
    rounds = sum(1 for _ in search.run())
    assert rounds == search.rounds > 1
    model, backend = search._backend, engine.backend
    assert len(search.contractions) >= 3 and search.found()
    kernels = {k.name: k for k in search._unit.schedule.kernels()}
    for key, c in search.contractions.items():
        texts = [
            backend.tuned(Tilings(model.tilings.device, {key: t})).render(kernels[c.kernels[0]])
            for t in c.tunable.tilings
        ]
        assert len(set(texts)) == len(texts)
        if c.best is not None:
            assert c.best in c.tunable.tilings[1:] and c.after < tuning.WORTH * c.before


def test_what_was_found_is_what_the_next_net_has(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(tilings, "FOLDER", tmp_path)
    search = search_of(engine)
    list(search.run())
    device = engine.backend.tilings.device
    merge(tilings.file_of(device), device, search.contractions)
    after = open_engine("cpu", threads=2)
    assert after.backend.tilings.found == search.found()
    step, arena, *_ = step_of(read_net(text=NET, format="yaml"), "TRAIN")
    results = []
    for one in (engine, after):
        exe = one.load(step, arena)
        tuning.fill_inputs(exe, step.graph.first)
        for _ in range(3):
            exe.run()
        results.append([exe.read(name) for name in ("loss", "conv/weight", "ip/weight")])
        texts = {name: exe.program.text[name] for name in ("conv.ll", "ip.ll", "d(conv/weight).ll")}
        results.append(texts)
    after.close()
    assert results[1] != results[3]
    for before, now in zip(results[0], results[2], strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_table_keeps_what_others_found(engine, tmp_path):
    file, device = tmp_path / "deep" / "t.json", engine.backend.tilings.device
    search = search_of(engine, lambda exe: dict.fromkeys(made_up(exe), 1.0))
    list(search.run())
    assert search.found() == {}  # all are as fast as the model's
    key = next(iter(search.contractions))
    merge(file, device, {})
    file.write_text(Tilings(device, {"other": {"mr": 1}, key: {"mr": 2}}).text())
    merge(file, device, search.contractions)
    assert read(file, device).found == {"other": {"mr": 1}}
    assert [path.name for path in file.parent.iterdir()] == ["t.json"]  # and nothing temporary


def test_luck_has_to_come_twice(engine):
    calls = []

    def lucky(exe):
        """The first other program seems fast, when it is seen for the first time."""
        calls.append(exe.program)
        fast = len(calls) <= 6 and exe.program is not calls[0]
        return dict.fromkeys(made_up(exe), 0.5 if fast else 1.0)

    search = search_of(engine, lucky)
    counts = [len(search.found()) for _ in search.run()]
    assert counts[0] == counts[-2] == len(search.contractions) and counts[-1] == 0


def test_what_was_searched_is_not_searched_again(engine):
    train = search_of(engine)
    test = search_of(engine, phase="TEST", seen=train.contractions.keys())
    again = search_of(engine, seen=train.contractions.keys())
    assert not test.contractions.keys() & train.contractions.keys()
    assert again.contractions == {} and again.rounds == 0 and list(again.run()) == []


def test_kernels_are_timed_where_they_are_used(engine):
    search = search_of(engine, kernel_seconds)
    exe = search._load(search._program)
    seconds = kernel_seconds(exe)
    assert all(seconds[name] > 0 for c in search.contractions.values() for name in c.kernels)
    exe.close()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_a_search_of_tiles_of_triton():
    engine = open_engine("triton", target="interpreter")
    search = search_of(engine)
    list(search.run())
    found = search.found()
    assert found and all(set(t) == {"m", "n", "k", "stages", "warps"} for t in found.values())
    engine.close()


@pytest.mark.parametrize("name, target", [("reference", None), ("triton", "interpreter")])
def test_backends_without_a_choice(name, target):
    if target is None or importlib.util.find_spec("triton") is not None:
        with pytest.raises(BackendError, match=f"the {name} backend has no"):
            tuning.clock_of(open_engine(name, target))
