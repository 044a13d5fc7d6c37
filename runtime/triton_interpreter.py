"""Device that runs Triton programs without a GPU, in Triton's interpreter."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime.calls import Call, Hosts, calls_of
from runtime.executable import Array, Executable
from runtime.tensor_bytes import pack, rounded, span, unpack
from runtime.triton_worker import receive, send
from schemas.errors import BackendError, UsageError
from schemas.program import Launch, Program, Runs, Tensor, written_out

_WORKER = Path(__file__).with_name("triton_worker.py")


class _Process:
    """The worker process: one request and one reply at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # -P: the worker's folder is not searched for modules.
        command = [sys.executable, "-P", str(_WORKER)]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._end = weakref.finalize(self, _stop, self._popen)
        self._numbers = itertools.count()
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._in, self._out = self._popen.stdin, self._popen.stdout
        hello = receive(self._out)
        if hello is None or "missing" in hello[0]:
            self.stop()
            raise BackendError(
                "Triton is not installed", hint="pip install 'netdef[cuda]' (Linux only)"
            )

    def number(self) -> int:
        return next(self._numbers)

    def ask(self, header: dict[str, Any], payload: bytes = b"") -> bytes:
        with self._lock:
            send(self._in, header, payload)
            reply = receive(self._out)
        if reply is None:
            raise RuntimeError("the worker process of Triton's interpreter has died")
        if "error" in reply[0]:
            raise RuntimeError(f"Triton's interpreter failed:\n{reply[0]['error']}")
        return reply[1]

    def stop(self) -> None:
        self._end()


def _stop(popen: subprocess.Popen[bytes]) -> None:
    for stream in (popen.stdin, popen.stdout):
        if stream is not None:
            stream.close()
    try:
        popen.wait(2)
    except subprocess.TimeoutExpired:  # in the middle of a long step
        popen.terminate()
        popen.wait()


class _Block:
    """Memory of the worker, freed when no executable uses it any more."""

    def __init__(self, process: _Process, nbytes: int, initial: Runs | None) -> None:
        self.process, self.number, self.nbytes = process, process.number(), nbytes
        process.ask({"do": "allocate", "block": self.number, "nbytes": nbytes})
        if initial:
            self.write(0, written_out(initial).tobytes())
        self.users = 0

    def write(self, offset: int, data: bytes) -> None:
        self.process.ask({"do": "write", "block": self.number, "offset": offset}, data)

    def read(self, offset: int, nbytes: int) -> Array:
        header = {"do": "read", "block": self.number, "offset": offset, "nbytes": nbytes}
        return np.frombuffer(bytearray(self.process.ask(header)), np.uint8)


class InterpretedExecutable:
    """A program in the worker process; see `Executable` for the methods."""

    def __init__(
        self,
        program: Program,
        process: _Process,
        share: Executable | None,
        calls: Mapping[int, Call],
    ) -> None:
        self._program, self._process = program, process
        self._calls = calls
        self._log: list[dict[str, float]] = []
        theirs = share.blocks if isinstance(share, InterpretedExecutable) else {}
        self.blocks: dict[str, _Block] = {}
        for slot in program.slots:
            block = theirs.get(slot.name) if slot.persistent else None
            if block is None or block.nbytes != slot.nbytes:
                block = _Block(process, slot.nbytes, program.initial.get(slot.name))
            block.users += 1
            self.blocks[slot.name] = block
        self._number: int | None = process.number()
        kernels = [launch for launch in program.launches if launch.call is None]
        header = {
            "sources": {name: program.text[name] for name in (k.meta["source"] for k in kernels)},
            "launches": {launch.name: self._plain(launch) for launch in kernels},
            "runs": [(launch.name, t) for launch, t in program.runs() if launch.call is None],
        }
        process.ask({"do": "load", "program": self._number, **header})

    @property
    def program(self) -> Program:
        return self._program

    def _plain(self, launch: Launch) -> dict[str, Any]:
        """Returns what the worker must know of a launch."""
        return {
            "source": launch.meta["source"],
            "entry": launch.meta["entry"],
            "types": launch.meta["types"],
            "programs": launch.meta["grid"][0],
            "args": [(self.blocks[slot].number, offset) for slot, offset in launch.args],
            "moves": launch.moves or [0] * len(launch.args),
        }

    def _tensor(self, name: str) -> Tensor:
        if name not in self._program.tensors:
            raise UsageError(f"the program has no tensor '{name}'")
        return self._program.tensors[name]

    def write(self, name: str, value: Array | float | int) -> None:
        tensor = self._tensor(name)
        block = self.blocks[tensor.slot]
        raw = block.read(tensor.offset, span(tensor))
        pack(tensor, value, raw)
        block.write(tensor.offset, raw.tobytes())
        if tensor.copy is not None:
            self.blocks[tensor.copy].write(tensor.offset // 2, rounded(raw).tobytes())

    def read(self, name: str) -> Array:
        tensor = self._tensor(name)
        return unpack(tensor, self.blocks[tensor.slot].read(tensor.offset, span(tensor)))

    def run(self, log: tuple[str, ...] = ()) -> None:
        first = done = 0
        calls = iter(self._calls.values())
        for launch, _ in self._program.runs():
            if launch.call is None:
                done += 1
                continue
            self._run(first, done)  # the kernels before it, and then the layer, in this process
            self._call(launch, next(calls))
            first = done
        self._run(first, done)
        if log:
            self._log.append({name: float(self.read(name).reshape(-1)[0]) for name in log})

    def _run(self, first: int, end: int) -> None:
        """Runs some of the kernels."""
        if first < end:
            header = {"do": "run", "program": self._number, "first": first, "end": end}
            self._process.ask(header)

    def _call(self, launch: Launch, call: Call) -> None:
        assert launch.call is not None
        (slot, out), *given = launch.args
        values = np.zeros(0, np.float32)
        for source, offset in given:
            values = self.blocks[source].read(offset, 4 * launch.call.reads).view(np.float32)
        made = np.ascontiguousarray(call(values), np.float32)
        self.blocks[slot].write(out, made.tobytes())

    def drain(self) -> list[Mapping[str, float]]:
        logged: list[Mapping[str, float]] = list(self._log)
        self._log.clear()
        return logged

    def time(self) -> tuple[float, Array | None]:
        begun = time.perf_counter()
        self.run()
        return time.perf_counter() - begun, None

    def synchronize(self) -> None:
        """Nothing to wait for: `run` returns when all is done."""

    def close(self) -> None:
        if self._number is None:
            return
        unused = []
        for block in self.blocks.values():
            block.users -= 1
            if block.users == 0:
                unused.append(block.number)
        self._process.ask({"do": "free", "program": self._number, "blocks": unused})
        self._number = None


class InterpreterDevice:
    """Triton's interpreter in a process of its own, which serves all programs of this device."""

    name = "triton-interpreter"

    def __init__(self) -> None:
        self._process: _Process | None = None

    def load(
        self, program: Program, share: Executable | None = None, hosts: Hosts | None = None
    ) -> InterpretedExecutable:
        calls = calls_of(program, hosts)
        if self._process is None:
            self._process = _Process()
        return InterpretedExecutable(program, self._process, share, calls)

    def close(self) -> None:
        """Ends the process; executables of this device are not used after that."""
        if self._process is not None:
            self._process.stop()
            self._process = None
