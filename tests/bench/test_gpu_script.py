"""The GPU script without a GPU: its order, what it keeps, and what it goes on from."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner

from bench import commands, gpu, machine
from bench.__main__ import main
from bench.cases import CHECK_CASES, GPU_CASES, OPERATIONS, synthetic
from bench.gpu import Plan, Script
from bench.measure import EARLY, LATE, Comparison, Result, merged
from bench.peer import Job, make_peer

FINE, FAILING, LOUD = (f"tests.bench.fakes:Fake:{f}" for f in ("fine", "failing", "loud"))
GPU = {"name": "some", "target": "sm_90"}
SAID: list[str] = []


def nothing(*args: object) -> None:
    """Takes the place of a part of the script."""


@pytest.fixture
def short(monkeypatch) -> None:
    """Peers that run anywhere stand for those that need a GPU, and what they do not need is out."""
    monkeypatch.setattr(gpu, "QUICK", (FINE, FAILING))
    monkeypatch.setattr(gpu, "SLOW", (LOUD,))
    monkeypatch.setattr(gpu, "SLOWEST", ())
    for part in ("tests", "prepare", "ceiling", "check"):
        monkeypatch.setattr(Script, part, nothing)


def script(plan: Plan, document: dict[str, Any] | None = None) -> Script:
    return Script(plan, GPU, {} if document is None else document, SAID.append, nothing)


def test_dry_run(tmp_path, monkeypatch) -> None:
    """Everything of the script but the GPU: its order, its check, its file."""
    monkeypatch.setattr(Script, "tests", nothing)
    path = tmp_path / "gpu.json"
    words = ["--operation", "conv3x3_64", "--precision", "tf32", "--json", str(path)]
    done = CliRunner().invoke(main, ["gpu", "mlp", "--dry-run", *words])
    assert done.exit_code == 0, done.output
    document = json.loads(path.read_text())
    assert "failed" not in document and "located" not in document, done.output
    assert done.output.count("program of mlp (train, tf32): ") == 1  # for check and row
    assert document["check"]["mlp tf32"]["within_tolerance"] is True
    assert [one["mode"] for one in document["comparisons"]] == ["train", "infer"]
    for one in document["comparisons"]:
        ours = one["results"][0]
        assert ours["peer"] == "netdef" and ours["facts"]["slowest"][0]["ms"] > 0, one["left_out"]
    assert set(document["operations"]["conv3x3_64 tf32"]["netdef"]) >= {"forward", "backward"}


def test_a_dry_run_waits_for_a_driver_that_reads_machine_code(monkeypatch, tmp_path) -> None:
    """Of resnet50 with early kernels it has 196 binaries to read before its first step is done."""
    given: list[Any] = []
    row = Comparison("resnet50", "train", 2)
    monkeypatch.setattr(gpu, "compare", lambda *args: (given.append(args[3]), row)[1])
    for dry_run in (False, True):
        made = script(Plan(("resnet50",), dry_run=dry_run))
        made.folder, made.deadline = tmp_path, float("inf")
        made.timing("resnet50", "train", "bf16", (EARLY,))
    assert [one.timeout for one in given] == [gpu.LIMIT, gpu.PREPARING]


def test_kernels_that_begin_early_are_a_peer_of_their_own() -> None:
    """In training of a few nets; it is no rival of netdef. The driver made of Python checks it."""
    peers = partial(script(Plan(("mlp",), modes=("train", "infer"))).peers, peers=gpu.QUICK)
    early = [("train", "mlp"), ("infer", "mlp"), ("train", "alexnet")]
    found = [EARLY in peers(mode=mode, precision="tf32", net=net) for mode, net in early]
    assert found == [True, False, False]
    new = Comparison("mlp", "train", 128, [Result(n, [1.0]) for n in ("netdef", EARLY, "eager")])
    assert merged(new, new).best == "eager"
    case = replace(GPU_CASES["mlp"], batch=2)
    peer = make_peer(Job(EARLY, case, "train", 1, "fake", precision="tf32"), synthetic(case))
    peer.run(1)
    driver = peer._engine.device.driver
    given = [[one.id for one in c.attrs] for c, *_ in driver.api.named("cuLaunchKernelEx")]
    assert len(given) == peer.facts()["launches"] and given == [[], *[["early"]] * (len(given) - 1)]
    peer.close()


def test_operations_alone_are_searched_too(tmp_path, monkeypatch) -> None:
    """One round of the search in a dry run, in which all tiles take as long."""
    monkeypatch.setattr(Script, "tests", nothing)
    path = tmp_path / "gpu.json"
    words = ["--operation", "matmul_8192", "--precision", "bf16", "--json", str(path)]
    done = CliRunner().invoke(main, ["gpu", "--dry-run", *words])
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())["operations"]["matmul_8192 bf16"]
    assert set(found["searched"]) == {"forward", "backward"}, done.output
    first, *others = found["tiles"]
    assert first.startswith("1 of ") and others
    assert all("as the model has it: m " in line for line in others)
    assert "matmul_8192 bf16 forward: netdef 1.000 ms (" in done.output
    assert " TFLOP/s), searched 1.000 ms (" in done.output
    assert others[0] in done.output and "first step s" not in done.output  # a table of no nets


def test_quick_peers_are_timed_on_every_net_before_slow_ones(short) -> None:
    plan = Plan(("mlp", "lenet"), 1, ("bf16", "tf32"), modes=("train", "infer"))
    timed = [what for what, _ in script(plan).parts() if "fakes" in what]
    order = [(what.split(":")[0], "loud" in what) for what in timed]
    nets = [f"{net} {{}} {p}" for p in ("bf16", "tf32") for net in ("mlp", "lenet")]
    assert order == [
        (net.format(mode), slow)
        for mode, slow in (("train", False), ("train", True), ("infer", False), ("infer", True))
        for net in nets
    ]


def test_what_is_worth_most_comes_first() -> None:
    """A precision's nets, then its operations; the best mode of small nets, as it has targets."""
    plan = Plan(("lenet", "resnet50"), 1, ("bf16", "tf32"), ("train", "infer"), ("conv3x3_64",))
    found = [what for what, _ in script(plan).parts() if not what.startswith(("check", "ceil"))]
    rows = ["lenet train", "resnet50 train", "conv3x3_64"]
    assert [what.split(":")[0] for what in found[2:14]] == [
        *(f"{row} bf16" for row in rows),
        *(f"{row} tf32" for row in rows),
        *(f"{net} train {p}" for net in ("lenet", "resnet50") for p in ("bf16", "tf32")),
        *(f"{net} infer bf16" for net in ("lenet", "resnet50")),
    ]
    assert found[8] == "lenet train bf16: compile, max_autotune"
    assert found[10] == "resnet50 train bf16: compile"


