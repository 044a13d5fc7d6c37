"""Rematerialization: blobs that late readers make again, rather than having them kept.

Where a net widens, y = relu(normalise(a) + normalise(b)) is stored for the next layers. All that
still reads y in the backward pass are the gradient of a weight, and a kernel that asks where y is
positive; the latter reads a and b in any case, for the gradients of their normalisations, so they
lie in memory longer than y would. Made again from a and b in registers, y lives no longer than the
forward pass needs it: the one reader takes a blob more, the other one less.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod

from compiler.ir.inlining import MANY
from compiler.kernels.guards import factor
from compiler.kernels.index import Axis, Index, linear, row_major, substitute, unravel
from compiler.kernels.index import index as as_index
from compiler.kernels.kernel import (
    Const,
    Expr,
    Kernel,
    Load,
    Op,
    Reduce,
    Statement,
    Store,
    load_axes,
    rebuild,
    walk,
)
from compiler.kernels.schedule import Loop, Schedule
from compiler.lowering.memory import blocks_of, nbytes, worst_launch
from compiler.prims.maps import SCALARS as MAPS

# The gradient of a weight that reads each number for each tap makes it again only if it has so many
# results for it: then the tensor cores take as long as all else (in bf16, up to 1.02 of it as long
# with 256 results, 1.5 with 128 and 3.1 with 64: counted in ResNet-50's, on an emulated H100).
WIDE = 256


@dataclass(frozen=True)
class _Recipe:
    """How an element is made of others: those of `blobs` at the same offset, and of vectors."""

    store: Store
    space: tuple[Axis, ...]
    blobs: frozenset[str]

    def at(self, offset: Index) -> Expr:
        """Returns the value of the element at an offset."""
        position = unravel(offset, [axis.size for axis in self.space])
        axes = dict(zip(self.space, position, strict=True))

        def moved(e: Expr) -> Expr | None:
            if isinstance(e, Load):
                own = e.offset == self.store.offset
                return replace(e, offset=offset if own else substitute(e.offset, axes))
            return None

        return rebuild(self.store.value, moved)


class _Accesses:
    """Which kernels read and write each buffer, with the numbers of their launches."""

    def __init__(self, schedule: Schedule) -> None:
        self.readers: dict[str, list[tuple[int, Kernel]]] = defaultdict(list)
        self.writers: dict[str, list[tuple[int, Kernel]]] = defaultdict(list)
        for i, launch in enumerate(schedule.launches):
            for kernel in launch:
                for name in kernel.reads():
                    self.readers[name].append((i, kernel))
                for name in kernel.writes():
                    self.writers[name].append((i, kernel))


def rematerialized(schedule: Schedule, most: int, inlet: bool = False) -> Schedule:
    """Returns the schedule with as few blobs as possible kept over the launch with most memory.

    None takes more than `most` operations for each blob that it is made of. `inlet`: see Traits.
    """
    if not most or not schedule.launches:  # a net of inputs alone has none
        return schedule
    while (found := _with_one_less(schedule, most, inlet)) is not None:
        schedule = found
    return schedule


def _with_one_less(schedule: Schedule, most: int, inlet: bool) -> Schedule | None:
    """Returns the schedule with the largest such blob made again, None if there is none."""
    blocks = blocks_of(schedule, inlet)
    worst = worst_launch(blocks, len(schedule.launches))
    kept = {n for n, (b, *_) in blocks.items() if b.first < worst <= b.last}
    accesses = _Accesses(schedule)
    for name in sorted(kept, key=lambda n: (-schedule.buffers[n].size, n)):
        found = _replaced(schedule, accesses, name, worst, most)
        if found is not None:
            launches = (
                launch if isinstance(launch, Loop) else tuple(found.get(k.name, k) for k in launch)
                for launch in schedule.launches
            )
            return replace(schedule, launches=tuple(launches))
    return None


def _replaced(
    schedule: Schedule, accesses: _Accesses, name: str, worst: int, most: int
) -> dict[str, Kernel] | None:
    """Returns the readers of a buffer from launch `worst` on, by name, none of which reads it.

    None if that is not possible, adds traffic, or keeps anything but vectors for longer.
    """
    recipe = _recipe(schedule, accesses, name, most)
    late = [(i, kernel) for i, kernel in accesses.readers[name] if i >= worst]
    if recipe is None or not late or len(late) == len(accesses.readers[name]):
        return None
    end = max(i for i, _ in late)
    if any(max(i for i, _ in accesses.readers[b]) < end for b in recipe.blobs):
        return None
    born = accesses.writers[name][0][0]
    if any(isinstance(launch, Loop) for launch in schedule.launches[born : end + 1]):
        return None  # addresses move there from step to step
    read = {e.buffer for e in walk(recipe.store.value) if isinstance(e, Load)}
    if any(born <= i <= end for b in read for i, _ in accesses.writers[b]):
        return None
    more = sum(nbytes(schedule.buffers[b]) for _, k in late for b in recipe.blobs - k.reads())
    if more > nbytes(schedule.buffers[name]) * len(late):
        return None
    found = {kernel.name: _again(kernel, name, recipe) for _, kernel in late}
    alike = all(found[k.name].kind == k.kind for _, k in late)
    return found if alike and not any(name in k.reads() for k in found.values()) else None


def _recipe(schedule: Schedule, accesses: _Accesses, name: str, most: int) -> _Recipe | None:
    """Returns what a buffer's elements are made of, if a map of blobs and vectors makes them."""
    buffer, made = schedule.buffers[name], accesses.writers[name]
    if buffer.role != "inner" or buffer.base is not None or len(made) != 1:
        return None
    kernel = made[0][1]
    store = next((s for s in kernel.stores if s.buffer == name), None)
    if kernel.kind != "map" or store is None or store.guards:
        return None
    sizes = [axis.size for axis in kernel.space]
    whole = linear([as_index(axis) for axis in kernel.space], row_major(sizes))
    if store.offset != whole or prod(sizes) != buffer.size:
        return None
    blobs, cost = set(), 0
    for e in walk(store.value):
        if isinstance(e, Load) and e.offset == store.offset and not e.guards:
            blobs.add(e.buffer)
        elif isinstance(e, Op):
            cost += MAPS[e.name].cost
        elif not isinstance(e, Const) and not _is_vector(e, buffer.size):
            return None
    return _Recipe(store, kernel.space, frozenset(blobs)) if cost <= most * len(blobs) else None


