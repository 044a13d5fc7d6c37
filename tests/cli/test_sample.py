"""`netdef sample`: text from a net of characters, by seed and temperature, and what it refuses."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from netdef.formats import read_net
from netdef.interrupts import INTERRUPTED
from netdef.net import Net
from netdef.sampling import drawn, open_sampler
from runtime.data.text import VOCABULARY, encode
from schemas.errors import NetError
from tests.cli.conftest import process

NET = """\
name: chars
layers:
- {name: data, type: TextData, top: [data, label], source: fable.txt, batch_size: 4, steps: 10}
- {name: embed, type: Embed, bottom: data, input_dim: 98, num_output: 12, weight_filler: xavier}
- {name: lstm, type: LSTM, num_output: 24, weight_filler: xavier}
- {name: scores, type: InnerProduct, axis: 2, num_output: 98, weight_filler: xavier}
- {name: loss, type: SoftmaxWithLoss, axis: 2, bottom: [scores, label]}
"""
SOLVER = """\
net: net.yaml
type: Adam
momentum: 0.9
base_lr: 0.02
clip_gradients: 5
max_iter: 150
display: 149
test_iter: 2
test_interval: 50
random_seed: 3
"""
FABLE = "the fox and the grapes. " * 40


@pytest.fixture(scope="module")
def fox(tmp_path_factory):
    """A folder with a net that has learned one sentence, and its snapshot in `run`."""
    folder = tmp_path_factory.mktemp("fox")
    for name, text in {"net.yaml": NET, "solver.yaml": SOLVER, "fable.txt": FABLE}.items():
        (folder / name).write_text(text)
    with process("train", "solver.yaml", "--run-dir", "run", "--threads", 1, cwd=folder) as train:
        said, wrong = train.communicate(timeout=120)
    assert train.returncode == 0, wrong
    return folder, said


@pytest.fixture
def there(fox, monkeypatch):
    monkeypatch.chdir(fox[0])
    return fox[0]


def losses(said):
    lines = [line for line in said.splitlines() if ", loss = " in line and "lr" in line]
    return [float(line.split("loss = ")[1].split(",")[0]) for line in lines]


def test_a_short_training_lowers_the_loss(fox):
    first, last = losses(fox[1])[0], losses(fox[1])[-1]
    assert first > 4 and last < 1
    assert "perplexity = " in fox[1]


def test_the_text_follows_the_prompt(there, netdef):
    result = netdef("sample", "run", "--prompt", "the fox and", "--length", 30, "--temperature", 0)
    assert result.exit_code == 0
    assert result.stdout == (FABLE * 2)[: len("the fox and") + 30] + "\n"


def test_a_seed_is_a_text(there, netdef):
    def text(*more):
        return netdef("sample", "run", "--length", 60, "--temperature", 1.5, *more).stdout

    assert text("--seed", 5) == text("--seed", 5) != text("--seed", 6)
    assert len(text()) == 60 + 1


def test_a_net_with_its_weights_gives_what_its_snapshot_gives(there, netdef):
    (weights,) = (there / "run").glob("*.safetensors")
    one = netdef("sample", "net.yaml", "--weights", weights, "--length", 40)
    assert one.stdout == netdef("sample", weights, "--length", 40).stdout
    assert one.exit_code == 0 and len(one.stdout) == 41


def test_the_state_is_carried_from_character_to_character(there):
    """One step at a time gives what the whole text gives at once."""
    (weights,) = (there / "run").glob("*.safetensors")
    spec = read_net(there / "net.yaml")
    sampler = open_sampler(spec, "reference")
    sampler.net.load_weights(weights)
    codes = encode("the fox and")
    one = [sampler._step(int(code), False) for code in codes]
    shape = (len(codes), 1)
    whole = Net(spec, backend="reference", deploy=True, inputs={"data": shape})
    whole.load_weights(weights)
    prob = whole.forward(data=codes.reshape(shape).astype(float))["prob"]
    np.testing.assert_allclose(np.stack(one), prob[:, 0], atol=1e-12)


def test_marks_of_a_beginning_are_fed(tmp_path):
    text = NET.replace("[data, label]", "[data, label, begins]")
    text = text.replace(
        "{name: lstm, type: LSTM,", "{name: lstm, type: LSTM, bottom: [embed, begins],"
    )
    (tmp_path / "net.yaml").write_text(text)
    sampler = open_sampler(read_net(tmp_path / "net.yaml"), "reference")
    assert sampler.marks == ("begins",)
    first = "".join(sampler.characters(20))
    assert "".join(sampler.characters(20)) == first  # begun anew, whatever was written before
    assert set(first) <= set(VOCABULARY)


def test_drawing_follows_the_temperature():
    p = np.array([0.1, 0.6, 0.3, 0.0])
    even = np.linspace(0, 1, 1000, endpoint=False)
    shares = {t: np.bincount([drawn(p, t, u) for u in even], minlength=4) / 1000 for t in (0.5, 1)}
    np.testing.assert_allclose(shares[1], p, atol=2e-3)
    np.testing.assert_allclose(shares[0.5], p**2 / np.sum(p**2), atol=2e-3)
    assert {drawn(p, t, u) for t in (0, 1e-9) for u in even} == {1}
    assert drawn(p, 1, 1 - 2**-24) == 2  # what has no probability is never drawn


LSTM = "{name: lstm, type: LSTM,"
OTHER = "{name: other, type: Input, shape: [1, 1, 24]}"
# What is wrong with a net, and the change that makes it so.
CHANGED = {
    "has no TextData layer": ("type: TextData", "phase: TRAIN, type: TextData"),
    "has no softmax over the 98 classes": ("SoftmaxWithLoss, axis: 2", "EuclideanLoss"),
    "its state does not go on from batch to batch: initial: learned": (
        LSTM,
        LSTM.replace("lstm", "early") + " num_output: 12, initial: learned}\n- " + LSTM,
    ),
    "reads characters that are still to come": (LSTM, f"{LSTM} reverse: true,"),
    "has inputs beside its text: other": (
        "- {name: scores,",
        f"- {OTHER}\n- {{name: both, type: Eltwise, bottom: [lstm, other]}}\n- {{name: scores,",
    ),
}


@pytest.mark.parametrize("message", CHANGED)
def test_nets_that_cannot_be_sampled(tmp_path, message):
    assert CHANGED[message][0] in NET
    (tmp_path / "net.yaml").write_text(NET.replace(*CHANGED[message]))
    with pytest.raises(NetError) as caught:
        open_sampler(read_net(tmp_path / "net.yaml"), "reference")
    assert message in str(caught.value)
    assert "net.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("net.yaml",), "'net.yaml' has no weights"),
        (("nothing.yaml", "--weights", "w.safetensors"), "nothing.yaml"),
        (("run", "--prompt", "naïve"), r"characters outside of the vocabulary: '\xef'"),
        (("run", "--temperature", "nan"), "the temperature must be 0 or more, not nan"),
        (("run", "--temperature", "-1"), "-1"),
        (("run", "--length", "0"), "0"),
    ],
)
def test_mistakes_are_one_message(there, netdef, words, message):
    result = netdef("sample", *words)
    assert (result.exit_code, result.stdout.strip()) == (2, "")
    assert message in result.stderr and "Traceback" not in result.stderr


def test_ctrl_c_ends_it_quietly(there):
    with process("sample", "run", "--length", 10**6, "--threads", 1, cwd=there) as sample:
        assert sample.stdout is not None
        assert len(sample.stdout.read(20)) == 20  # text comes as it is drawn
        sample.send_signal(signal.SIGINT)
        _, wrong = sample.communicate(timeout=60)
    assert (sample.returncode, wrong) == (INTERRUPTED, "")
