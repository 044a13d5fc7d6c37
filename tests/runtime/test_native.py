"""Loading machine code: our own linker, other processors, systems where LLVM must load."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.llvm.host import find_host
from compiler.llvm.native import compile_object
from runtime import native
from runtime.cpu import CpuDevice
from schemas.errors import BackendError
from tests.runtime.test_cpu_device import N, program

ROOT = Path(__file__).resolve().parents[2]
linked = pytest.mark.skipif(
    native.this_machine() != ("x86_64", "linux"), reason="LLVM loads the code here"
)

# A table of constants, a function of another object, one of the C library, a local function.
FIRST = """
@table = private constant [5 x double] [double 1.5, double 2.5, double 3.5, double 4.5, double 5.5]
declare double @second(ptr, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define internal double @at(i64 %i) noinline nounwind {
  %place = getelementptr [5 x double], ptr @table, i64 0, i64 %i
  %value = load double, ptr %place
  ret double %value
}
define double @first(ptr %memory, i64 %size, i64 %i) nounwind {
  call void @llvm.memset.p0.i64(ptr %memory, i8 7, i64 %size, i1 false)
  %behind = getelementptr i8, ptr %memory, i64 %size
  call void @llvm.memcpy.p0.p0.i64(ptr %behind, ptr %memory, i64 %size, i1 false)
  %mine = call double @at(i64 %i)
  %theirs = call double @second(ptr %memory, i64 %i)
  %sum = fadd double %mine, %theirs
  ret double %sum
}
"""
SECOND = """
define double @second(ptr %memory, i64 %i) nounwind {
  %byte = load i8, ptr %memory
  %number = uitofp i8 %byte to double
  %scaled = fmul double %number, 0x3FB999999999999A
  ret double %scaled
}
"""


@linked
@pytest.mark.parametrize("order", [1, -1])
def test_objects_that_call_each_other_and_the_c_library(order):
    from runtime.elf import Code

    code = Code([compile_object(ir, find_host()) for ir in (FIRST, SECOND)][::order])
    kind = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    memory = np.zeros(2001, np.uint8)
    for i in range(5):
        assert kind(code.address("first"))(memory.ctypes.data, 1000, i) == 1.5 + i + 7 * 0.1
    assert (memory[:2000] == 7).all() and memory[2000] == 0


@linked
def test_nothing_of_llvm_is_needed():
    code = (
        "import sys; sys.modules['llvmlite'] = None; import runtime.cpu, runtime.native; "
        "print([m for m in sys.modules if m.startswith('compiler')])"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout == "[]\n"


@linked
def test_a_lesser_processor_is_refused(monkeypatch):
    monkeypatch.setattr(native, "_flags", lambda: frozenset({"fpu", "sse", "sse2"}))
    with pytest.raises(BackendError, match=r"this machine is x86_64 linux \(it lacks avx"):
        CpuDevice(1).load(program())


@linked
def test_the_names_of_linux_are_those_of_llvm():
    assert not [f for f in find_host().required.split(",") if not native._has(f[1:])]


def test_where_llvm_loads_the_code(monkeypatch):
    made = program()
    monkeypatch.setattr(native, "_linked", lambda: False)
    executable = CpuDevice(2).load(made)
    executable.run()
    np.testing.assert_array_equal(executable.read("state"), np.arange(N) + 1)
    executable.close()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(BackendError, match="need the package llvmlite on"):
        CpuDevice(2).load(made)


@pytest.mark.parametrize(
    "triple, kind",
    [
        ("x86_64-unknown-linux-gnu", ("x86_64", "linux")),
        ("x86_64-pc-windows-msvc", ("x86_64", "windows")),
        ("amd64-win32", ("x86_64", "windows")),
        ("arm64-apple-darwin23.4.0", ("aarch64", "macos")),
        ("aarch64-alpine-linux-musl", ("aarch64", "linux")),
    ],
)
def test_what_of_a_triple_counts(triple, kind):
    assert native._kind(triple) == kind


def test_code_for_another_system_is_refused():
    made = program()
    other = replace(made, meta={**made.meta, "triple": "x86_64-pc-windows-msvc", "features": ""})
    with pytest.raises(BackendError, match=r"\(x86_64 windows\), this machine is"):
        CpuDevice(1).load(other)
