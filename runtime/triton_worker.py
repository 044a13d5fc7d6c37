"""Worker process that runs Triton kernels on NumPy memory in Triton's interpreter.

It is started by file name, with no other part of netdef, and talks over its standard input and
output: each message is a JSON header and raw bytes, both preceded by their lengths. Its memory is
host memory, so that a kernel's pointers are addresses of NumPy arrays.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

_ALIGN = 64


def send(stream: IO[bytes], header: dict[str, Any], payload: bytes = b"") -> None:
    text = json.dumps(header).encode()
    stream.write(struct.pack("<QQ", len(text), len(payload)))
    stream.write(text)
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Returns the next message, or None at the end of the stream."""
    lengths = stream.read(16)
    if len(lengths) < 16:
        return None
    header, payload = struct.unpack("<QQ", lengths)
    return json.loads(stream.read(header)), stream.read(payload)


class Interpreter:
    """Triton's interpreter, prepared once: what it patches stays patched, which saves its time."""

    def __init__(self) -> None:
        os.environ["TRITON_INTERPRET"] = "1"
        import triton.language as tl
        from triton.runtime import interpreter

        self._tl, self._interpreter = tl, interpreter
        interpreter.interpreter_builder.options = interpreter.InterpreterOptions(
            sanitize_overflow=False
        )

        class Module:
            __globals__ = {"tl": tl, "core": tl.core}

        interpreter._patch_lang(Module)
        # NumPy >= 2.4 refuses int() of an array of one element.
        tl.tensor.__index__ = lambda t: int(np.asarray(t.handle.data).reshape(-1)[0])
        tl.tensor.__bool__ = lambda t: bool(np.asarray(t.handle.data).all())
        interpreter._patch_lang = lambda fn: None
        _take_any_mask(type(interpreter.interpreter_builder), "create_masked_load", 1)
        _take_any_mask(type(interpreter.interpreter_builder), "create_masked_store", 2)
        _compute_in_bf16(type(interpreter.interpreter_builder), interpreter.TensorHandle, tl)
        self._folder = tempfile.TemporaryDirectory(prefix="netdef-triton-")
        self._modules = 0

    def functions(self, source: str) -> Any:
        """Imports a module; it stays on disk, as Triton reads the text of its functions."""
        self._modules += 1
        path = Path(self._folder.name) / f"kernels_{self._modules}.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def launcher(self, entry: Any, types: list[str], programs: int) -> Callable[[list[int]], None]:
        """Returns a function that runs all programs of a kernel on given addresses."""
        tl, interpreter = self._tl, self._interpreter
        function, builder = entry.rewrite(), interpreter.interpreter_builder
        pointers = [tl.str_to_ty(t, None) for t in types]

        def launch(addresses: list[int]) -> None:
            args = [
                tl.tensor(interpreter.TensorHandle(np.array([a], np.uint64), t), t)
                for a, t in zip(addresses, pointers, strict=True)
            ]
            builder.set_grid_dim(programs, 1, 1)
            for program in range(programs):
                builder.set_grid_idx(program, 0, 0)
                function(*args)

        return launch


def _take_any_mask(builder: Any, name: str, place: int) -> None:
    """Makes a method of the interpreter's builder take a mask whose booleans are stored as i32.

    Conditions on numbers that Python knows come so; from version 3.9 on Triton refuses them. Before
    it, loads by a descriptor give a plain array of booleans.
    """
    given = getattr(builder, name)

    def method(self: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(args[place], np.ndarray):
            args[place].data = args[place].data.astype(np.bool_, copy=False)
        return given(self, *args, **options)

    setattr(builder, name, method)


def _compute_in_bf16(builder: Any, handle: Any, tl: Any) -> None:
    """Makes the interpreter round to bf16 as a GPU does, and multiply what it stands for.

    It keeps bf16 as its upper 16 bits of an f32: it cuts the others off, and tl.dot multiplies the
    bits as integers. Its other operations do too: kernels have bf16 in loads, products and stores
    alone.
    """
    cast, dot = builder.cast_impl, builder.create_dot

    def widened(x: Any) -> Any:
        if x.dtype.scalar != tl.bfloat16:
            return x
        bits = np.asarray(x.data, np.uint16).astype(np.uint32) << np.uint32(16)
        return handle(bits.view(np.float32), tl.float32)

    def cast_impl(self: Any, source: Any, to: Any) -> Any:
        if to.scalar != tl.bfloat16 or source.dtype.scalar == tl.bfloat16:
            return cast(self, widened(source), to)
        values = np.asarray(source.data).astype(np.float32)
        words = values.view(np.uint32)
        nearest = words + np.uint32(0x7FFF) + (words >> np.uint32(16) & np.uint32(1))
        words = np.where(np.isnan(values), words | np.uint32(1 << 22), nearest)
        return handle((words >> np.uint32(16)).astype(np.uint16), tl.bfloat16)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    builder.cast_impl, builder.create_dot = cast_impl, create_dot


class Worker:
    """Holds blocks of memory and loaded programs, both by number."""

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray[Any, Any]] = {}
        self.programs: dict[int, list[tuple[Callable[[list[int]], None], list[int]]]] = {}
        self.interpreter = Interpreter()

    def handle(self, m: dict[str, Any], payload: bytes) -> bytes:
        do = m["do"]
        if do == "allocate":
            raw = np.zeros(m["nbytes"] + _ALIGN, np.uint8)
            start = -raw.ctypes.data % _ALIGN
            self.blocks[m["block"]] = raw[start : start + m["nbytes"]]
        elif do == "write":
            start = m["offset"]
            self.blocks[m["block"]][start : start + len(payload)] = np.frombuffer(payload, np.uint8)
        elif do == "read":
            start = m["offset"]
            return self.blocks[m["block"]][start : start + m["nbytes"]].tobytes()
        elif do == "load":
            self.load(m)
        elif do == "run":
            with np.errstate(all="ignore"):
                for launch, addresses in self.programs[m["program"]][m["first"] : m["end"]]:
                    launch(addresses)
        elif do == "free":
            self.programs.pop(m.get("program", -1), None)
            for block in m["blocks"]:
                del self.blocks[block]
        else:
            raise ValueError(do)
        return b""

    def load(self, m: dict[str, Any]) -> None:
        modules = {name: self.interpreter.functions(text) for name, text in m["sources"].items()}
        launchers, pointers = {}, {}
        for name, one in m["launches"].items():
            entry = getattr(modules[one["source"]], one["entry"])
            launchers[name] = self.interpreter.launcher(entry, one["types"], one["programs"])
            starts = [self.blocks[b].ctypes.data + offset for b, offset in one["args"]]
            pointers[name] = list(zip(starts, one["moves"], strict=True))
        self.programs[m["program"]] = [
            (launchers[name], [start + t * move for start, move in pointers[name]])
            for name, t in m["runs"]
        ]


def main() -> None:
    # An orderly end, so that the folder of sources goes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    # What kernels print goes to standard error: standard output carries the messages.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    try:
        worker = Worker()
    except ImportError as error:
        send(replies, {"missing": str(error)})
        return
    send(replies, {"ready": True})
    while (message := receive(requests)) is not None:
        try:
            send(replies, {"ok": True}, worker.handle(*message))
        except Exception:
            send(replies, {"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
