"""A worker process as seen from the bench: start, ask, stop."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from bench.cases import ROOT, unfit
from bench.peer import Job, encode

_TRACE = 4000  # letters


class LeftOut(Exception):
    """A peer cannot take part; the message says why, `trace` is the end of what it printed."""

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace


class Side:
    """The process of one peer. `first_step_s` is from process start to the end of its first step.

    Raises LeftOut if the peer has nothing to show on this net, is missing, fails or does not
    answer in time; the process is gone then.
    """

    def __init__(
        self, job: Job, env: Mapping[str, str] | None = None, timeout: float = 300.0
    ) -> None:
        if reason := unfit(job.case, job.peer):
            raise LeftOut(reason)
        self.job, self._timeout = job, timeout
        self._errors = tempfile.TemporaryFile("w+")
        self.first_step_s = 0.0
        begun = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", encode(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=_environment(job.threads, env),
        )
        self._read()
        self.first_step_s = time.perf_counter() - begun

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Sends a command and returns its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it is gone: reading says why
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        clock = threading.Timer(self._timeout, self._process.kill)
        clock.start()
        line = self._process.stdout.readline()
        late = not clock.is_alive()
        clock.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            if "error" not in answer:
                return answer
            reason = _reason(answer)
        else:
            reason = f"no answer in {self._timeout:.0f} s" if late else ""
        trace = self._last_words()
        self.stop()
        ended = trace.splitlines()[-1] if trace else "it said nothing"
        raise LeftOut(reason or f"its process ended: {ended}", trace)

    def _last_words(self) -> str:
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.seek(0)
        return self._errors.read().strip()[-_TRACE:]

    def stop(self) -> None:
        """Ends the process."""
        pipes = (self._process.stdin, self._process.stdout, self._errors)
        try:
            if self._process.poll() is None and self._process.stdin is not None:
                self._process.stdin.write('{"do": "stop"}\n')
                self._process.stdin.close()
                self._process.wait(timeout=10)
        except (subprocess.TimeoutExpired, OSError, ValueError):
            self._process.kill()
            self._process.wait()
        for pipe in pipes:
            with contextlib.suppress(OSError):  # what was not sent is of no use now
                if pipe is not None:
                    pipe.close()


def _reason(answer: Mapping[str, str]) -> str:
    text = answer["error"].splitlines()[0]
    return f"it is not installed ({text})" if answer["kind"] == "missing" else text


def _environment(threads: int, more: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the worker's environment: the checkout first, BLAS with as many threads as all."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    count = str(threads)
    blas = {f"{name}_NUM_THREADS": count for name in ("OMP", "OPENBLAS", "MKL")}
    return {**os.environ, "PYTHONPATH": path, **blas, **(more or {})}
