"""The bench: rounds, table, JSON, peers that are missing or fail; never a time."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from bench import report
from bench.__main__ import main
from bench.cases import CASES, ROOT, STATIC_CASES, Case, Mode, case_of, flops, net_spec, rates
from bench.measure import Comparison, Options, Result, compare, difference
from bench.peer import Job, decode, encode
from bench.plain_net import Layer, plain_net
from bench.side import LeftOut, Side
from bench.startup import measure
from compiler.frontend.build import build

FAKE = "tests.bench.fakes:Fake:"
CASE = case_of("mlp", 2)
QUICK = Options(threads=1, rounds=2, seconds=0.0, timeout=60.0)


def say_nothing(text: str) -> None:
    """Takes what would be printed."""


def names(*flavours: str) -> list[str]:
    return [FAKE + flavour for flavour in flavours]


def short(case: Case) -> Case:
    """A recurrent net that runs in no time."""
    return replace(case, batch=2, steps=6, embed=8, hidden=16)


def test_rounds_are_interleaved_and_complete() -> None:
    found = compare(CASE, "train", names("fine", "loud"), QUICK, say_nothing)
    assert [len(r.ms) for r in found.results] == [2, 2]
    assert all(r.first_step_s > 0 for r in found.results)
    assert [r.difference for r in found.results] == [0.0, 0.0]
    assert found.left_out == {} and found.gflop == 0.5


def test_peers_that_cannot_take_part_are_left_out_with_a_line() -> None:
    said: list[str] = []
    peers = names("fine", "missing", "failing", "dying")
    found = compare(CASE, "train", peers, QUICK, said.append)
    assert [r.peer for r in found.results] == names("fine")
    reasons = [found.left_out[name] for name in peers[1:]]
    assert reasons[0] == "it is not installed (ImportError: No module named 'torch')"
    assert reasons[1] == "ValueError: no such kernel"
    assert reasons[2].startswith("its process ended")
    assert sum("is left out" in line for line in said) == 3


def test_wrong_values_show() -> None:
    found = compare(CASE, "train", names("fine", "wrong"), QUICK, say_nothing)
    assert found.results[1].difference == float("inf")


def test_netdef_says_where_it_fails(monkeypatch) -> None:
    monkeypatch.setattr("bench.measure.OURS", names("failing")[0])
    said: list[str] = []
    found = compare(CASE, "train", names("failing", "fine"), QUICK, said.append)
    assert found.trace in said and 'raise ValueError("no such kernel' in found.trace


def test_a_peer_that_hangs_is_stopped() -> None:
    job = Job("tests.bench.fakes:Fake", CASE, "train", 1)
    with pytest.raises(LeftOut, match="no answer in 0 s"):
        Side(job, timeout=0.01)


def test_difference() -> None:
    assert difference([1.0, 2.0], [1.0, 2.5]) == pytest.approx(0.2)
    assert difference([0.0], [0.0]) == 0.0
    assert difference([1.0], [1.0, 2.0]) == float("inf")
    assert difference([], []) == float("inf")


def test_job_survives_the_command_line() -> None:
    case = case_of("cifar10_full")
    job = Job("eager", case, "train", 2, rates=rates(case))
    again = decode(encode(job))
    assert again.case == case
    assert again.rates is not None
    assert again.rates.of("conv1", 1) == pytest.approx((0.002, 0.004))  # lr_mult 2
    assert again.rates.of("ip1", 0) == pytest.approx((0.001, 1.0))  # decay_mult 250
    assert again.rates.of("ip1", 1) == pytest.approx((0.002, 0.0))


def test_layers_survive_the_command_line() -> None:
    case = case_of("alexnet", 1)
    layers = plain_net(case, "train")
    assert [x.type for x in layers if x.name.startswith("conv2")] == ["Convolution", "ReLU"]
    assert layers[0].fields["kernel_size"] == 11 and layers[0].shape == (1, 3, 227, 227)
    assert decode(encode(Job("eager", case, "train", 2, layers=layers))).layers == layers


def test_recurrent_job_survives_the_command_line() -> None:
    job = Job("eager", CASES["lstm_768"], "train", 2, rates=rates(CASES["lstm_768"]))
    again = decode(encode(job))
    assert again.case == job.case
    assert again.rates is not None and again.rates.clip == 5.0


@pytest.mark.parametrize("peer", ["channels_last", "compile"])
def test_peers_with_nothing_to_show_on_recurrent_nets_are_left_out(peer: str) -> None:
    said: list[str] = []
    case = short(CASES["char_rnn_128"])
    found = compare(case, "train", [*names("fine"), peer], QUICK, said.append)
    assert list(found.left_out) == [peer]
    assert said[0].startswith(f"char_rnn_128 train: {peer} is left out: ")


@pytest.mark.parametrize(
    ("net", "gflop"),
    [
        ("lenet", 0.84),
        ("mlp", 0.30),
        ("cifar10_quick", 6.92),
        # 6 T N (4 D (I + D) for each layer of LSTM + 65 D)
        ("char_rnn_128", 3.32),
        ("char_rnn_512", 48.67),
        ("lstm_768", 468.76),
    ],
)
def test_work_of_a_training_step(net: str, gflop: float) -> None:
    graph = build(net_spec(CASES[net]), "TRAIN")
    assert flops(graph, training=True) / 1e9 == pytest.approx(gflop, abs=0.006)


def test_a_net_is_named_as_seen_from_the_checkout(monkeypatch) -> None:
    """So a program that was compiled in one checkout is found in the cache from another."""
    monkeypatch.chdir(ROOT)
    span = net_spec(CASES["mlp"]).layers[0].name.span
    assert span is not None and span.file == "nets/mlp/net.yaml"


def comparison() -> Comparison:
    ours = Result("netdef", [1.0, 2.0, 3.0], 0.5, 2**20, {"gflop": 0.3}, [3.0, 2.0, 1.0], 0.0)
    other = Result("eager", [4.0, 4.0, 4.0], 3.0, 2**28, {}, [3.0, 2.0, 1.0], float("inf"))
    found = Comparison("mlp", "train", 128, [ours, other], 300.0, "eager")
    found.ratio, found.ratio_of_minima = [0.25, 0.5, 0.75], 0.25
    return found


@pytest.mark.parametrize("terminal", [True, False])
def test_table(terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200)
    report.show(report.rows([comparison()]), console=console)
    text = stream.getvalue()
    for word in ("netdef", "eager", "0.50 (eager)", "64,000", "50%", "256", "3.00"):
        assert word in text
    assert ("\x1b" in text) == terminal


def test_who_is_killed_while_writing_leaves_the_file_as_it_was(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.json"
    report.write_json(path, {"all": 1})

    def killed(file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        report.write_json(path, {"all": 2})
    assert json.loads(path.read_text()) == {"all": 1}


def test_json_is_valid(tmp_path) -> None:
    report.write_json(tmp_path / "new" / "x.json", {"all": [report.as_json(comparison())]})
    read = json.loads((tmp_path / "new" / "x.json").read_text())["all"][0]
    assert report.as_json(report.from_json(read)) == read
    assert read["ratio_median"] == 0.5
    assert read["results"][0]["median_ms"] == 2.0
    assert read["results"][1]["difference"] is None  # infinity is no JSON


def test_cpu_command(tmp_path) -> None:
    path = tmp_path / "cpu.json"
    options = ["--rounds", "1", "--seconds", "0", "--batch", "2", "--threads", "1"]
    peers = [word for name in names("fine", "missing") for word in ("--peer", name)]
    done = CliRunner().invoke(main, ["cpu", "mlp", *options, *peers, "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "is left out: it is not installed" in done.output
    document = json.loads(path.read_text())
    assert {"machine", "cpu", "cpu_flags", "packages", "date", "options"} <= set(document)
    modes = {c["mode"]: c for c in document["comparisons"]}
    assert set(modes) == {"train", "infer"}
    for each in modes.values():
        assert [r["peer"] for r in each["results"]] == ["netdef", FAKE + "fine"]
        assert each["ceiling_gflops"] > 0 and each["results"][0]["peak_bytes"] > 0
        assert each["ratio_median"] > 0 and each["best"] == FAKE + "fine"


@pytest.mark.parametrize("option", ["--rounds", "--threads", "--batch"])
def test_nothing_to_measure_is_said(option: str) -> None:
    done = CliRunner().invoke(main, ["cpu", "mlp", option, "0"])
    assert done.exit_code == 2 and f"Invalid value for '{option}'" in done.output


def test_a_run_that_is_cut_keeps_what_it_has(tmp_path, monkeypatch) -> None:
    def one_only(case: Case, mode: Mode, *rest: object) -> Comparison:
        if mode == "infer":
            raise KeyboardInterrupt
        return comparison()

    monkeypatch.setattr("bench.__main__.compare", one_only)
    path = tmp_path / "cpu.json"
    CliRunner().invoke(main, ["cpu", "mlp", "--json", str(path)])
    assert [c["net"] for c in json.loads(path.read_text())["comparisons"]] == ["mlp"]


def test_profile_keeps_the_tables_of_each_net(tmp_path) -> None:
    words = ["profile", "mlp", "--folder", str(tmp_path / "new"), "--iterations", "1"]
    done = CliRunner().invoke(main, [*words, "--threads", "1"])
    assert done.exit_code == 0 and "mlp: 1 training step: fastest" in done.output
    text = (tmp_path / "new" / "mlp.txt").read_text()
    assert "\nlayer " in text and "\nkernel " in text and "\ntotal " in text


def test_startup_has_cold_and_warm(tmp_path) -> None:
    found = measure(["mlp"], names("fine", "missing"), 1, 2, say_nothing)
    assert [(one.net, len(one.warm)) for one in found] == [("mlp", 2)]
    assert found[0].cold > 0


@pytest.mark.parametrize("net", ["lenet", "cifar10_full"])
def test_pytorch_takes_the_same_steps(net: str) -> None:
    assert difference_to_pytorch(case_of(net, 2), "train") < 1e-5


@pytest.mark.parametrize(("net", "batch", "side"), [("alexnet", 2, 67), ("resnet18", 4, 65)])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_pytorch_takes_the_same_steps_on_small_images(
    net: str, batch: int, side: int, mode: Mode
) -> None:
    """Groups, LRN, BatchNorm with Scale, residuals."""
    assert (
        difference_to_pytorch(replace(CASES[net], batch=batch, item=(3, side, side)), mode) < 1e-4
    )


def test_pytorch_takes_the_same_steps_with_three_losses() -> None:
    assert difference_to_pytorch(case_of("googlenet", 1), "train") < 1e-5


def test_pytorch_takes_the_same_steps_where_scores_have_places() -> None:
    assert difference_to_pytorch(replace(STATIC_CASES["nin"], batch=2), "train") < 1e-4


def test_a_layer_that_pytorch_has_nothing_for_is_named() -> None:
    peers = pytest.importorskip("bench.peers")
    layer = Layer("crop", "Crop", ("data",), "crop", (1, 3, 8, 8), {})
    with pytest.raises(ValueError, match="layer 'crop': nothing stands for Crop"):
        peers.operation(layer)


@pytest.mark.parametrize("net", ["char_rnn_128", "lstm_768"])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_pytorch_takes_the_same_recurrent_steps(net: str, mode: Mode) -> None:
    """Three steps, each from the hidden states that the one before has left."""
    assert difference_to_pytorch(short(CASES[net]), mode) < 1e-5


def difference_to_pytorch(case: Case, mode: Mode) -> float:
    """Returns how far PyTorch's first three losses, or outputs of the third step, are away."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    found = compare(case, mode, ("netdef", "eager"), Options(threads=1, rounds=0), say_nothing)
    if "eager" in found.left_out:
        pytest.skip(found.left_out["eager"])
    assert found.results[1].difference is not None
    return found.results[1].difference
