"""Prints graphs, launches and memory plans as text for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from compiler.ir.graph import Graph
from compiler.ir.node import Node
from compiler.kernels.kernel import Kernel
from compiler.kernels.kernel_text import render
from compiler.kernels.schedule import Buffer, Launch, Loop, Schedule
from compiler.lowering.launches import WRITTEN_OUT
from compiler.lowering.memory import MemoryPlan, nbytes
from schemas.program import ARENA, INPUTS

_MARKS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_ROWS, _COLUMNS = 32, 96
_CONTENTS = {ARENA: "shared by the buffers below", INPUTS: "side by side, the device has two"}
_LONG = 120  # longer attributes are cut


def numbered(graph: Graph, known: Iterable[Node] = ()) -> dict[Node, int]:
    """Returns a number for each node, sources first; those of `known` come first, in order.

    The numbers depend on the graph alone. Numbering a training step after its forward part leaves
    the forward part's numbers as they are.
    """
    order = [*known, *graph.nodes([graph.loss] if graph.loss is not None else [])]
    return {node: i for i, node in enumerate(dict.fromkeys(order))}


def graph_text(
    graph: Graph,
    numbers: Mapping[Node, int],
    skip: Iterable[Node] = (),
    names: Mapping[Node, str] | None = None,
) -> str:
    """Returns one line a node, `%12 = contract %3 %7 : f32[64, 20, 24, 24]  # conv1`.

    `skip` leaves out nodes that have been shown; at the end stand outputs, loss and updates.
    """
    shown = set(skip)
    lines = []
    for node in sorted(numbers, key=numbers.__getitem__):
        if node in shown:
            continue
        note = (names or {}).get(node) or graph.origin.get(node)
        lines.append(_node(node, numbers) + (f"  # {note}" if note else ""))
    lines.append("")
    for r in graph.recurrences:
        if r.leaf in numbers and r.source in numbers and r.leaf not in shown:
            lines.append(f"%{numbers[r.leaf]}[t] = %{numbers[r.source]}[t{-r.delay:+d}]")
    lines += [f"output {name} = %{numbers[n]}" for name, n in graph.outputs.items()]
    lines += [f"kept {name} = %{numbers[n]}" for name, n in graph.kept.items()]
    if graph.loss is not None and graph.loss in numbers:
        lines.append(f"loss = %{numbers[graph.loss]}")
    lines += [f"always %{numbers[node]}" for node in graph.effects if node in numbers]
    for leaf, value in graph.updates.items():
        lines.append(f"update {leaf.attr('name')} = %{numbers[value]}")
    return "\n".join(lines) + "\n"


def _node(node: Node, numbers: Mapping[Node, int]) -> str:
    words = [f"%{numbers[node]} =", node.prim]
    if node.prim in ("input", "param", "state", "scalar"):
        words.append(str(node.attr("name")))
        attrs = [(k, v) for k, v in node.attrs if k not in ("name", "dtype", "shape")]
    else:
        attrs = [(k, v) for k, v in node.attrs if k != "shape"]
    words += [f"%{numbers[source]}" for source in node.src]
    words += [f"{key}={_short(value)}" for key, value in attrs]
    return " ".join([*words, ":", str(node.type)])


def _short(value: object) -> str:
    text = str(value).replace(", ", ",")
    text = f"'{text}'" if " " in text else text
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def fused_text(
    graph: Graph,
    schedule: Schedule,
    refused: Sequence[tuple[str, str, str]],
    note: Callable[[Launch], str],
    siblings: Sequence[str] = (),
) -> str:
    """Returns every launch with its kernels as loops and the spec lines they came from.

    `note` says how the backend runs a loop over time, or why it takes a launch apart.

    At the end stand `siblings`, convolutions of one blob that are one contraction or not, and the
    fusions that were refused, each with its reason.
    """
    lines = []
    for number, launch in enumerate(schedule.launches):
        if isinstance(launch, Loop):
            lines += [f"launch {number}: {_loop_words(launch)}", f"  {note(launch)}", ""]
        else:
            words = note(launch)
            lines += [
                f"launch {number}{_step_words(launch)}",
                *([f"  {words}"] if words else []),
                "",
            ]
        rows = launch.rows if isinstance(launch, Loop) else (launch,)
        for i, row in enumerate(rows, 1):
            lines += [f"  in each step, {i} of {len(rows)}", ""] if isinstance(launch, Loop) else []
            for kernel in row:
                lines += [f"  # {place}" for place in places(graph, kernel)]
                lines += _moves(launch, kernel)
                lines += [f"  {line}" for line in render(kernel).splitlines()]
                lines.append("")
    if siblings:
        lines += ["convolutions of one blob", "", *(f"  {words}" for words in siblings), ""]
    if refused:
        lines += ["not fused", ""]
        lines += [f"  {first} into {second}: {why}" for first, second, why in refused]
    return "\n".join(lines).rstrip() + "\n"


def _loop_words(loop: Loop) -> str:
    """Returns how a loop goes through time, and why it is a loop."""
    way = "backwards" if loop.backwards else "forwards"
    each = f"{len(loop.rows)} launch{'' if len(loop.rows) == 1 else 'es'} a step"
    return f"loop over {loop.count} steps, {way}: {each}; written out up to {WRITTEN_OUT} steps"


def _step_words(launch: Sequence[Kernel]) -> str:
    """Returns which step of a loop that is written out a launch is, "" for any other."""
    step = next((k.name.rpartition("@")[2] for k in launch if "@" in k.name), None)
    return f": step {step} of a loop that is written out" if step is not None else ""


def _moves(launch: Launch, kernel: Kernel) -> list[str]:
    """Says how many elements a kernel's pointers are further on in each step of its loop."""
    moves = launch.moves.get(kernel.name, {}) if isinstance(launch, Loop) else {}
    words = ", ".join(f"{buffer} {by:+}" for buffer, by in moves.items())
    return [f"  # from step to step: {words}"] if words else []


