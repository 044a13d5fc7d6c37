"""Groups kernels into launches: level by level, what may run at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compiler.dependence import Dependence
from compiler.kernel import Expr as _Expr
from compiler.kernel import Kernel, Load, Reduce, Statement, Store, rebuild
from compiler.schedule import Buffer, Place, Schedule
from schemas.program import ITEMSIZE, KernelInfo, Launch

# Results of so few elements may be kept for long; together they make one launch, the first.
_FEW = 4096


def schedule(kernels: Sequence[Kernel], buffers: dict[str, Buffer], groups: bool) -> Schedule:
    """Returns launches as early as their kernels can run, and the buffers that are left.

    A kernel's level is the longest way to it; kernels of one level are independent. What waits for
    nothing runs just before its first reader, so that its result is not kept for long, unless it
    is small: such kernels share the first launch. Where the backend does not group (`groups`
    False), each kernel is a launch of its own.
    """
    dependence = Dependence(kernels)
    after = {i: dependence.after(i) for i in dependence.kernels}
    level = dict.fromkeys(dependence.kernels, 0)
    for i in dependence.order():
        for j in after[i]:
            level[j] = max(level[j], level[i] + 1)
    waiting = {j for readers in after.values() for j in readers}
    for i, readers in after.items():
        many = any(buffers[b].size > _FEW for b in dependence.kernels[i].writes())
        if readers and i not in waiting and many:  # a turned weight is made when it is needed
            level[i] = min(level[j] for j in readers) - 1
    rows: list[list[Kernel]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for i, kernel in dependence.kernels.items():
        rows[level[i]].append(_settled(kernel))
    launches = tuple(part for row in rows for part in _parts(row))
    if not groups:
        launches = tuple((k,) for row in launches for k in row)
    used = {b for row in launches for k in row for b in k.reads() | k.writes()}
    kept = {
        b: buffer
        for b, buffer in buffers.items()
        if not b.endswith("'") and (b in used or buffer.role != "inner")
    }
    return Schedule(launches, kept)


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

    def visit(e: _Expr) -> _Expr | None:
        if isinstance(e, Load) and e.buffer.endswith("'"):
            return replace(e, buffer=e.buffer[:-1])
        return None

    def settle(s: Statement) -> Statement:
        if isinstance(s, Store):
            return replace(s, buffer=s.buffer.rstrip("'"), value=rebuild(s.value, visit))
        assert isinstance(s, Reduce)
        return replace(s, value=rebuild(s.value, visit))

    return replace(kernel, body=tuple(settle(s) for s in kernel.body))
