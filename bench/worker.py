"""The process of one peer: obeys lines of JSON, answers each with one."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from bench.cases import synthetic
from bench.peer import Peer, decode, make_peer


def main() -> None:
    """Builds the peer of the job in argv[1], runs its first step, then obeys until `stop`."""
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        job = decode(sys.argv[1])
        peer = make_peer(job, synthetic(job.case))
        peer.run(1)
    except Exception as error:  # whatever it is, the bench goes on without this peer
        _answer(answers, {"error": f"{type(error).__name__}: {error}", "kind": _kind(error)})
        raise
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "stop":
            break
        _answer(answers, _obey(peer, command))
    peer.close()


def _kind(error: Exception) -> str:
    return "missing" if isinstance(error, ImportError) else "failed"


def _obey(peer: Peer, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "more":
        peer.run(command["steps"])
        return {"result": peer.result()}
    if command["do"] == "time":
        return _time(peer, command["seconds"])
    assert command["do"] == "facts", command
    return {"peak_bytes": peak_bytes(), **peer.facts()}


def _time(peer: Peer, seconds: float) -> dict[str, Any]:
    """Returns milliseconds a step, over as many steps as take about `seconds`, or one.

    The step before them does not count: it wakes threads and brings the caches back. Where that
    is nothing beside the step, it is the one.
    """
    begun = time.perf_counter()
    peer.run(1)
    first = time.perf_counter() - begun
    if first > 5 * seconds > 0:
        return {"ms": first * 1e3, "steps": 1}
    steps = max(1, math.ceil(seconds / first))
    begun = time.perf_counter()
    peer.run(steps)
    return {"ms": (time.perf_counter() - begun) / steps * 1e3, "steps": steps}


def peak_bytes() -> int | None:
    """Returns the most memory this process has had resident, or None if it cannot be known."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's memory before exec
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _answer(stream: IO[str], answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
