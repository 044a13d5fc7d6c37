"""`netdef time` of every net of the bench, kept beside the comparisons."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.cases import ROOT, case_of, net_spec
from bench.measure import Say


def profile(nets: Sequence[str], folder: Path, threads: int, iterations: int, say: Say) -> None:
    """Writes FOLDER/NET.txt for each net: the tables of a training step with the bench's batch."""
    from netdef.spec_text import net_yaml

    folder.mkdir(parents=True, exist_ok=True)
    for net in nets:
        with tempfile.TemporaryDirectory() as there:
            path = Path(there) / f"{net}.yaml"
            path.write_text(net_yaml(net_spec(case_of(net))))
            words = ["time", str(path), "--backend", "cpu", "--threads", str(threads)]
            words += ["--iterations", str(iterations)]
            command = [sys.executable, "-m", "netdef", *words]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            say(f"{net} is left out: {(done.stderr.strip().splitlines() or ['?'])[0]}")
            continue
        (folder / f"{net}.txt").write_text(done.stdout)
        say(f"{net}: {done.stdout.splitlines()[1]}")
