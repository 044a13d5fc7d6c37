"""What products are computed in: the solver's field, the option, the default, and what refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

import netdef as api
from compiler.backends import get_backend
from compiler.fingerprint import fingerprint
from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.unit import Unit
from netdef.formats import read_net, read_solver
from runtime.data import probe
from schemas.errors import PrecisionError


@pytest.mark.parametrize(
    "name, target, precision",
    [
        ("cpu", None, "fp32"),
        ("triton", "sm_80", "tf32"),
        ("triton", "sm_90", "tf32"),
        ("triton", "gfx942", "fp32"),
        ("triton", "interpreter", "fp32"),
    ],
)
def test_defaults(name, target, precision):
    assert get_backend(name, target).precision == precision


@pytest.mark.parametrize(
    "name, target, precision",
    [("cpu", None, "tf32"), ("reference", None, "fp32"), ("triton", "gfx942", "tf32")],
)
def test_what_a_backend_does_not_have(name, target, precision):
    with pytest.raises(PrecisionError) as error:
        get_backend(name, target, precision)
    assert error.value.hint


def test_a_solver_s_precision_is_located(tiny, netdef):
    with (tiny / "solver.yaml").open("a") as file:
        file.write("precision: tf32\n")
    result = netdef("train", "solver.yaml", "--backend", "cpu")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "solver.yaml:10:12: error: the cpu backend computes in fp32, not in tf32\n"
    )
    assert "hint: leave precision out, or use --backend triton" in result.stderr
    with pytest.raises(PrecisionError) as error:
        api.compile("net.yaml", train=read_solver("solver.yaml"))
    assert error.value.span.line == 10
    assert not (tiny / "runs").exists()


def test_an_option_goes_before_the_solver_s_field(tiny, netdef):
    words = ["--backend", "cpu", "--precision", "fp32", "--set", "precision=tf32"]
    result = netdef("train", "solver.yaml", *words)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[2].endswith(", fp32")
    assert '"precision": "fp32"' in next((tiny / "runs").glob("*/solver.json")).read_text()


def test_inspect_takes_the_solver_s_precision(tiny, netdef):
    with (tiny / "solver.yaml").open("a") as file:
        file.write("precision: bf16\n")
    words = ["inspect", "net.yaml", "--solver", "solver.yaml", "--stage", "kernels", "--target"]
    narrow = netdef(*words, "sm_90")
    assert narrow.exit_code == 0 and "bfloat16" in narrow.stdout, narrow.stderr
    assert "bfloat16" not in netdef(*words, "sm_90", "--precision", "tf32").stdout
    refused = netdef(*words, "cpu")
    assert refused.stderr.startswith("solver.yaml:10:12: error: the cpu backend computes in fp32")


def test_inspect_writes_the_targets_that_have_it(tiny, netdef):
    with (tiny / "solver.yaml").open("a") as file:
        file.write("precision: bf16\n")
    words = ["inspect", "net.yaml", "--solver", "solver.yaml", "-o"]
    result = netdef(*words, "both")
    assert result.exit_code == 0, result.stderr
    refused = (tiny / "both" / "05_kernels" / "cpu" / "MISSING.txt").read_text()
    assert refused.startswith("no code for cpu: the cpu backend computes in fp32, not in bf16")
    assert "bfloat16" in (tiny / "both" / "05_kernels" / "sm_90" / "ip1.py").read_text()
    assert '"precision": "bf16"' in (tiny / "both" / "07_program.json").read_text()
    named = netdef(*words, "named", "--target", "cpu", "--target", "sm_90")
    assert named.exit_code == 2 and "(to compile: --target sm_90)" in named.stderr


def test_a_precision_that_nobody_has(tiny, netdef):
    result = netdef("train", "solver.yaml", "--set", "precision=fp16")
    assert result.exit_code == 2
    assert "'precision'" in result.stderr and "tf32" in result.stderr


@pytest.mark.parametrize("command", ["test", "predict", "sample", "time", "compile", "inspect"])
def test_every_command_that_runs_or_compiles_takes_it(command, netdef):
    assert "--precision" in netdef(command, "--help").stdout


def test_programs_say_it_and_are_kept_apart_by_it(tiny):
    graph = build(read_net("net.yaml"), "TEST", probe=probe)
    keys = set()
    for precision in ("fp32", "tf32"):
        unit = Unit(graph, plan_arena(graph), get_backend("triton", "sm_90", precision))
        keys.add(fingerprint(unit))
    assert len(keys) == 2 and None not in keys
    assert api.compile("net.yaml").meta["precision"] == "fp32"


def test_a_solver_takes_it_from_python(tiny):
    spec = replace(read_solver("solver.yaml"), precision="tf32")
    solver = api.Solver(spec, "cpu", precision="fp32")
    assert solver.program.meta["precision"] == "fp32"
    solver.close()
