"""Compiles modules in several processes, and looks whether a binary takes no more than there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.helpers import processors, run_all
from compiler.triton_source.aot import Binary, compile_if_it_fits
from compiler.triton_source.checks import amd_resources, resources
from compiler.triton_source.function import Module
from compiler.triton_source.text import ceil_div
from compiler.triton_source.tiles import Target

# A process that helps takes 0.5 s to start, about as long as it compiles a kernel.
_PROCESSES, _WORTH = 8, 4

# Registers of a processor of NVIDIA's, and of a thread, which has some at a time.
_FILE, _MOST, _UNIT = 65536, 255, 8


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


def attempt(task: Task, registers: int | None = None) -> Attempt:
    """Compiles a module; where it spills, once more with more `registers` than ptxas chose."""
    target = task.target
    binary = compile_if_it_fits(task.module, target, task.aligned, registers)
    if isinstance(binary, str):
        return Attempt(None, binary)
    # Triton does not always give parts of a binary the same shared memory, one after another.
    if binary.meta["shared"] > target.shared:
        return Attempt(binary, f"{binary.meta['shared']} bytes of shared memory")
    used = amd_resources(binary.text["amdgcn"]) if target.amd else resources(binary.code)
    if used is None or not used[1]:
        return Attempt(binary)
    if registers is None and not target.amd and (more := roomier(used[0], binary.meta["threads"])):
        again = attempt(task, more)
        if not again.unfit:
            return again
    return Attempt(binary, f"{used[1]} bytes of spilled registers")


def roomier(registers: int, threads: int) -> int | None:
    """Returns the registers of a thread where a processor has one block less, None if no more.

    ptxas spills a few to have that block: a choice of its own, as nobody limits what it takes.
    """
    blocks = _FILE // (ceil_div(registers, _UNIT) * _UNIT * threads)
    more = min(_MOST, _FILE // (max(1, blocks - 1) * threads) // _UNIT * _UNIT)
    return more if more > registers else None