def test_rows_grow_and_are_saved_one_by_one(short) -> None:
    saved: list[list[tuple[str, list[str]]]] = []

    def save(document: gpu.Document) -> None:
        rows = json.loads(json.dumps(document))["comparisons"]
        saved.append([(row["net"], [r["peer"] for r in row["results"]]) for row in rows])

    made = script(Plan(("mlp", "lenet"), 1, ("tf32",)), {"ceilings": {"tf32": {"matmul": 500.0}}})
    made.save = save
    made.run()
    first, both = [FINE], [LOUD, FINE]
    rows = [[], [("mlp", first)], [("mlp", first), ("lenet", first)]]
    rows += [[("mlp", both), ("lenet", first)], [("mlp", both), ("lenet", both)]]
    assert [one for i, one in enumerate(saved) if one not in saved[:i]] == rows
    for one in made.rows.values():
        assert one.left_out == {FAILING: "ValueError: no such kernel"}
        assert one.floor_ms == 1.0  # the fake's 0.5 GFLOP
        assert one.best in both and [r.difference for r in one.results] == [0.0, 0.0]


def test_a_call_goes_on_where_another_stopped(short) -> None:
    plan = Plan(("mlp",), 1, ("tf32",))
    document: gpu.Document = {}
    script(Plan(("mlp",), 1, ("tf32",), budget=0.0), document).run()
    assert document.get("comparisons", []) == [] and SAID[-1].endswith(LATE)
    script(plan, document).run()
    before = json.dumps(document["comparisons"])
    again = Plan(("mlp",), 1, ("tf32",), missing=True)
    assert [what for what, _ in again_parts(again, document)] == ["the GPU tests", "programs"]
    (row,) = document["comparisons"]
    row["left_out"][FAILING] = LATE
    assert "mlp train tf32: " + FAILING in [what for what, _ in again_parts(again, document)]
    script(again, document).run()
    assert json.dumps(document["comparisons"]) == before
    assert len(document["calls"]) == 3


