"""Command line of the bench: what it can measure, one command each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from bench.cases import CASES, GPU_CASES, OPERATIONS, ROOT, STATIC_CASES, Mode, case_of
from bench.machine import commit, describe, find_gpu
from bench.measure import Comparison, Options, compare
from bench.report import as_json, rows, show, write_json
from schemas.errors import NetError
from schemas.precision import PRECISIONS, Precision

if TYPE_CHECKING:
    from bench.static import Findings

F = TypeVar("F", bound=Callable[..., Any])
RESULTS = ROOT / "bench" / "results"
_nets = click.argument("nets", nargs=-1, type=click.Choice(list(CASES)))
_FAST = [one for one in PRECISIONS if one != "fp32"]
_gpu_nets = click.argument("nets", nargs=-1, type=click.Choice(list(GPU_CASES)))
_static_nets = click.argument("nets", nargs=-1, type=click.Choice(list(STATIC_CASES)))
_target = click.option(
    "--target", default="sm_90", show_default=True, help="sm_80, sm_90, sm_100, gfx942."
)
_static_json = click.option(
    "--json", "path", type=Path, help="Default: bench/results/static-TARGET.json."
)
_precision = click.option(
    "--precision", type=click.Choice(PRECISIONS), help="Default: the target's own."
)
_threads = click.option("--threads", type=click.IntRange(1), default=2, help="Of each peer.")


def _rounds(count: int) -> Callable[[F], F]:
    return click.option("--rounds", type=click.IntRange(1), default=count, help="Of A B C, B C A.")


@click.group()
def main() -> None:
    """Measure netdef beside its peers. Always exits 0; judges nothing."""


@main.command()
@_nets
@click.option("--json", "path", type=Path, default=RESULTS / "cpu.json", help="Where to write.")
@_rounds(7)
@click.option("--seconds", default=0.2, help="About this long for a peer in a round.")
@_threads
@click.option("--compile", "compiled", is_flag=True, help="torch.compile too (slow to start).")
@click.option("--batch", type=click.IntRange(1), help="Another batch than the net's own.")
@click.option("--mode", type=click.Choice(get_args(Mode)), multiple=True, help="Default: both.")
@click.option("--peer", "peers", multiple=True, help="In place of PyTorch: module:class:flavour.")
def cpu(
    nets: tuple[str, ...],
    path: Path,
    rounds: int,
    seconds: float,
    threads: int,
    compiled: bool,
    batch: int | None,
    mode: tuple[Mode, ...],
    peers: tuple[str, ...],
) -> None:
    """Training and inference of NETS (default: all) beside PyTorch."""
    machine = describe()
    options = Options(threads=threads, rounds=rounds, seconds=seconds)
    chosen = peers or ("eager", "channels_last", *(["compile"] if compiled else []))
    click.echo(f"{machine['cpu']}, {machine['processors']} processors, {threads} threads, fp32")
    found: list[Comparison] = []
    settings = {"threads": threads, "rounds": rounds, "seconds": seconds, "precision": "fp32"}
    for net in nets or CASES:
        case = case_of(net, batch)
        for each in mode or case.modes:
            found.append(compare(case, each, ("netdef", *chosen, "sgemm"), options, click.echo))
            document = {**machine, "options": settings, "comparisons": [as_json(c) for c in found]}
            write_json(path, document)  # a run that is cut keeps what it has
    show(rows(found))
    click.echo(f"written: {path}")


@main.command()
@_gpu_nets
@click.option("--json", "path", type=Path, help="Default: bench/results/<gpu name>.json.")
@_rounds(7)
@click.option("--precision", "precisions", default=",".join(_FAST), show_default=True)
@click.option("--mode", type=click.Choice(get_args(Mode)), multiple=True, help="Default: both.")
@click.option("--budget", default=540, show_default=True, help="Seconds; then nothing new begins.")
@click.option("--operation", "operations", multiple=True, type=click.Choice([*OPERATIONS]))
@click.option("--missing", is_flag=True, help="Only what the file has not.")
@click.option("--dry-run", is_flag=True, help="No GPU: tiny batches on a driver made of Python.")
def gpu(
    nets: tuple[str, ...],
    path: Path | None,
    rounds: int,
    precisions: str,
    mode: tuple[Mode, ...],
    budget: int,
    operations: tuple[str, ...],
    missing: bool,
    dry_run: bool,
) -> None:
    """GPU tests, then NETS beside the reference and PyTorch on a GPU, then single operations.

    What is found is added to what the file has.
    """
    from bench.gpu import Plan, Script
    from bench.targets import COLUMNS as TARGETS
    from bench.targets import targets

    if not nets and not operations:
        nets, operations = tuple(GPU_CASES), tuple(OPERATIONS)
    chosen = _precisions(precisions)[::-1]  # what is fastest first
    plan = Plan(
        nets, rounds, chosen, mode or get_args(Mode), operations, float(budget), missing, dry_run
    )
    name, found = ("dry-run", None) if dry_run else find_gpu(click.echo)
    path = path or RESULTS / f"{name}.json"
    script = Script(plan, found, _known(path), click.echo, partial(write_json, path))
    script.run()
    if table := rows([*script.rows.values()]):
        show(table)
    show([*targets(script.rows, script.document.get("operations", {}))], TARGETS)
    click.echo(f"written: {path}")


@main.command("compile")
@_gpu_nets
@_target
@click.option("--precision", "precisions", default=",".join(_FAST), show_default=True)
@click.option("--mode", type=click.Choice(get_args(Mode)), multiple=True, help="Default: both.")
@click.option("--json", "path", type=Path, default=RESULTS / "gpu.json", show_default=True)
def compile_(
    nets: tuple[str, ...], target: str, precisions: str, mode: tuple[Mode, ...], path: Path
) -> None:
    """Do what `gpu` does on NETS and the operations, for a GPU that need not be there, but run.

    Programs lie in the cache afterwards, the reference's losses in the file: of
    `gpu --missing --json` with that file, only what needs the GPU is left.
    """
    from bench.gpu import Plan, Script

    plan = Plan(
        nets or tuple(GPU_CASES),
        precisions=_precisions(precisions),
        modes=mode or get_args(Mode),
        operations=() if nets else tuple(OPERATIONS),
        budget=float("inf"),
    )
    save = partial(write_json, path)
    Script(plan, {"target": target}, _known(path), click.echo, save).compile()


@main.command()
@click.argument("net", type=click.Choice(list(STATIC_CASES)))
@click.option("--batch", type=click.IntRange(1), help="Another batch than that of the GPU rows.")
@click.option("--side", type=click.IntRange(1), help="Pixels; default: those of the GPU rows.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Default: the GPU's own.")
@click.option("--emulate", type=click.Choice(["sm_80", "sm_90"]), help="In place of a GPU; slow.")
def locate(
    net: str,
    batch: int | None,
    side: int | None,
    precision: Precision | None,
    emulate: str | None,
) -> None:
    """Run a training step of NET on a GPU launch by launch; name kernels that fail or are off."""
    from bench.locate import EMULATED, PATIENCE
    from bench.locate import locate as find
    from netdef.engine import Engine, open_engine

    case = STATIC_CASES[net]
    item = (case.item[0], side, side) if side else case.item
    case = replace(case, batch=batch or case.batch, item=item)
    try:
        if emulate:
            from compiler.backends import get_backend
            from tests.gpu.emulated import EmulatedDevice

            backend = get_backend("triton", emulate, precision)
            engine = Engine(backend, EmulatedDevice(emulate))
        else:
            engine = open_engine("triton", precision=precision)
        find(case, engine, click.echo, EMULATED if emulate else PATIENCE)
    except NetError as error:
        click.echo(f"FAILS: {error}")


@main.command()
@_static_nets
@_target
@_precision
@click.option("--cached", is_flag=True, help="With the user's caches, and not timed.")
@_static_json
def static(
    nets: tuple[str, ...],
    target: str,
    precision: Precision | None,
    cached: bool,
    path: Path | None,
) -> None:
    """Training steps and forward passes of NETS compiled for a GPU that need not be there.

    Other nets that the file has stay in it.
    """
    from bench.static import COLUMNS, examine, row

    path, table = path or RESULTS / f"static-{target}.json", []
    for net in nets or STATIC_CASES:
        found = examine(net, target, precision, cached)
        table.append(row(found))
        _keep(path, target, "nets", found)
    show(table, COLUMNS)
    click.echo(f"written: {path}")


@main.command()
@_static_nets
@_target
@click.option("--precision", "precisions", default=",".join(_FAST), show_default=True)
@_static_json
def predict(nets: tuple[str, ...], target: str, precisions: str, path: Path | None) -> None:
    """Training steps of NETS planned for a GPU, compiled by nobody: launches, traffic, times."""
    from bench.static import PLANNED, planned_row
    from bench.static import predict as plan

    path, table = path or RESULTS / f"static-{target}.json", []
    say = cache(click.echo)  # what holds for several rows is said once
    for net in nets or STATIC_CASES:
        for precision in _precisions(precisions):
            found = plan(net, target, precision, say)
            table.append(planned_row(found))
            _keep(path, target, "predicted", found)
    show(table, PLANNED)
    click.echo(f"written: {path}")


@main.command()
@click.argument("net", type=click.Choice(list(STATIC_CASES)))
@click.option("--target", type=click.Choice(["sm_80", "sm_90"]), default="sm_90", show_default=True)
@_precision
def issue(net: str, target: str, precision: Precision | None) -> None:
    """What each launch of NET's training step asks of a GPU's processors, without a GPU."""
    from bench.issue import COLUMNS, asked, row
    from bench.static import compiled

    found = list(asked(compiled(net, target, precision)))
    found.sort(key=lambda one: -one.longest)
    show([row(one) for one in found], COLUMNS)
    planned, longest = sum(o.planned for o in found), sum(o.longest for o in found)
    click.echo(f"planned {planned * 1e6:,.0f} us; by what takes longest {longest * 1e6:,.0f} us")


def _keep(path: Path, target: str, section: str, found: Findings) -> None:
    """Adds what was found to a section of a file; the rest of it stays."""
    from bench.static import plain

    kept = _known(path)
    nets = kept.get(section, {}) | {
        f"{found.net} {found.precision}": {**plain(found), "commit": commit()}
    }
    write_json(path, {**kept, **describe(), "target": target, section: nets})


def _known(path: Path) -> dict[str, Any]:
    """Returns what a result file has, nothing if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def _precisions(text: str) -> tuple[Precision, ...]:
    """Returns the precisions of a list with commas, in our order."""
    if unknown := set(text.split(",")) - set(PRECISIONS):
        known = ", ".join(PRECISIONS)
        raise click.BadParameter(f"{', '.join(unknown)}: give some of {known}, with commas")
    return tuple(one for one in PRECISIONS if one in text.split(","))