def _is_vector(e: Expr, size: int) -> bool:
    if not isinstance(e, Load) or e.guards:
        return False
    return MANY * prod(axis.size for axis in load_axes(e)) <= size


def _is_wide(kernel: Kernel, e: Load) -> bool:
    """Says whether a factor is multiplied for so many results that making it takes no longer."""
    return prod(axis.size for axis in set(kernel.space) - load_axes(e)) >= WIDE


def _again(kernel: Kernel, name: str, recipe: _Recipe) -> Kernel:
    """Returns the kernel with elements of a buffer made again, but for those behind guards.

    Of a wide product the padded factor is made again too.
    """

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer == name and not e.guards:
            return recipe.at(e.offset)
        return None

    def made(e: Expr) -> Expr:
        if isinstance(e, Load) and e.buffer == name and (not e.guards or _is_wide(kernel, e)):
            return factor(e.guards, recipe.at(e.offset))
        return rebuild(e, visit)

    def changed(s: Statement) -> Statement:
        value = rebuild(s.value, visit)
        if kernel.kind == "contract" and s is kernel.reduces[0]:
            assert isinstance(s.value, Op), kernel.name
            value = replace(s.value, args=tuple(made(e) for e in s.value.args))
        if isinstance(s, Reduce) and s.payload is not None:
            s = replace(s, payload=rebuild(s.payload, visit))
        return replace(s, value=value)

    return replace(kernel, body=tuple(changed(s) for s in kernel.body))
