"""Runs a program file: its forward pass on its device, without compiler, LLVM or Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from netdef.arrays import numbers
from runtime.contents import put
from runtime.executable import Device
from schemas.errors import BackendError, SourceError, UsageError, did_you_mean
from schemas.program import CHANGED, Program
from schemas.program_file import unpack_program

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def read_program(path: str | Path) -> Program:
    """Reads a program from a file. Raises SourceError for anything but a whole program file."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    return unpack_program(content, str(path))


def load_program(path: str | Path, threads: int | None = None) -> LoadedProgram:
    """Reads a program file and loads it on the device that it was compiled for.

    Raises SourceError for a file that is no whole program, BackendError where it cannot run here.
    """
    return LoadedProgram(read_program(path), threads)


class LoadedProgram:
    """A forward pass with its weights, on a device. It runs with the shapes it was compiled for."""

    def __init__(self, program: Program, threads: int | None = None) -> None:
        if program.meta.get("step") == "training":
            raise UsageError(
                f"program '{program.name}' is a training step, not a forward pass",
                hint="compile the net without --solver",
            )
        self.program = program
        self._exe = _device(program, threads).load(program)
        put(program, self._exe)
        self._runs = 0

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of each input blob."""
        return {n: t.shape for n, t in self.program.tensors.items() if t.role == "input"}

    @property
    def outputs(self) -> dict[str, Shape]:
        """The shape of each output blob."""
        tensors = self.program.tensors
        return {n.removeprefix(CHANGED): tensors[n].shape for n in self.program.outputs}

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Runs the program and returns its outputs by name.

        Inputs are arrays of numbers in Caffe's axis order, all of them, each of exactly its shape.
        Hidden states that a net carries from batch to batch go on from the run before.
        """
        shapes = self.inputs
        for name in inputs:
            if name not in shapes:
                message = f"program '{self.program.name}' has no input '{name}'"
                raise UsageError(message, hint=did_you_mean(name, shapes))
        if missing := [f"'{n}' {s}" for n, s in shapes.items() if n not in inputs]:
            message = f"program '{self.program.name}' needs its input {', '.join(missing)}"
            labels = "compiled with --deploy, a net needs no labels"
            raise UsageError(message, hint=labels if len(shapes) > 1 else None)
        given = {name: numbers(name, value) for name, value in inputs.items()}
        for name, array in given.items():
            if array.shape != shapes[name]:
                message = f"input '{name}' has shape {shapes[name]}, not {array.shape}"
                shape = ",".join(map(str, array.shape))
                hint = f"compile the net for it: --input-shape {name}={shape}"
                raise UsageError(message, hint=hint)
        for name, array in given.items():
            self._exe.write(name, array)
        self._exe.write("iteration", self._runs)
        self._runs += 1
        self._exe.run()
        outputs = self.program.outputs
        return {name.removeprefix(CHANGED): self._exe.read(name) for name in outputs}

    def close(self) -> None:
        """Frees memory and threads."""
        self._exe.close()


def _device(program: Program, threads: int | None) -> Device:
    """Returns the device that a program was compiled for."""
    if program.meta.get("backend") == "cpu":
        from runtime.cpu import CpuDevice

        return CpuDevice(threads)
    if program.target == "interpreter":
        from runtime.triton_interpreter import InterpreterDevice

        return InterpreterDevice()
    if program.target.startswith("sm_"):
        from runtime.cuda import CudaDevice

        return CudaDevice()
    raise BackendError(
        f"program '{program.name}' is for {program.target}, which no device of netdef's runs",
        hint="compile the net with --target cpu, or sm_90 for an NVIDIA GPU",
    )
