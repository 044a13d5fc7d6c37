"""One kernel as the text of one Triton function, and functions as the text of a module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from compiler.kernels.index import Axis, Index, bounds, index, substitute, unravel
from compiler.kernels.kernel import SCALARS, Kernel, Store, shift, shift_guards
from compiler.kernels.kernel_text import render
from compiler.triton_source.emit import Emitter
from compiler.triton_source.maps import HELPERS
from compiler.triton_source.text import Names, identifier, quoted
from schemas.program import Dtype


@dataclass(frozen=True, slots=True)
class Function:
    """A rendered kernel: `pointers` are its parameters, as (buffer, name, element type).

    `tile` is the number of elements of its smallest tile: more threads than that would be idle.
    `accumulators` are the results of a tile of rows by columns that a thread adds up, `held` the
    numbers that it holds when it stores them.
    """

    name: str
    kernel: Kernel
    pointers: tuple[tuple[str, str, Dtype], ...]
    lines: tuple[str, ...]
    programs: int
    num_warps: int = 4
    num_stages: int = 2
    helpers: frozenset[str] = frozenset()
    tile: int = 1024
    accumulators: int = 0
    held: int = 0

    @property
    def heavy(self) -> bool:
        """Whether it works with matrix tiles, which take most registers and shared memory."""
        return any("tl.dot(" in line for line in self.lines)

    @property
    def stays(self) -> bool:
        """Whether its programs go through several tiles, with all that a processor has."""
        return any("tl.make_tensor_descriptor(" in line for line in self.lines)


def flatten(axes: Sequence[Axis], fallback: str) -> tuple[Axis, dict[Axis, Index]]:
    """Returns one axis over all points of `axes`, and what each of them is in terms of it."""
    sizes = [a.size for a in axes]
    total = 1
    for size in sizes:
        total *= size
    name = "_".join(identifier(a.name) for a in axes if a.size > 1)
    flat = Axis(name if 0 < len(name) <= 16 else fallback, total)
    return flat, dict(zip(axes, unravel(index(flat), sizes), strict=True))


def each_of(s: Store, axes: dict[Axis, Index]) -> Iterator[Store]:
    """Yields the Stores of one element that a Store with few axes of its own stands for."""
    for place in itertools.product(*(range(a.size) for a in s.axes)):
        here = axes | {a: Index(i) for a, i in zip(s.axes, place, strict=True)}
        offset, guards = substitute(s.offset, here), shift_guards(s.guards, here)
        yield replace(s, offset=offset, value=shift(s.value, here), axes=(), guards=guards)


def wide(kernel: Kernel) -> bool:
    """Whether some offset does not fit in 32 bits."""
    return any(bounds(part.offset)[1] >= 2**31 for part in kernel.accesses())


def label(emitter: Emitter, substitution: dict[Axis, Index]) -> None:
    """Lets the variables that decompose a flat index bear the names of the axes."""
    for axis, value in substitution.items():
        if len(value.terms) == 1 and value.const == 0 and value.terms[0][1] == 1:
            emitter.labels.setdefault(value.terms[0][0], identifier(axis.name))


def finish(
    kernel: Kernel,
    emitter: Emitter,
    programs: int,
    num_warps: int,
    num_stages: int = 2,
    accumulators: int = 0,
    held: int = 0,
) -> Function:
    """Returns the function whose body the emitter holds."""
    first, *others = emitter.block.values()
    assert emitter.level == 0
    return Function(
        identifier(kernel.name),
        kernel,
        tuple((buffer, name, dtype) for buffer, (name, dtype) in emitter.pointers.items()),
        tuple(emitter.scopes[0].lines),
        programs,
        num_warps,
        num_stages,
        frozenset(emitter.helpers),
        first * min(others, default=1),
        accumulators,
        held,
    )


def function_text(f: Function, name: str, opening: Sequence[str]) -> str:
    """Returns the definition; a function that does not open a launch is told its program number."""
    parameters = [p for _, p, _ in f.pointers]
    if not opening:
        parameters = ["pid", *parameters]
    lines = ["@triton.jit", f"def {name}({', '.join(parameters)}):"]
    layers = f"Layers: {', '.join(f.kernel.layers)}.\n\n" if f.kernel.layers else ""
    text = quoted(f"{layers}{render(f.kernel)}")
    doc = [f'"""{text.splitlines()[0]}', *text.splitlines()[1:], '"""']
    lines += [f"    {line}" if line else "" for line in (*doc, *opening, *f.lines)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Module:
    """The source of one launch: `entry` is the function that is launched over `programs`.

    `waits`: it may be launched before the launch before it has ended.
    """

    source: str
    entry: str
    pointers: tuple[tuple[str, str, Dtype], ...]
    programs: int
    num_warps: int
    num_stages: int
    waits: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """A loop over time within one launch: its programs stay, and meet after each row of functions.

    `rows` has the number of functions of each row; `moves` how many elements further on the pointer
    of a buffer is in each step. All of the `programs` must run at the same time.
    """

    count: int
    backwards: bool
    rows: tuple[int, ...]
    moves: Mapping[str, int]
    programs: int


BARRIER = "<barrier>"  # the buffer at which the programs of a loop meet: one i32 that starts as 0
# How many programs have made their part of a tile (see parts.py): an i32 for each program of a
# launch, of which each function uses as many as it has tiles. All are 0 between launches.
ARRIVALS = "<arrivals>"

# Programmatic dependent launch (sm_90): a launch may begin while the one before it ends. Before a
# program touches memory it waits until that one has ended, which itself waited so, and all that was
# written can be seen. Then it lets the next launch have what room there is on the processors. In a
# launch that may not begin early, and where the next one may not, both lines do nothing.
_WAIT = ("tl.extra.cuda.gdc_wait()", "tl.extra.cuda.gdc_launch_dependents()")


def module(
    functions: Sequence[Function], name: str, steps: Steps | None = None, waits: bool = False
) -> Module:
    """Returns the source of a launch; several functions are called by ranges of program numbers."""
    opening = (*(_WAIT if waits else ()), "pid = tl.program_id(0)")
    names = Names()
    if steps is not None:
        names.used |= {"step", "t", "tile"}
    entry = names.fresh(name)
    grouped = len(functions) > 1 or steps is not None
    called = [names.fresh(f.name) for f in functions] if grouped else [entry]
    pointers: dict[str, tuple[str, Dtype]] = {}
    for f in functions:
        for buffer, wish, dtype in f.pointers:
            if buffer not in pointers:
                pointers[buffer] = (names.fresh(wish) if grouped else wish), dtype
            assert pointers[buffer][1] == dtype, f"{buffer} is read as two types"
    helpers = sorted(set().union(*(f.helpers for f in functions)))
    if steps is not None and steps.programs > 1:
        pointers[BARRIER] = names.fresh("barrier_ptr"), "i32"
        helpers.append("meet")
    parts = [_header(functions, name), *(_helper(h) for h in helpers)]
    own = () if grouped else opening
    parts += [function_text(f, n, own) for f, n in zip(functions, called, strict=True)]
    if steps is not None:
        parts.append(_through_time(functions, called, entry, pointers, opening, steps))
    elif grouped:
        parts.append(_dispatcher(functions, called, entry, pointers, opening))
    return Module(
        "\n\n".join(parts),
        entry,
        tuple((b, n, t) for b, (n, t) in pointers.items()),
        steps.programs if steps is not None else sum(f.programs for f in functions),
        max(f.num_warps for f in functions),
        max(f.num_stages for f in functions),
        waits,
    )


def _header(functions: Sequence[Function], name: str) -> str:
    kinds = sorted({f.kernel.kind for f in functions})
    title = quoted(f"{name}: {', '.join(kinds)}. Written by netdef; do not edit.")
    return f'"""{title}"""\n\nimport triton\nimport triton.language as tl\n'


def _helper(name: str) -> str:
    text = HELPERS[name]
    for scalar in ("iteration", "seed_lo", "seed_hi"):
        text = text.replace(scalar.upper(), str(SCALARS[scalar][0]))
    return text


def _dispatcher(
    functions: Sequence[Function],
    called: Sequence[str],
    entry: str,
    pointers: dict[str, tuple[str, Dtype]],
    opening: Sequence[str],
) -> str:
    lines = ["@triton.jit", f"def {entry}({', '.join(n for n, _ in pointers.values())}):"]
    doc = '"""Gives each kernel its own range of programs."""'
    given = {buffer: name for buffer, (name, _) in pointers.items()}
    calls = _calls(functions, called, given, "pid")
    lines += [f"    {line}" for line in (doc, *opening, *calls)]
    return "\n".join(lines) + "\n"


def _calls(
    functions: Sequence[Function], called: Sequence[str], given: dict[str, str], number: str
) -> list[str]:
    """Gives each function its own range of program numbers."""
    lines, start = [], 0
    for i, (f, name) in enumerate(zip(functions, called, strict=True)):
        end = start + f.programs
        last = i == len(functions) - 1
        word = "else" if last else f"{'elif' if i else 'if'} {number} < {end}"
        own = f"{number} - {start}" if start else number
        own_arrivals = {ARRIVALS: f"{given[ARRIVALS]} + {start}"} if ARRIVALS in given else {}
        passed = ((given | own_arrivals)[b] for b, _, _ in f.pointers)
        call = f"{name}({', '.join([own, *passed])})"
        lines += [f"{word}:", f"    {call}"] if len(functions) > 1 else [call]
        start = end
    return lines


def _through_time(
    functions: Sequence[Function],
    called: Sequence[str],
    entry: str,
    pointers: dict[str, tuple[str, Dtype]],
    opening: Sequence[str],
    steps: Steps,
) -> str:
    """Writes the loop: in each step the tiles of each row, shared by all programs."""
    given = {buffer: name for buffer, (name, _) in pointers.items()}
    given |= {buffer: f"{given[buffer]} + t * {move}" for buffer, move in steps.moves.items()}
    at = f"{steps.count - 1} - step" if steps.backwards else "step"
    # Without num_stages=1 Triton might load for the next step before this one has stored.
    lines = [
        *opening,
        f"for step in tl.range({steps.count}, num_stages=1):",
        f"    t = tl.cast({at}, tl.int64)",
    ]
    first = 0
    for size in steps.rows:
        row = slice(first, first + size)
        tiles = sum(f.programs for f in functions[row])
        lines.append(f"    for tile in tl.range(pid, {tiles}, tl.num_programs(0), num_stages=1):")
        calls = _calls(functions[row], called[row], given, "tile")
        lines += [f"        {line}" for line in calls]
        lines.append(
            f"    meet({given[BARRIER]})" if BARRIER in given else "    tl.debug_barrier()"
        )
        first += size
    head = ["@triton.jit", f"def {entry}({', '.join(n for n, _ in pointers.values())}):"]
    doc = f'"""Goes through {steps.count} time steps; all programs meet after each row of tiles."""'
    return "\n".join([*head, *(f"    {line}" for line in (doc, *lines))]) + "\n"
