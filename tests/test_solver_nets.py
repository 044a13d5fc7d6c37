"""Which nets a solver trains and tests: files, inline nets, phases, stages, levels; Caffe's way."""

from __future__ import annotations

import numpy as np
import pytest

import netdef
from netdef.cli.checking import judge
from runtime.caffe_files import LayerWeights, caffemodel
from schemas.errors import NetError

DATA = """layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 }
    data_filler { type: "uniform" } data_filler { value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" %s
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" %s }
"""
NET = DATA % ("", "")
# Layers that only one state has; their names tell which nets were made.
STATES = "".join(
    f'layer {{ name: "{name}" type: "ReLU" bottom: "ip" top: "{name}" include {{ {rule} }} }}\n'
    for name, rule in {
        "one": 'stage: "one"',
        "two": 'stage: "two"',
        "both": 'stage: "one" stage: "two"',
        "neither": 'not_stage: "one" not_stage: "two"',
        "high": "min_level: 3",
        "low": "max_level: 2",
        "train": "phase: TRAIN",
        "test": "phase: TEST",
    }.items()
)
BASE = "base_lr: 0.1 max_iter: 2 random_seed: 3 "


def solver(folder, text, **others):
    for name, content in {"s": BASE + text, "n": NET + STATES, **others}.items():
        (folder / f"{name}.prototxt").write_text(content)
    return netdef.Solver(folder / "s.prototxt", backend="reference")


def marks(graph):
    return {layer.name for layer in graph.layers} - {"data", "ip", "loss"}


# Fields of a solver -> the marks of the net to train, and of each net to test.
SOLVERS = {
    "net": ('net: "n.prototxt"', {"neither", "low", "train"}, []),
    "net tested twice": (
        'net: "n.prototxt" test_iter: 1 test_iter: 2 test_interval: 1',
        {"neither", "low", "train"},
        [{"neither", "low", "test"}] * 2,
    ),
    "train_state": (
        'net: "n.prototxt" train_state { stage: "one" level: 3 } test_iter: 1 test_interval: 1',
        {"one", "high", "train"},
        [{"neither", "low", "test"}],
    ),
    "a test_state each": (
        'net: "n.prototxt" test_iter: 1 test_iter: 1 test_interval: 1 '
        'test_state { stage: "one" stage: "two" } test_state { level: 9 }',
        {"neither", "low", "train"},
        [{"one", "two", "both", "low", "test"}, {"neither", "high", "test"}],
    ),
    "train_net and test_net": (
        'train_net: "n.prototxt" test_net: "m.prototxt" test_iter: 1 test_interval: 1',
        {"neither", "low", "train"},
        [set()],
    ),
    "inline, files, then the net": (
        f"net_param {{ {NET} {STATES} }} test_net: 'm.prototxt' test_interval: 1 "
        f"test_net_param {{ {NET} {STATES} state {{ stage: 'two' }} }} "
        "test_iter: 1 test_iter: 1 test_iter: 1",
        {"neither", "low", "train"},
        [{"two", "low", "test"}, set(), {"neither", "low", "test"}],
    ),
    "train_net_param": (
        f"train_net_param {{ {NET} {STATES} state {{ stage: 'one' level: 5 }} }}",
        {"one", "high", "train"},
        [],
    ),
    "a net's state, below the solver's": (
        f"train_net_param {{ {NET} {STATES} state {{ stage: 'one' level: 5 }} }} "
        'train_state { stage: "two" level: 0 }',
        {"one", "two", "both", "low", "train"},
        [],
    ),
    "a state's phase": (
        'net: "n.prototxt" train_state { phase: TEST }',
        {"neither", "low", "test"},
        [],
    ),
}


@pytest.mark.parametrize("case", SOLVERS)
def test_the_nets_of_a_solver(case, tmp_path):
    text, train, tests = SOLVERS[case]
    made = solver(tmp_path, text, m=NET)
    assert marks(made.plan.train) == train
    assert [marks(graph) for graph in made.plan.tests] == tests
    made.step(1)
    for index in range(len(tests)):
        assert np.isfinite(made.test(index)["loss"])
    assert {"ip"} == set(made.net.params)