def again_parts(plan: Plan, document: gpu.Document) -> list[gpu.Part]:
    made = script(plan, document)
    made.read()
    document.setdefault("check", {})["mlp tf32"] = document.setdefault("ceilings", {})["tf32"] = {}
    return [*made.parts()]


def test_a_part_that_fails_leaves_the_others(short, monkeypatch) -> None:
    def failing(*args: object) -> None:
        raise ZeroDivisionError("in this net")

    monkeypatch.setattr(Script, "check", failing)
    made = script(Plan(("mlp", "lenet"), 1, ("tf32",)))
    made.run()
    assert len(made.rows) == 2
    assert list(made.document["failed"]) == ["check mlp tf32", "check lenet tf32"]
    assert "in this net" in made.document["failed"]["check mlp tf32"]
    assert any("in this net" in line and "Traceback" in line for line in SAID)


@pytest.mark.parametrize("losses", [[3.0, 2.0, 1.0], [3.0, 2.5, 1.0], None])
def test_a_net_that_is_wrong_or_fails_is_looked_into(losses, monkeypatch, tmp_path) -> None:
    def alone(self: Script, job: Any, limit: float) -> list[float]:
        if losses is None:
            raise gpu.LeftOut("CUDA_ERROR_ILLEGAL_ADDRESS", "the trace")
        return losses

    located: list[Any] = []
    monkeypatch.setattr(Script, "alone", alone)
    monkeypatch.setattr(Script, "locate", lambda self, *what: located.append(what))
    made = script(Plan(("resnet50",)), {"reference": {"resnet50": [3.0, 2.0, 1.0]}})
    made.folder, made.deadline = tmp_path, float("inf")
    made.check("resnet50", "tf32")
    right = losses == [3.0, 2.0, 1.0]
    assert located == ([] if right else [("resnet50", "tf32", CHECK_CASES["resnet50"])])
    answer = made.document["check"]["resnet50 tf32"]
    assert answer.get("within_tolerance", False) == right
    assert ("trace" in answer) == (losses is None)
    late = script(Plan(("resnet50",)), {"reference": {"resnet50": [3.0, 2.0, 1.0]}})
    late.folder, late.deadline = tmp_path, 0.0
    late.check("resnet50", "tf32")  # what only the end of the time has stopped is tried again
    assert bool(late.kept("check")) == (losses is not None)


def test_a_row_without_netdef_is_looked_into(short, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "OURS", FAILING)
    located: list[Any] = []
    monkeypatch.setattr(Script, "locate", lambda self, *what: located.append(what))
    script(Plan(("mlp",), 1, ("tf32",))).run()
    assert located == [("mlp", "tf32", GPU_CASES["mlp"])]


def test_a_net_whose_check_fails_is_not_timed(short, monkeypatch) -> None:
    """It would fail again, and be looked into again; of PyTorch there is a row."""
    monkeypatch.setattr(gpu, "OURS", FAILING)
    monkeypatch.setattr(
        Script, "locate", lambda self, *what: pytest.fail("it has been looked into")
    )
    made = script(Plan(("mlp",), 1, ("tf32",)), {"check": {"mlp tf32": {"error": "it hangs"}}})
    made.run()
    (row,) = made.rows.values()
    assert row.left_out == {FAILING: gpu.FAILED}
    assert {one.peer for one in row.results} == {FINE, LOUD}


def test_locating_runs_apart_and_is_kept() -> None:
    made = script(Plan(("mlp",)))
    made.deadline = float("inf")
    made.locate("mlp", "tf32", GPU_CASES["mlp"])
    assert "no usable NVIDIA GPU" in made.document["located"]["mlp tf32 128"]


