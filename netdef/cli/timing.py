"""`netdef time`: how long one step takes, and how its work is spread over the kernels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output

if TYPE_CHECKING:
    from netdef.ceilings import Ceilings
    from netdef.measuring import LayerTime, Measured
    from schemas.precision import Precision
    from schemas.program import Program, Way

RATES = ("ms", "GFLOP/s", "of peak", "GB/s", "of copy")
LAYERS = ("layer", *(f"forward {RATES[0]}", *RATES[1:]), *(f"backward {RATES[0]}", *RATES[1:]))
KERNELS = ("kernel", "kind", "way", "layers", "Mflop", "MB", *RATES)


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
@click.option(
    "--trace", metavar="FILE.json", help="Write the fastest step as a Chrome trace (JSON)."
)
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
    trace: str | None,
) -> None:
    """Time NET: whole steps, layers and kernels, beside what this machine can do at best.

    In phase TRAIN a step is forward, backward and update by plain SGD; in phase TEST a forward
    pass. Inputs are random and stay in the device's memory; data that is not here has an assumed
    shape (--input-shape gives it; --set data.batch_size=16 sets the batch). Milliseconds are
    medians over the steps.

    \b
    ms       a kernel's time, the mean of the threads; `waiting` is what they wait for each other
    Mflop    additions and multiplications, counted from the kernel's loops
    MB       what is read and written if each number moves once
    of peak  GFLOP/s as a share of a large product of matrices, timed just before: NumPy's, on a
             GPU netdef's own in the same precision
    of copy  GB/s as a share of a large copy; above 100 % the numbers come from caches
    way      forward: outputs depend on it; update: the solver's; backward: all others

    A kernel of several layers counts for the first of them, and of a loss that makes its gradient
    at once as forward. A kernel of a loop over 50 time steps is marked x50; its numbers are those
    of all steps. On a GPU launches are timed, in a step with events between them: a little slower
    than the steps above. Kernels of one launch run at once and share its time by their work.

    A --trace is for chrome://tracing or ui.perfetto.dev: a row a thread, an event a kernel (those
    of a loop: one for all time steps). Where kernels are not timed, it splits the step by their
    counted work, and says so.
    """
    from netdef.device_ceilings import device_ceilings
    from netdef.engine import open_engine
    from netdef.measuring import fill_inputs, measure
    from netdef.stepping import step_of

    if trace is not None:
        output.check_ending(trace, ".json")
    spec = options.read_net(net, sets, reading)
    step, arena, phase, _ = step_of(spec, phase, options.read_shapes(shapes))
    engine = open_engine(backend, threads=threads, precision=precision)
    try:
        begun = time.perf_counter()
        exe = engine.load(step, arena)
        compiled = time.perf_counter() - begun
        fill_inputs(exe, step.graph.first)
        best = device_ceilings(engine)
        measured = measure(exe, iterations)
        where = f"{engine.name} on {engine.describe()}, {engine.backend.precision}"
    finally:
        engine.close()
    if trace is not None:
        output.write_file(Path(trace), output.json_text(measured.trace()).encode())
    program = measured.program
    if as_json:
        facts = {"net": program.name, "phase": phase, "backend": where, "compile_seconds": compiled}
        output.print_json({**facts, **document(measured, best)})
        return
    print(f"{program.name or net}, phase {phase}, {where}; compiled in {output.seconds(compiled)}")
    _show(measured, best, "training step" if step.graph.updates else "forward pass")
    if trace is not None:
        print(f"\n{trace}: the fastest step, for chrome://tracing or ui.perfetto.dev")


def document(measured: Measured, best: Ceilings | None) -> dict[str, Any]:
    """Returns times and counts as plain data."""
    from netdef.measuring import by_layer

    program, seconds = measured.program, measured.kernels()
    kernels = [
        {
            "kernel": k.name,
            "launch": n,
            "kind": k.kind,
            "way": k.way,
            "layers": k.layers,
            "steps": launch.repeat.count if launch.repeat else 1,
            "flops": k.flops,
            "bytes": k.bytes,
        }
        for n, launch in enumerate(program.launches)
        for k in launch.kernels
    ]
    for kernel, taken in zip(kernels, seconds, strict=True):
        kernel["seconds"] = taken
    names = ("seconds", "flops", "bytes")
    return {
        "iterations": len(measured.times),
        "fastest_seconds": min(measured.times),
        "median_seconds": measured.median,
        "waiting_seconds": measured.waiting(),
        "peak_gflops": best.gflops if best else None,
        "copy_gbytes": best.gbytes if best else None,
        "launches": len(program.launches),
        "layers": [
            {"layer": one.name, "with": list(one.others), **{n: getattr(one, n) for n in names}}
            for one in by_layer(program, seconds)
        ],
        "kernels": kernels,
    }


def _show(measured: Measured, best: Ceilings | None, what: str) -> None:
    from netdef.measuring import by_layer

    program, seconds = measured.program, measured.kernels()
    low, middle = (f"{1e3 * t:.3f} ms" for t in (min(measured.times), measured.median))
    print(f"{output.amount(len(measured.times), what)}: fastest {low}, median {middle}")
    if best is not None:
        print(f"here now: product {best.gflops:.0f} GFLOP/s, copy {best.gbytes:.1f} GB/s")
    print()
    layers = by_layer(program, seconds)
    if any(one.seconds.get("forward") is not None for one in layers):
        rows = [
            (one.name, *_way(one, "forward", best), *_way(one, "backward", best)) for one in layers
        ]
        output.print_table(LAYERS, rows, right=LAYERS[1:])
        print()
    rest = [("waiting", waiting)] if (waiting := measured.waiting()) else []
    rows = [
        *_kernel_rows(program, seconds, best),
        *((name, *[""] * 5, _ms(taken), *[""] * 4) for name, taken in rest),
    ]
    kernels = [k for launch in program.launches for k in launch.kernels]
    flops, nbytes = sum(k.flops for k in kernels), sum(k.bytes for k in kernels)
    counts = (f"{flops / 1e6:,.3f}", f"{nbytes / 1e6:,.3f}")
    total = ("total", "", "", "", *counts, *_rates(measured.median, flops, nbytes, best))
    output.print_table(KERNELS, rows, total, right=KERNELS[4:])


def _kernel_rows(
    program: Program, seconds: Sequence[float | None], best: Ceilings | None
) -> list[tuple[str, ...]]:
    kernels = [(launch, k) for launch in program.launches for k in launch.kernels]
    rows: list[tuple[str, ...]] = []
    for (launch, k), taken in zip(kernels, seconds, strict=True):
        kind = f"{k.kind} x{launch.repeat.count}" if launch.repeat else k.kind
        counts = f"{k.flops / 1e6:,.3f}", f"{k.bytes / 1e6:,.3f}"
        rates = _rates(taken, k.flops, k.bytes, best)
        rows.append((k.name, kind, k.way, "+".join(k.layers), *counts, *rates))
    return rows


def _way(one: LayerTime, way: Way, best: Ceilings | None) -> tuple[str, ...]:
    taken = one.seconds.get(way)
    return _rates(taken, one.flops.get(way, 0), one.bytes.get(way, 0), best)


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3f}"


def _rates(
    seconds: float | None, flops: int, nbytes: int, best: Ceilings | None
) -> tuple[str, ...]:
    """Returns the cells of RATES."""
    if not seconds:
        return ("",) * len(RATES)
    gflops, gbytes = flops / seconds / 1e9, nbytes / seconds / 1e9
    peak = f"{gflops / best.gflops:.0%}" if best else ""
    copy = f"{gbytes / best.gbytes:.0%}" if best else ""
    return _ms(seconds), f"{gflops:.1f}", peak, f"{gbytes:.1f}", copy
