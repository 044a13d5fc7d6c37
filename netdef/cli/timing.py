"""`netdef time`: how long one step takes, and how its work is spread over the kernels."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output

if TYPE_CHECKING:
    from runtime.executable import Executable
    from schemas.precision import Precision
    from schemas.program import Program

Shares = list[float] | None

HEADS = ("kernel", "kind", "layers", "ms", "Mflop", "GFLOP/s", "MB", "GB/s")


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
@options.reading_options
@options.shape_option
@options.layer_set_option
@options.backend_option
@options.precision_option
@options.threads_option
@options.json_option
def time_(
    net: str,
    phase: str | None,
    iterations: int,
    reading: options.Reading,
    shapes: tuple[str, ...],
    sets: tuple[str, ...],
    backend: str,
    precision: Precision | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time NET: whole steps and each launch, measured; the work of each kernel, counted.

    In phase TRAIN a step is forward, backward and update by plain SGD; in phase TEST a forward
    pass. Inputs are random, and stay in the device's memory. Milliseconds are medians; they are
    of a launch, which may hold several kernels (a + before the name: it shares the time above).
    A kernel of a loop over 50 time steps is marked x50; its numbers are those of all steps.
    Mflop and MB are counted from the kernels' loops.
    """
    from netdef.engine import open_engine
    from netdef.stepping import step_of

    spec = options.read_net(net, sets, reading)
    step, arena, phase, _ = step_of(spec, phase, options.read_shapes(shapes))
    engine = open_engine(backend, threads=threads, precision=precision)
    try:
        begun = time.perf_counter()
        exe = engine.load(step, arena)
        compiled = time.perf_counter() - begun
        _fill(exe, step.graph.first)
        times, shares = measure(exe, iterations)
        program = exe.program
        where = f"{engine.name} on {engine.describe()}, {engine.backend.precision}"
    finally:
        engine.close()
    if as_json:
        facts = {"net": program.name, "phase": phase, "backend": where, "compile_seconds": compiled}
        output.print_json({**facts, **document(program, times, shares)})
        return
    print(f"{program.name or net}, phase {phase}, {where}; compiled in {output.seconds(compiled)}")
    _show(program, times, shares, "training step" if step.graph.updates else "forward pass")


def _show(program: Program, times: list[float], shares: Shares, what: str) -> None:
    low, middle = (f"{1e3 * f(times):.3f} ms" for f in (min, statistics.median))
    count = output.amount(len(times), what)
    print(f"{count}: fastest {low}, median {middle}\n")
    table = _table(program, shares, statistics.median(times))
    output.print_table(HEADS, *table, right=HEADS[3:])


def measure(exe: Executable, iterations: int) -> tuple[list[float], Shares]:
    """Returns the seconds of each of so many steps, and the median share of each launch."""
    for _ in range(min(3, iterations)):
        exe.run()
    exe.synchronize()
    times, parts = [], []
    for _ in range(iterations):
        begun = time.perf_counter()
        exe.run()
        exe.synchronize()
        times.append(time.perf_counter() - begun)
        if (shares := exe.launch_shares()) is not None:
            parts.append(shares)
    return times, [statistics.median(p) for p in zip(*parts, strict=True)] or None


def document(program: Program, times: list[float], shares: Shares) -> dict[str, Any]:
    """Returns times and counts as plain data."""
    kernels = [
        {
            "kernel": k.name,
            "kind": k.kind,
            "layers": k.layers,
            "steps": launch.repeat.count if launch.repeat else 1,
            "flops": k.flops,
            "bytes": k.bytes,
        }
        for launch in program.launches
        for k in launch.kernels
    ]
    return {
        "iterations": len(times),
        "fastest_seconds": min(times),
        "median_seconds": statistics.median(times),
        "launches": len(program.launches),
        "launch_shares": shares,
        "kernels": kernels,
    }


def _table(
    program: Program, shares: Shares, step: float
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for n, launch in enumerate(program.launches):
        seconds = shares[n] * step if shares is not None else None
        flops, touched = (sum(getattr(k, a) for k in launch.kernels) for a in ("flops", "bytes"))
        for i, k in enumerate(launch.kernels):
            # What a launch does in all stands in the row of its first kernel.
            rates = _rates(seconds, flops, touched) if i == 0 else ("", "", "")
            name = k.name if i == 0 else f"+ {k.name}"
            counts = f"{k.flops / 1e6:,.3f}", f"{k.bytes / 1e6:,.3f}"
            layers = "+".join(k.layers)
            kind = f"{k.kind} x{launch.repeat.count}" if launch.repeat else k.kind
            rows.append((name, kind, layers, rates[0], counts[0], rates[1], counts[1], rates[2]))
    kernels = [k for launch in program.launches for k in launch.kernels]
    flops, touched = sum(k.flops for k in kernels), sum(k.bytes for k in kernels)
    rates = _rates(step, flops, touched)
    total = (rates[0], f"{flops / 1e6:,.3f}", rates[1], f"{touched / 1e6:,.3f}", rates[2])
    return rows, ("total", "", "", *total)


def _rates(seconds: float | None, flops: int, touched: int) -> tuple[str, str, str]:
    if not seconds:
        return "", "", ""
    return f"{1e3 * seconds:.3f}", f"{flops / seconds / 1e9:.1f}", f"{touched / seconds / 1e9:.1f}"


def _fill(exe: Executable, first: dict[str, Any]) -> None:
    """Gives inputs and weights values: zeros would be faster than anything real."""
    import numpy as np

    from runtime.params import initialise

    initialise(exe, 1, first)
    random = np.random.default_rng(1)
    labels = {top for feed in exe.program.feeds for top in feed.tops[1:]}
    for name, tensor in exe.program.tensors.items():
        if tensor.role == "input":
            value = random.random(tensor.shape, np.float32)
            exe.write(name, np.zeros(tensor.shape, np.float32) if name in labels else value)
    if "lr" in exe.program.tensors:
        exe.write("lr", 1e-6)