@main.command()
@_nets
@click.option("--json", "path", type=Path, default=RESULTS / "startup.json")
@_rounds(3)
@_threads
@click.option("--compile", "compiled", is_flag=True, help="torch.compile too (slow).")
@click.option("--peer", "peers", multiple=True, help="In place of PyTorch: module:class:flavour.")
def startup(
    nets: tuple[str, ...],
    path: Path,
    rounds: int,
    threads: int,
    compiled: bool,
    peers: tuple[str, ...],
) -> None:
    """Seconds from process start to the end of the first training step, cold and warm."""
    from bench.startup import COLUMNS, as_rows, measure

    machine = describe()
    chosen = peers or ("eager", *(["compile"] if compiled else []))
    found = measure(nets or tuple(CASES), ("netdef", *chosen), threads, rounds, click.echo)
    show(as_rows(found), COLUMNS)
    write_json(path, {**machine, "threads": threads, "startup": [r.plain() for r in found]})
    click.echo(f"written: {path}")


@main.command()
@_nets
@click.option("--folder", type=Path, default=RESULTS / "cpu", help="Where to write NET.txt.")
@click.option("--iterations", type=click.IntRange(1), default=10, help="Steps of each net.")
@_threads
def profile(nets: tuple[str, ...], folder: Path, iterations: int, threads: int) -> None:
    """Keep what `netdef time` says of a training step of NETS (default: all) on the CPU."""
    from bench.profile import profile as keep

    keep(nets or tuple(CASES), folder, threads, iterations, click.echo)


@main.command()
@click.argument("folder", type=Path, default=ROOT.parent / "shared" / "corpus")
def corpus(folder: Path) -> None:
    """Check every prototxt below FOLDER: what passes, what is unsupported, what fails."""
    from bench.corpus import check_corpus, report

    if not folder.is_dir():
        click.echo(f"there is no folder {folder}: nothing is checked")
        return
    click.echo(report(check_corpus(folder), folder))


if __name__ == "__main__":
    main(prog_name="python -m bench")
