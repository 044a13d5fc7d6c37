"""Ctrl-C at any time ends a command with status 130 and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import ROOT, process

# Sends SIGINT to the process itself when a module is looked for.
AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""
AT_EXIT = """
import atexit, os, signal
atexit.register(os.kill, os.getpid(), signal.SIGINT)
"""
RUN = "\nimport sys; sys.argv = ['netdef', '--version']; from netdef.__main__ import main; main()"


def run(text: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    # The tests themselves may run where it is ignored: behind nohup, in the background.
    handler = "SIG_IGN" if ignored else "default_int_handler"
    text = f"import signal; signal.signal(signal.SIGINT, signal.{handler})\n{text}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", text + RUN]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["netdef.cli", "click", "netdef.cli.guard"])
def test_while_the_command_line_is_loaded(module):
    done = run(AT_IMPORT.format(module=module))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_while_the_process_ends():
    done = run(AT_EXIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("netdef ")


def test_where_it_is_ignored_it_stays_ignored():
    done = run(AT_IMPORT.format(module="click"), ignored=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("pause", [0, 0.01, 0.1])
def test_twice_during_training(pause, tiny):
    words = ["train", "solver.yaml", "--backend", "cpu", "--set", "max_iter=10000000"]
    words += ["--run-dir", "run", "--set", "display=1"]
    with process(*words, cwd=tiny) as running:
        deadline = time.monotonic() + 60
        metrics = tiny / "run" / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(2):
            running.send_signal(signal.SIGINT)
            time.sleep(pause)
        _, complaint = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in complaint and "Exception" not in complaint


def test_a_folder_that_cannot_be_written_is_named(tiny, netdef):
    (tiny / "file").write_text("")
    done = netdef("train", "solver.yaml", "--backend", "cpu", "--run-dir", "file/run")
    assert done.exit_code == 2
    assert "error: cannot make file/run: Not a directory" in done.stderr


# Commands that take in Ctrl-C badly, in place of `netdef layers`.
BAD = """
import hashlib, os, sys, threading, time, weakref
import click
import netdef.cli.layers as module

class Referred:
    pass

def in_a_callback():
    "KeyboardInterrupt is raised while a weak reference is cleared, where nobody hears it."
    one = Referred()
    held = weakref.ref(one, lambda _: (print("ready", flush=True), time.sleep(600)))
    del one
    time.sleep(600)

def in_a_callback_amid_work():
    "What was lost in the callback is heard in the work after it, which closes what it has open."
    try:
        in_a_callback()
    finally:
        print("closed", flush=True)

def in_native_code():
    "A signal is not seen before the call is over."
    threading.Timer(0.1, print, ("ready",), {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def at_its_end():
    "What must be closed takes long."
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

module.layers = click.command()({name})
sys.argv = ["netdef", "layers"]
from netdef.__main__ import main
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="a pipe cannot be told of signals")
@pytest.mark.parametrize(
    "name", ["in_a_callback", "in_a_callback_amid_work", "in_native_code", "at_its_end"]
)
def test_whatever_the_command_is_doing(name):
    text = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", text + BAD.replace("{name}", name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        try:
            shown, complaint = running.communicate(timeout=30)
        finally:
            running.kill()
    assert (running.returncode, complaint.strip()) == (130, "interrupted")
    assert shown == ("closed\n" if name == "in_a_callback_amid_work" else "")