WRONG = {
    "two nets": ('net: "n.prototxt" train_net: "n.prototxt"', "'train_net' and 'net' both name"),
    "no test_iter": (
        'train_net: "n.prototxt" test_net: "n.prototxt"',
        "'test_net' without 'test_iter'",
    ),
    "more nets than test_iter": (
        'net: "n.prototxt" test_net: "n.prototxt" test_net: "n.prototxt" test_iter: 1 '
        "test_interval: 1",
        "2 test nets need 2 'test_iter', not 1",
    ),
    "too few states": (
        'net: "n.prototxt" test_iter: 1 test_iter: 1 test_interval: 1 test_state { level: 1 }',
        "1 'test_state' for 2 test nets",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_solvers_that_caffe_refuses(case, tmp_path):
    text, message = WRONG[case]
    with pytest.raises(NetError, match=message):
        solver(tmp_path, text)


def test_a_test_net_whose_weights_have_other_shapes(tmp_path):
    wide = NET.replace("dim: 3", "dim: 5")
    text = 'train_net: "n.prototxt" test_net: "m.prototxt" test_iter: 1 test_interval: 1'
    with pytest.raises(NetError, match=r"'ip/weight' \(2, 5\) of the test net is \(2, 3\) in") as e:
        solver(tmp_path, text, m=wide)
    assert e.value.span.file.endswith("m.prototxt") and e.value.span.line == 4
    assert judge(str(tmp_path / "s.prototxt"), {}).errors[0].message == e.value.message


def test_level_and_stage_on_the_command_line(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from netdef.cli import cli

    monkeypatch.chdir(tmp_path)
    solver(tmp_path, 'net: "n.prototxt"').close()
    words = ["--stage", "one,two", "--level", "3"]
    summary = CliRunner().invoke(cli, ["summary", "n.prototxt", "--phase", "TEST", *words])
    assert summary.exit_code == 0, summary.output
    for name in ("one", "two", "both", "high", "test"):
        assert f"\n{name} " in summary.stdout
    assert "\nlow " not in summary.stdout and "\nneither " not in summary.stdout
    options = [*words, "--backend", "reference", "--run-dir", "r", "--quiet"]
    trained = CliRunner().invoke(cli, ["train", "s.prototxt", *options])
    assert trained.exit_code == 0, trained.output
    config = (tmp_path / "r" / "solver.json").read_text()
    assert '"stages": [\n   "one",\n   "two"\n  ]' in config
    weights = "r/snapshot_iter_2.safetensors"
    test = ["test", "n.prototxt", "--weights", weights, "--iterations", "1"]
    tested = CliRunner().invoke(cli, [*test, *words, "--backend", "reference"])
    assert tested.exit_code == 0 and "both = " in tested.stdout


def test_levels_and_stages_of_the_api():
    net = netdef.load(text=NET + STATES, level=3, stages=["two"], backend="reference")
    assert marks(net.graph) == {"two", "high", "test"}


SHARED = """
input: "x"
input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 1
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" %s }
  inner_product_param { num_output: 4 bias_term: false } }
layer { name: "b" type: "InnerProduct" bottom: "%s" top: "b" param { name: "w" %s }
  inner_product_param { num_output: %d bias_term: false } }
"""


def test_shared_weights():
    net = netdef.load(text=SHARED % ("lr_mult: 2", "x", "", 4), backend="reference")
    info = net.graph.params["w"]
    assert (info.layer, info.lr_mult) == ("a", 2)
    loose = SHARED % ("", "a", "share_mode: PERMISSIVE", 12)  # (4, 12) and (12, 4)
    net = netdef.load(text=loose, backend="reference")
    weight = np.arange(48, dtype="f4").reshape(4, 12)
    net.params["a"]["weight"] = weight
    x = np.ones((2, 3, 4, 1), "f4")
    assert np.allclose(net.forward(x=x)["b"], x.reshape(2, 12) @ weight.T @ weight.reshape(12, 4).T)


@pytest.mark.parametrize(
    "text, message",
    [
        (SHARED % ("", "a", "", 12), r"'b'.*shares 'w' \(4, 12\) with layer 'a', but needs shape"),
        (SHARED % ("", "x", "share_mode: PERMISSIVE", 5), r"'b'.*shares 'w' \(4, 12\) with .*'a'"),
        (SHARED % ("lr_mult: 2", "x", "lr_mult: 3", 4), r"lr_mult 3 of shared 'w' differs from 2"),
    ],
)
def test_weights_that_cannot_be_shared(text, message):
    with pytest.raises(NetError, match=message) as caught:
        netdef.load(text=text, backend="reference")
    assert caught.value.span.line == 6


def test_any_top_may_have_a_loss_weight():
    def gradient(text):
        net = netdef.load(text=text, phase="TRAIN", backend="reference")
        net.params["ip"]["weight"] = np.arange(6, dtype="f4").reshape(2, 3)
        rng = np.random.default_rng(0)
        net.forward(data=rng.random((4, 3), "f4"), label=np.ones(4, "f4"))
        net.backward()
        return np.array(net.grads["ip"]["weight"])

    plain, double = gradient(DATA % ("", "")), gradient(DATA % ("", "loss_weight: 2"))
    assert np.allclose(double, 2 * plain)
    # The sum of the scores is part of the loss: its gradient is that of each score, 0.5.
    both = gradient(DATA % ("loss_weight: 0.5", ""))
    data = np.random.default_rng(0).random((4, 3), "f4")
    assert np.allclose(both - plain, 0.5 * data.sum(0), atol=1e-6)


def test_multipliers_of_rate_and_decay(tmp_path):
    still = (DATA % ("param { lr_mult: 0 } param { lr_mult: 3 decay_mult: 0 }", ""), "")
    made = solver(tmp_path, 'net: "n.prototxt" weight_decay: 0.5', n=still[0])
    before = made.weights()
    made.net.forward()
    made.step(1)
    after = made.weights()
    assert np.array_equal(before["ip/weight"], after["ip/weight"])
    assert not np.array_equal(before["ip/bias"], after["ip/bias"])
    fast = solver(tmp_path, 'net: "n.prototxt"', n=DATA % ("param {} param { lr_mult: 6 }", ""))
    fast.step(1)
    assert np.allclose(fast.weights()["ip/bias"], 2 * after["ip/bias"], rtol=1e-5)


def test_weights_of_several_files(tmp_path):
    def weights(layer, value):
        blobs = {0: np.full((2, 3), value, "f4"), 1: np.zeros(2, "f4")}
        path = tmp_path / f"{layer}.caffemodel"
        path.write_bytes(caffemodel("", [LayerWeights(layer, "InnerProduct", blobs)]))
        return path

    net = NET.replace('name: "loss"', 'name: "loss" loss_weight: 1') + (
        'layer { name: "ip2" type: "InnerProduct" bottom: "data" top: "ip2"\n'
        "  inner_product_param { num_output: 2 } }\n"
    )
    first, second = weights("ip", 1), weights("ip2", 2)
    named = solver(tmp_path, f'net: "n.prototxt" weights: "{first}, {second}"', n=net)
    given = netdef.Solver(
        tmp_path / "s.prototxt", backend="reference", weights=[f"{second}", f"{first}"]
    )
    for one in (named, given):
        assert {k: a.flat[0] for k, a in one.weights().items() if k.endswith("weight")} == {
            "ip/weight": 1,
            "ip2/weight": 2,
        }


@pytest.mark.parametrize(
    "fields, written",
    [
        ("snapshot: 2", ["2"]),
        ("snapshot: 1", ["1", "2"]),
        ("", ["2"]),
        ("snapshot_after_train: false", []),
        ("snapshot: 2 snapshot_after_train: false", ["2"]),
    ],
)
def test_snapshots_during_and_after_training(fields, written, tmp_path):
    made = solver(tmp_path, f'net: "n.prototxt" snapshot_prefix: "{tmp_path}/x" {fields}')
    assert made.run() and made.iteration == 2
    found = sorted(p.stem for p in tmp_path.glob("x_iter_*.json"))
    assert found == [f"x_iter_{number}" for number in written]
    assert made.run() and made.iteration == 2  # max_iter counts from the beginning


def test_debug_info_is_said_to_do_nothing(tmp_path):
    made = solver(tmp_path, 'net: "n.prototxt" debug_info: true')
    assert [w.message for w in made.spec.warnings] == ["'debug_info' prints nothing here"]
