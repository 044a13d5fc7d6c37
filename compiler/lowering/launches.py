"""Groups kernels into launches: level by level, what may run at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compiler.kernels.dependence import Dependence
from compiler.kernels.kernel import Expr, Kernel, Load, Reduce, Statement, Store, rebuild
from compiler.kernels.schedule import Buffer, Loop, Place, Schedule, Work
from compiler.kernels.schedule import Launch as Scheduled
from compiler.lowering.memory import in_arena, nbytes
from schemas.program import ITEMSIZE, KernelInfo, Launch

# A loop of so few steps is written out: the steps' kernels one after the other.
WRITTEN_OUT = 4

# Results of so few bytes may be kept for long; together they make one launch, the first.
_FEW = 16384


def schedule(kernels: Sequence[Work], buffers: dict[str, Buffer], groups: bool) -> Schedule:
    """Returns launches as early as their kernels can run, and the buffers that are left.

    A kernel's level is the longest way to it; kernels of one level are independent. But one whose
    results take more memory than what it reads (a turned weight, tiles of a convolution) runs just
    before its first reader, unless they are small: those share the first launch. Where the backend
    does not group (`groups` False), each kernel is a launch of its own. So is each loop.
    """
    launches: list[Scheduled] = []
    for row in _levels(kernels, buffers, groups):
        launches += _parts([_settled(k) for k in row if isinstance(k, Kernel)])
        for loop in row:
            if isinstance(loop, Loop):
                launches += _repeated(loop, buffers, groups)
    used = {b for launch in launches for k in launch for b in k.reads() | k.writes()}
    used |= {base for b in used if (base := buffers[b].base) is not None}
    kept = {
        b: buffer
        for b, buffer in buffers.items()
        if not b.endswith("'") and (b in used or (buffer.role != "inner" and not buffer.base))
    }
    return Schedule(tuple(launches), kept)


def _levels(
    kernels: Sequence[Work], buffers: Mapping[str, Buffer], groups: bool
) -> list[list[Work]]:
    dependence = Dependence(kernels)
    after = {i: dependence.after(i) for i in dependence.kernels}
    level = dict.fromkeys(dependence.kernels, 0)
    order = dependence.order()
    for i in order:
        for j in after[i]:
            level[j] = max(level[j], level[i] + 1)
    for i in reversed(order):
        if after[i] and _grows(dependence.kernels[i], buffers):
            level[i] = min(level[j] for j in after[i]) - 1
    rows: list[list[Work]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for i, kernel in dependence.kernels.items():
        rows[level[i]].append(kernel)
    return rows if groups else [[kernel] for row in rows for kernel in row]


def _grows(work: Work, buffers: Mapping[str, Buffer]) -> bool:
    """Says whether a kernel's results take more memory than what it is the last to read at best.

    Of a packed buffer it writes only a part, never more than what it is made of.
    """
    written, read = (
        sum(
            nbytes(buffers[b])
            for b in names
            if in_arena(buffers[b]) and buffers[b].role != "packed"
        )
        for names in (work.writes(), work.reads() - work.writes())
    )
    return written > max(_FEW, read)


def _repeated(loop: Loop, buffers: Mapping[str, Buffer], groups: bool) -> list[Scheduled]:
    """Returns a loop with its kernels grouped, or all of its steps where they are few."""
    levels = _levels(loop.kernels, buffers, groups)
    rows = tuple(tuple(_settled(k) for k in row if isinstance(k, Kernel)) for row in levels)
    if loop.count > WRITTEN_OUT:
        return [replace(loop, kernels=tuple(k for row in rows for k in row), rows=rows)]
    steps = range(loop.count)
    return [
        tuple(_in_step(k, loop.moves.get(k.name, {}), t) for k in row)
        for t in (reversed(steps) if loop.backwards else steps)
        for row in rows
    ]


def _in_step(kernel: Kernel, moves: Mapping[str, int], t: int) -> Kernel:
    """Returns the kernel of step t."""

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer in moves:
            return replace(e, offset=e.offset + moves[e.buffer] * t)
        return None

    def moved(s: Statement) -> Statement:
        if isinstance(s, Store):
            offset = s.offset + moves.get(s.buffer, 0) * t
            return replace(s, offset=offset, value=rebuild(s.value, visit))
        payload = rebuild(s.payload, visit) if s.payload is not None else None
        return replace(s, value=rebuild(s.value, visit), payload=payload)

    return replace(kernel, name=f"{kernel.name}@{t}", body=tuple(moved(s) for s in kernel.body))


def _parts(row: Sequence[Kernel]) -> list[tuple[Kernel, ...]]:
    """Calls of Python layers are launches of their own, in front of the kernels beside them."""
    calls = [(kernel,) for kernel in row if kernel.call is not None]
    rest = tuple(kernel for kernel in row if kernel.call is None)
    return [*calls, rest] if rest else [*calls]


def call_launch(kernel: Kernel, places: Mapping[str, Place]) -> Launch:
    """Returns the launch of a call, which is the same for all backends."""
    call = kernel.call
    assert call is not None, kernel.name
    out = places[call.target]
    args = [(out.slot, out.offset)]
    if call.source is not None:
        given = places[call.source]
        args.append((given.slot, given.offset + call.offset * ITEMSIZE["f32"]))
    info = KernelInfo(kernel.name, kernel.kind, kernel.layers, (), 0, 0)
    return Launch(kernel.name, (info,), args=tuple(args), call=call.host)


def _settled(kernel: Kernel) -> Kernel:
    """Gives new values of persistent buffers the buffer's own name: their order is settled now."""
    if kernel.call is not None and kernel.call.source is not None:
        source = kernel.call.source.rstrip("'")
        return replace(kernel, call=replace(kernel.call, source=source))

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer.endswith("'"):
            return replace(e, buffer=e.buffer[:-1])
        return None

    def settle(s: Statement) -> Statement:
        if isinstance(s, Store):
            return replace(s, buffer=s.buffer.rstrip("'"), value=rebuild(s.value, visit))
        assert isinstance(s, Reduce)
        return replace(s, value=rebuild(s.value, visit))

    body, joins = (settle(s) for s in kernel.body), (_settled(join) for join in kernel.joins)
    return replace(kernel, body=tuple(body), joins=tuple(joins))
