"""What LLVM says of this machine is asked once; a program that is cached runs without LLVM."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compiler.cache import Cache
from compiler.llvm import machine
from compiler.llvm.machine import Machine, recall
from runtime.native import this_machine

CPUINFO = (
    "processor\t: 0\nmodel\t\t: 106\ncpu MHz\t\t: {mhz}\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n"
)
FOUND = Machine("x86_64-unknown-linux-gnu", "skylake", "+avx2", "20.1.8")


@pytest.fixture
def asked(monkeypatch):
    """Counts how often LLVM is asked."""
    counted = []

    def ask():
        counted.append(1)
        return FOUND

    monkeypatch.setattr(machine, "_ask", ask)
    return counted


def test_one_machine_is_asked_for_once(tmp_path, asked):
    cpuinfo, cache = tmp_path / "cpuinfo", Cache(tmp_path / "machines")
    for mhz in (1000, 2000):  # which changes all the time
        cpuinfo.write_text(CPUINFO.format(mhz=mhz))
        assert recall(cache, cpuinfo) == FOUND
    assert len(asked) == 1


@pytest.mark.parametrize("change", [("106", "85"), ("avx2", "avx512f")])
def test_another_processor_is_asked_for(tmp_path, asked, change):
    cpuinfo, cache = tmp_path / "cpuinfo", Cache(tmp_path / "machines")
    for text in (CPUINFO, CPUINFO.replace(*change)):
        cpuinfo.write_text(text)
        recall(cache, cpuinfo)
    assert len(asked) == 2


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\nmodel\t\t: 106\n"])
def test_what_the_system_does_not_describe_is_not_kept(tmp_path, asked, text):
    cpuinfo, cache = tmp_path / "cpuinfo", Cache(tmp_path / "machines")
    if text is not None:
        cpuinfo.write_text(text)
    for _ in range(2):
        assert recall(cache, cpuinfo) == FOUND
    assert len(asked) == 2


def test_the_machine_that_is_kept_is_the_one_that_llvm_finds(tmp_path):
    cache = Cache(tmp_path / "machines")
    first = recall(cache, machine._CPUINFO)
    assert recall(cache, machine._CPUINFO) == first == machine._ask()


RUN = """
import sys, netdef
net = netdef.load(text="layers: [{name: x, type: Input, shape: [2, 3]}, {name: y, type: TanH}]",
                  format="yaml", phase="TEST", backend="cpu")
net.forward(x=[[1, 2, 3], [4, 5, 6]])
print("llvmlite.binding" in sys.modules)
"""


@pytest.mark.skipif(this_machine() != ("x86_64", "linux"), reason="LLVM loads the code here")
def test_a_net_that_was_compiled_before_runs_without_llvm(tmp_path):
    env = {**os.environ, "HOME": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", RUN], env=env, text=True, capture_output=True)
        for _ in range(2)
    ]
    assert [run.stdout for run in runs] == ["True\n", "False\n"], runs
