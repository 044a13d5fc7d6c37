"""First values, weight files, and assignment by layer name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.fillers import fill
from runtime.params import Blobs, assign_weights, initialise, read_weights
from runtime.weights import load_weights, save_weights, write_weight_file
from schemas.errors import NetError, SourceError
from schemas.params import ParamInfo, StateInfo
from schemas.program import Program
from tests.runtime.fake import FakeExecutable, feed_of


class Holder(FakeExecutable):
    """Any blobs; cannot run."""

    def __init__(self, params: dict[str, tuple[int, ...]], states: dict[str, Any] | None = None):
        super().__init__("step", feed_of("TRAIN"))
        infos = [ParamInfo(k, *k.split("/"), s) for k, s in params.items()]  # type: ignore[call-arg]
        kept = [StateInfo(k, s, 1.0) for k, s in (states or {}).items()]
        one = self.program.tensors["ip/weight"]
        tensors = {i.key: replace(one, shape=i.shape) for i in (*infos, *kept)}
        self.program: Program = replace(
            self.program, params=tuple(infos), states=tuple(kept), tensors=tensors
        )
        self.memory = {k: np.zeros(t.shape, np.float32) for k, t in tensors.items()}


NET = {"conv/weight": (4, 3), "conv/bias": (4,), "ip/weight": (2, 4)}
STATES = {"bn/mean": (4,), "momentum": (32,)}


def test_initialise() -> None:
    exe = Holder(NET, STATES)
    initialise(exe, 3)
    assert np.array_equal(exe.read("ip/weight"), fill(exe.program.params[2], 3))
    assert exe.read("bn/mean").tolist() == [1, 1, 1, 1]
    assert set(read_weights(exe)) == {*NET, "bn/mean"}  # no history
    assert set(Blobs([exe, exe]).read()) == {*NET, "bn/mean", "history:momentum"}


def test_file_round_trip(tmp_path: Path) -> None:
    one, two = Holder(NET, STATES), Holder(NET, STATES)
    for key in NET:
        one.write(key, np.random.default_rng(0).random(NET[key]))
    save_weights(one, tmp_path / "new" / "w.safetensors")
    assert load_weights(two, tmp_path / "new" / "w.safetensors") == []
    assert all(np.array_equal(one.read(k), two.read(k)) for k in NET)
    assert assign_weights(Holder(NET, STATES), read_weights(one), "one") == []


def test_layers_of_one_side_only() -> None:
    exe = Holder(NET)
    weights = {
        "conv/weight": np.ones((4, 3)),
        "history:momentum": np.ones(32),  # of a snapshot's file
        "conv/bias": np.ones((1, 1, 1, 4)),  # as old Caffe files have it
        "fc8/weight": np.ones((9, 9)),
    }
    assert assign_weights(exe, weights, "w") == [
        "w: layer 'fc8' ignored: not in the net",
        "layer 'ip' keeps its first values: not in w",
    ]
    assert exe.read("conv/bias").tolist() == [1, 1, 1, 1] and not exe.read("ip/weight").any()


def test_layers_that_do_not_fit_change_nothing() -> None:
    exe = Holder(NET)
    weights = {
        "ip/weight": np.ones((2, 4)),
        "conv/weight": np.ones((4, 5)),
        "conv/scale": np.ones(4),
    }
    with pytest.raises(NetError) as caught:
        assign_weights(exe, weights, "w")
    text = str(caught.value)
    assert "'conv/weight' has shape (4, 3) in the net and (4, 5) in w" in text
    assert "give it a name other than 'conv'" in text
    assert "w holds 'conv/scale', which layer 'conv' of the net does not have" in text
    assert "w has layer 'conv' without its blob 'conv/bias'" in text
    assert not exe.read("ip/weight").any()


def test_states_of_another_shape_are_left_alone() -> None:
    exe = Holder(NET, {"rnn/h": (4, 2)})
    weights = {**read_weights(exe), "rnn/h": np.full((2, 4), 7)}
    (warning,) = assign_weights(exe, weights, "w")
    assert warning == "'rnn/h' has shape (4, 2) in the net and (2, 4) in w: not loaded"
    assert not exe.read("rnn/h").any()


def test_what_a_batch_leaves_to_the_next_is_no_weight() -> None:
    exe = Holder(NET)
    carried = StateInfo("rnn/h", (4,), carried=True)
    exe.program = replace(exe.program, states=(carried,))
    assert set(read_weights(exe)) == set(NET)
    assert set(Blobs([exe]).shapes) == {*NET, "history:rnn/h"}  # a snapshot has it


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    exe = Holder(NET)
    write_weight_file(tmp_path / "w.safetensors", {"x": np.ones(3)})
    with pytest.raises(SourceError, match=r"no weight file .*\n.*did you mean '.*w.safetensors'"):
        load_weights(exe, tmp_path / "ww.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(SourceError, match="it is not a safetensors file"):
        load_weights(exe, tmp_path / "w.safetensors")
    with pytest.raises(SourceError, match="cannot read"):
        load_weights(exe, tmp_path)
    with pytest.raises(SourceError, match="cannot write"):
        save_weights(exe, tmp_path / "w.safetensors" / "x")