def test_the_gpu_tests_are_those_that_need_one(monkeypatch) -> None:
    monkeypatch.setattr(commands, "TESTS", [*commands.TESTS, "--collect-only"])
    made = script(Plan(("mlp",), dry_run=True))
    made.deadline = float("inf")
    made.tests()
    assert made.document["tests"]["gpu"]["rc"] == 0 and SAID[-1].startswith("GPU tests: ")
    monkeypatch.setattr(commands, "TESTS", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(gpu, "TESTING", 0.001)
    made.tests()
    assert made.document["tests"]["gpu"]["last"] == "not done in their share of the time"


def test_a_gpu_test_that_hangs_is_named(monkeypatch, tmp_path) -> None:
    (tmp_path / "test_it.py").write_text("import time\ndef test_hangs(): time.sleep(600)\n")
    monkeypatch.setattr(commands, "TESTS", [*commands.TESTS[:-1], str(tmp_path)])
    monkeypatch.setattr(commands, "HANGING", 1)
    found = commands.gpu_tests(200.0)
    assert found["rc"] and "test_hangs" in str(found["output"]), found


def test_precisions_that_are_none() -> None:
    done = CliRunner().invoke(main, ["gpu", "mlp", "--precision", "tf32,fp33"])
    assert done.exit_code == 2 and "fp33: give some of fp32, tf32" in done.output


def test_locate_without_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr("netdef.engine._gpu", lambda: None)
    done = CliRunner().invoke(main, ["locate", "mlp", "--batch", "2", "--precision", "bf16"])
    assert done.exit_code == 0 and done.output.startswith("FAILS: error: no usable NVIDIA GPU")


def test_file_name() -> None:
    assert machine.file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_script_without_a_gpu(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Script, "tests", nothing)
    monkeypatch.setattr("bench.__main__.find_gpu", lambda say: ("no-gpu", None))
    done = CliRunner().invoke(main, ["gpu", "mlp", "--json", str(tmp_path / "gpu.json")])
    assert done.exit_code == 0, done.output
    assert "no usable GPU: no timings" in done.output


def test_what_needs_no_gpu_is_done_where_there_is_none(tmp_path, monkeypatch) -> None:
    """The programs of checks and of rows, in both modes, and of operations; the reference."""
    made: list[Any] = []
    monkeypatch.setattr(Script, "alone", lambda self, job, limit: made.append(job) or [1.0])
    path = tmp_path / "gpu.json"
    words = ["--precision", "bf16", "--mode", "train", "--target", "sm_80", "--json", str(path)]
    done = CliRunner().invoke(main, ["compile", "resnet50", *words])
    assert done.exit_code == 0, done.output
    programs = [job for job in made if job.peer == "program"]
    assert [job.case for job in programs] == [GPU_CASES["resnet50"], CHECK_CASES["resnet50"]]
    assert {(job.device, job.precision) for job in programs} == {("sm_80", "bf16")}
    made.clear()
    assert CliRunner().invoke(main, ["compile", "--json", str(path)]).exit_code == 0
    programs = [job for job in made if job.peer in ("program", "operation")]
    assert len(programs) == 2 * (3 * len(GPU_CASES) + len(OPERATIONS))
    references = json.loads(path.read_text())["reference"]  # which `gpu --missing` goes on from
    assert references == dict.fromkeys(GPU_CASES, [1.0])
    made.clear()
    again = script(Plan(("resnet50",), missing=True), {"reference": references})
    again.folder, again.deadline = tmp_path, float("inf")
    again.prepare()
    assert {job.peer for job in made} == {"weights", "program"}


def test_what_is_new_takes_the_place_of_what_was_there() -> None:
    def row(left_out: dict[str, str], **ms: float) -> Comparison:
        results = [Result(name, [time], values=[1.0]) for name, time in ms.items()]
        return Comparison("mlp", "train", 128, results, left_out=left_out)

    old = row({"compile": LATE}, netdef=2.0, eager=4.0)
    both = gpu.merged(old, row({"eager": "fails"}, compile=1.0))
    assert [r.peer for r in both.results] == ["netdef", "compile"]
    assert both.left_out == {"eager": "fails"}
    assert both.best == "compile" and both.ratio == [2.0]
