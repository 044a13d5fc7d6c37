"""Prints a kernel as readable loops."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.kernels.kernel import (
    Acc,
    Const,
    Entry,
    Expr,
    Factor,
    Guarded,
    Kernel,
    Load,
    Position,
    Random,
    Reduce,
    Store,
)

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "less": "<", "lesseq": "<=", "equal": "==",
    "and": "and",
}  # fmt: skip


def show(e: Expr) -> str:
    """Returns an expression as text."""
    if isinstance(e, Const):
        return str(e.value)
    if isinstance(e, Acc):
        return f"acc{e.id}"
    if isinstance(e, Position):
        return f"({e.index})"
    if isinstance(e, Random):
        return f"random({e.stream:#x}, {e.element})"
    if isinstance(e, Entry):
        return f"matrix{len(e.matrix)}x{len(e.matrix[0])}[{e.row}, {e.column}]"
    if isinstance(e, Guarded):
        return f"({show(e.value)} if {' and '.join(map(str, e.guards)) or 'always'} else {e.other})"
    if isinstance(e, Factor):
        return f"factor({show(e.value)})"
    if isinstance(e, Load):
        text = f"{e.buffer}[{e.offset}]"
        guards = " and ".join(map(str, e.guards))
        return f"({text} if {guards} else {e.other})" if guards else text
    args = [show(a) for a in e.args]
    if e.name in _INFIX:
        return f"({args[0]} {_INFIX[e.name]} {args[1]})"
    if e.name == "cast":
        return f"{e.dtype}({args[0]})"
    extra = [f"{k}={v}" for k, v in e.attrs]
    return f"{e.name}({', '.join([*args, *extra])})"


def render(kernel: Kernel) -> str:
    """Returns the kernel as a loop nest in pseudo-code."""
    if kernel.call is not None:
        call = kernel.call
        given = f"{call.source or ''}{f' from {call.offset}' if call.offset else ''}"
        what = f"{call.target} = {call.host.layer}.{call.host.way}({given})"
        return f"{kernel.name} [host] calls Python:\n  {what}\n"
    space = ", ".join(f"{a.name}<{a.size}" for a in kernel.space)
    parts = ""
    if kernel.parts is not None:
        parts = f" in {kernel.parts.count} parts of {kernel.reduces[0].axes[kernel.parts.cut].name}"
    lines = [f"{kernel.name} [{kernel.kind}]{parts} for {space or '(one point)'}:"]
    lines += _statements(kernel, "  ")
    for join in kernel.joins:
        (count,) = {a.size for r in join.reduces for a in r.axes}
        space = ", ".join(f"{a.name}<{a.size}" for a in join.space)
        lines.append(f"  when {count} are there, for {space}:")
        lines += _statements(join, "    ")
    return "\n".join(lines) + "\n"


def _statements(kernel: Kernel, margin: str) -> Iterator[str]:
    for s in kernel.body:
        over = f" for {', '.join(f'{a.name}<{a.size}' for a in s.axes)}" if s.axes else ""
        if isinstance(s, Reduce):
            payload = f" -> {show(s.payload)}" if s.payload else ""
            yield f"{margin}acc{s.id} = {s.op}({show(s.value)}{payload}){over}"
        elif isinstance(s, Store):
            where = f" where {' and '.join(map(str, s.guards))}" if s.guards else ""
            yield f"{margin}{s.buffer}[{s.offset}] = {show(s.value)}{over}{where}"
