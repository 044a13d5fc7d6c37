"""What the cpu backend keeps between runs, and helpers that compile: safe whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from compiler import helpers
from compiler.backends.cpu import Backend
from compiler.cache import Cache
from compiler.llvm import native
from compiler.llvm.host import find_host
from compiler.llvm.native import compile_all
from tests.backends.hand_kernels import chain
from tests.backends.test_cpu_kernels import negations, program

HOST = find_host()
MODULES = [
    f"define void @f{n}(ptr %x) {{\n  store float {n}.0, ptr %x\n  ret void\n}}\n" for n in range(6)
]


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "objects").iterdir())


@pytest.fixture
def compiled(monkeypatch):
    """Counts the modules that are compiled rather than read."""
    counted: list[str] = []

    def count(modules, host):
        counted.extend(modules)
        return compile_all(modules, host)

    monkeypatch.setattr("compiler.llvm.build.compile_all", count)
    return counted


def test_a_net_that_changed_in_one_kernel_compiles_that_one(tmp_path, compiled):
    first = program(Backend("host", tmp_path), (chain(50, "exp"),))
    assert len(compiled) == len(first.code) == 2
    compiled.clear()
    assert program(Backend("host", tmp_path), (chain(50, "exp"),)).code == first.code
    assert not compiled
    second = program(Backend("host", tmp_path), (chain(50, "exp"),), tuple(negations(1)))
    assert len(compiled) == 2  # the new kernel and the step
    assert set(first.code) < set(second.code)


@pytest.mark.parametrize(
    "damage",
    [lambda old: old[:-5], lambda old: b"", lambda old: old[:40] + b"x" + old[41:]],
    ids=["truncated", "empty", "corrupted"],
)
def test_a_damaged_entry_is_written_anew(tmp_path, compiled, damage):
    first = program(Backend("host", tmp_path), (chain(50, "exp"),))
    whole = {path: path.read_bytes() for path in entries(tmp_path)}
    for path, content in whole.items():
        path.write_bytes(damage(content))
    compiled.clear()
    assert program(Backend("host", tmp_path), (chain(50, "exp"),)).code == first.code
    assert len(compiled) == 2
    assert {path: path.read_bytes() for path in entries(tmp_path)} == whole


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    plain = program(Backend("host", None), (chain(50, "exp"),))
    assert program(Backend("host", blocked / "x"), (chain(50, "exp"),)).code == plain.code


@pytest.mark.parametrize("call", ["mkstemp", "replace"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, call):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    where = {"mkstemp": "compiler.cache.tempfile.mkstemp", "replace": "compiler.cache.os.replace"}
    monkeypatch.setattr(where[call], full)
    assert program(Backend("host", tmp_path), (chain(50, "exp"),)).code
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_read_is_as_good_as_none(tmp_path, monkeypatch):
    first = program(Backend("host", tmp_path), (chain(50, "exp"),))

    def refused(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refused)
    monkeypatch.setattr("os.utime", refused)
    assert program(Backend("host", tmp_path), (chain(50, "exp"),)).code == first.code


def test_what_was_used_longest_ago_makes_room(tmp_path):
    cache = Cache(tmp_path / "c", limit=3000)
    for n, key in enumerate("abc"):
        cache.save({key: bytes(900)})
        os.utime(tmp_path / "c" / key, (n, n))
    assert cache.load("a") == bytes(900)  # used now
    cache.save({"d": bytes(900)})
    assert {key for key in "abcd" if cache.load(key)} == {"a", "c", "d"}


def test_keys_tell_processors_and_compilers_apart(monkeypatch):
    ir = MODULES[0]
    keys = {native.key_of(text, HOST) for text in MODULES}
    keys.add(native.key_of(ir, replace(HOST, features=HOST.features + ",+new")))
    keys.add(native.key_of(ir, replace(HOST, name="other")))
    keys.add(native.key_of(ir, replace(HOST, triple="riscv64-unknown-linux-gnu")))
    monkeypatch.setattr(native, "version", lambda: "another")
    keys.add(native.key_of(ir, HOST))
    assert len(keys) == len(MODULES) + 4


def test_processes_that_write_at_once_do_not_disturb_each_other(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom compiler.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]), 40_000)\n"
        "for n in range(60):\n"
        "    cache.save({f'{n % 7}': bytes([n % 7]) * 5000, f'own{n}': bytes(2000)})\n"
        "    for key in range(7):\n"
        "        found = cache.load(str(key))\n"
        "        assert found in (None, bytes([key]) * 5000), key\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, str(tmp_path / "c")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) for _ in range(3)]
    assert [(one.communicate()[1], one.returncode) for one in running] == [(b"", 0)] * 3


# ---- helpers ---------------------------------------------------------------------------------


def test_helpers_make_what_one_process_makes():
    assert compile_all(MODULES, HOST, 3) == compile_all(MODULES, HOST, 1)


def test_little_work_starts_no_helper(monkeypatch):
    monkeypatch.setattr(helpers, "_start", lambda: pytest.fail("a helper was started"))
    assert len(compile_all(MODULES, HOST)) == len(MODULES)


def broken(monkeypatch, command: str) -> None:
    monkeypatch.setattr(helpers, "_START", command)


@pytest.mark.parametrize(
    "command",
    ["raise SystemExit(3)", "import sys; sys.stdin.buffer.read(9)", "print('nonsense' * 99)"],
    ids=["ends", "leaves", "babbles"],
)
def test_what_a_helper_leaves_is_compiled_here(monkeypatch, command):
    expected = compile_all(MODULES, HOST, 1)
    broken(monkeypatch, command)
    assert compile_all(MODULES, HOST, 2) == expected


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
def test_without_an_interpreter_there_are_no_helpers(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert compile_all(MODULES, HOST, 2) == compile_all(MODULES, HOST, 1)


def test_an_interrupted_compilation_leaves_no_process(monkeypatch):
    started = []
    start = helpers._start

    def remember():
        started.append(start())
        return started[-1]

    def interrupted(work):
        raise KeyboardInterrupt

    monkeypatch.setattr(helpers, "_start", remember)
    monkeypatch.setattr(helpers._Work, "here", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_all(MODULES, HOST, 3)
    assert [helper.returncode for helper in started] == [-signal.SIGKILL] * 2
