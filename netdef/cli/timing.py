"""`netdef time`: how long one step takes, and how its work is spread over the kernels."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output

if TYPE_CHECKING:
    from runtime.executable import Executable
    from schemas.program import Program

HEADS = ("kernel", "kind", "layers", "Mflop", "% of flops", "MB touched")


@click.command("time")
@options.net_argument
@options.phase_option()
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Number of steps to time.",
)
@options.shape_option
@options.layer_set_option
@options.backend_option
@options.threads_option
@options.json_option
def time_(
    net: str,
    phase: str | None,
    iterations: int,
    shapes: tuple[str, ...],
    sets: tuple[str, ...],
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time NET: whole steps, measured, and the work of each kernel, counted.

    In phase TRAIN a step is forward, backward and update by plain SGD; in phase TEST a forward
    pass. Inputs are random, and stay in the device's memory. The times are measured; the columns
    of the table are counted from the kernels' loops, not measured.
    """
    from netdef.engine import open_engine
    from netdef.stepping import step_of

    spec = options.read_net(net, sets)
    step, arena, phase, _ = step_of(spec, phase, options.read_shapes(shapes))
    engine = open_engine(backend, threads=threads)
    try:
        begun = time.perf_counter()
        exe = engine.load(step, arena)
        compiled = time.perf_counter() - begun
        _fill(exe)
        times = measure(exe, iterations)
        program = exe.program
        where = f"{engine.name} on {engine.describe()}"
    finally:
        engine.close()
    if as_json:
        facts = {"net": program.name, "phase": phase, "backend": where, "compile_seconds": compiled}
        output.print_json({**facts, **document(program, times)})
        return
    print(f"{program.name or net}, phase {phase}, {where}; compiled in {output.seconds(compiled)}")
    _show(program, times, "training step" if step.graph.updates else "forward pass")


def _show(program: Program, times: list[float], what: str) -> None:
    low, middle = (f"{1e3 * f(times):.3f} ms" for f in (min, statistics.median))
    count = output.amount(len(times), what)
    print(f"{count}: fastest {low}, median {middle}\n")
    output.print_table(HEADS, *_table(program), right=HEADS[3:])


def measure(exe: Executable, iterations: int) -> list[float]:
    """Returns the seconds of each of so many steps, after a few that warm up."""
    for _ in range(min(3, iterations)):
        exe.run()
    exe.synchronize()
    times = []
    for _ in range(iterations):
        begun = time.perf_counter()
        exe.run()
        exe.synchronize()
        times.append(time.perf_counter() - begun)
    return times


def document(program: Program, times: list[float]) -> dict[str, Any]:
    """Returns times and counts as plain data."""
    kernels = [
        {"kernel": k.name, "kind": k.kind, "layers": k.layers, "flops": k.flops, "bytes": k.bytes}
        for launch in program.launches
        for k in launch.kernels
    ]
    return {
        "iterations": len(times),
        "fastest_seconds": min(times),
        "median_seconds": statistics.median(times),
        "launches": len(program.launches),
        "kernels": kernels,
    }


def _table(program: Program) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    kernels = [k for launch in program.launches for k in launch.kernels]
    flops, touched = sum(k.flops for k in kernels), sum(k.bytes for k in kernels)
    rows: list[tuple[str, ...]] = [
        (
            k.name,
            k.kind,
            "+".join(k.layers),
            f"{k.flops / 1e6:,.3f}",
            f"{100 * k.flops / max(1, flops):.1f}",
            f"{k.bytes / 1e6:,.3f}",
        )
        for k in kernels
    ]
    return rows, ("total", "", "", f"{flops / 1e6:,.3f}", "100.0", f"{touched / 1e6:,.3f}")


def _fill(exe: Executable) -> None:
    """Gives inputs and weights values: zeros would be faster than anything real."""
    import numpy as np

    from runtime.params import initialise

    initialise(exe, 1)
    random = np.random.default_rng(1)
    labels = {top for feed in exe.program.feeds for top in feed.tops[1:]}
    for name, tensor in exe.program.tensors.items():
        if tensor.role == "input":
            value = random.random(tensor.shape, np.float32)
            exe.write(name, np.zeros(tensor.shape, np.float32) if name in labels else value)
    if "lr" in exe.program.tensors:
        exe.write("lr", 1e-6)
