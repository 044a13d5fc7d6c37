"""Compiles modules in several processes, and looks whether a binary takes no more than there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.helpers import processors, run_all
from compiler.triton_source.aot import Binary, compile_if_it_fits
from compiler.triton_source.checks import amd_resources, resources
from compiler.triton_source.function import Module
from compiler.triton_source.tiles import Target

# A process that helps takes 0.5 s to start, about as long as it compiles a kernel.
_PROCESSES, _WORTH = 8, 4


@dataclass(frozen=True, slots=True)
class Task:
    """A module to compile; `aligned` says which pointers are multiples of 16 bytes."""

    module: Module
    target: Target
    aligned: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a module compiled to, if it did; `unfit` says what is wrong with it."""

    binary: Binary | None
    unfit: str = ""


def compile_all(tasks: Sequence[Task]) -> list[Attempt]:
    """Compiles modules, those with most text first."""
    processes = min(_PROCESSES, processors(), 1 + len(tasks) // _WORTH)
    return run_all(attempt, tasks, processes, cost=lambda task: len(task.module.source))


def attempt(task: Task) -> Attempt:
    """Compiles a module."""
    target = task.target
    binary = compile_if_it_fits(task.module, target, task.aligned)
    if isinstance(binary, str):
        return Attempt(None, binary)
    # Triton does not always give parts of a binary the same shared memory, one after another.
    if binary.meta["shared"] > target.shared:
        return Attempt(binary, f"{binary.meta['shared']} bytes of shared memory")
    used = amd_resources(binary.text["amdgcn"]) if target.amd else resources(binary.code)
    return Attempt(binary, f"{used[1]} bytes of spilled registers" if used and used[1] else "")