def places(graph: Graph, kernel: Kernel) -> list[str]:
    """Returns the spec lines that a kernel came from: FILE:LINE and the text there."""
    found = []
    for layer in kernel.layers:
        span = graph.places.get(layer)
        if span is None:
            found.append(layer)
            continue
        text = span.text.strip()
        text = text if len(text) <= 100 else text[:97] + "..."
        found.append(f"{layer}: {span.file}:{span.line}: {text}")
    return found


def memory_text(schedule: Schedule, plan: MemoryPlan) -> str:
    """Returns the memory plan: slots, the arena's buffers with offset and life, and a picture."""
    lines = [f"{'slot':<24} {'bytes':>15}"]
    for slot in plan.slots:
        kept = "kept from step to step" if slot.persistent else _CONTENTS[slot.name]
        lines.append(f"{slot.name:<24} {slot.nbytes:>15,}  {kept}")
    total = sum(slot.nbytes for slot in plan.slots)
    whole = sum(nbytes(schedule.buffers[name]) for name in plan.blocks)
    lines += [f"{'all':<24} {total:>15,}", ""]
    if not plan.blocks:
        return "\n".join(lines)
    share = f"{whole:,} bytes without sharing, {plan.arena_bytes:,} with it"
    lines += [f"{ARENA}: {len(plan.blocks)} buffers, {share}", ""]
    inside = sorted(plan.blocks, key=lambda name: (plan.places[name].offset, name))
    marks = _marks(inside, schedule.buffers)
    lines.append(f"   {'buffer':<28} {'offset':>12} {'bytes':>12}  launches")
    for name in inside:
        at, need = plan.places[name].offset, nbytes(schedule.buffers[name])
        first = min(block.first for block in plan.blocks[name])
        last = max(block.last for block in plan.blocks[name])
        parts = f", in {len(plan.blocks[name])} blocks" if len(plan.blocks[name]) > 1 else ""
        lines.append(f" {marks[name]} {name:<28} {at:>12,} {need:>12,}  {first} to {last}{parts}")
    return "\n".join([*lines, "", *_picture(plan, schedule, marks)]) + "\n"


def _marks(names: Sequence[str], buffers: Mapping[str, Buffer]) -> dict[str, str]:
    """Gives the largest buffers a letter each; the others are `+`."""
    largest = sorted(names, key=lambda name: (-nbytes(buffers[name]), name))[: len(_MARKS)]
    chosen = [name for name in names if name in set(largest)]
    return {name: "+" for name in names} | dict(zip(chosen, _MARKS, strict=False))


def _picture(plan: MemoryPlan, schedule: Schedule, marks: Mapping[str, str]) -> list[str]:
    """Draws addresses downwards and launches to the right."""
    count = len(schedule.launches)
    times = range(count) if count <= _COLUMNS else range(0, count, -(-count // _COLUMNS))
    rows = min(_ROWS, max(1, plan.arena_bytes // 256))
    lines = ["address       launches ->"]
    for row in range(rows):
        middle = (2 * row + 1) * plan.arena_bytes // (2 * rows)
        cells = ["."] * len(times)
        for name, blocks in plan.blocks.items():
            for block in blocks:
                if block.start <= middle < block.end:
                    for column, time in enumerate(times):
                        if block.first <= time <= block.last:
                            cells[column] = marks[name]
        lines.append(f"{row * plan.arena_bytes // rows:>12,}  {''.join(cells)}")
    return lines
