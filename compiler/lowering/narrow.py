"""Mixed precision: which buffers hold bf16, and the copy of the weights that products read.

Numbers are rounded where they are stored, and nowhere else: a kernel computes in f32, whatever it
loads. Activations and their gradients are stored as bf16. What adds up errors stays f32: sums and
what is made of them alone (losses, statistics, gradients of weights), weights, histories, and what
a loop hands from step to step without a product between (the cell of an LSTM).

Weights lie in their arena as f32. Products read a copy of it as bf16, laid out like it; the kernel
that updates the weights writes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.ir.inlining import FIXED, SLID, VIEWS, stripped
from compiler.ir.node import Node
from compiler.ir.recurrence import Recurrence
from compiler.kernels.kernel import Expr, Kernel, Load, Op, Reduce, Statement, product, rebuild
from compiler.kernels.schedule import Buffer
from compiler.lowering.storage import Plan
from compiler.passes.arena import NAME
from compiler.prims.maps import SCALARS as MAPS
from schemas.program import Dtype

COPY = f"{NAME}:bf16"
_EXACT = FIXED | {"scalar", "sum", "max"}


def narrow(
    kernels: Sequence[Kernel],
    buffers: dict[str, Buffer],
    plan: Plan,
    nodes: Sequence[Node],
    recurrences: Sequence[Recurrence],
) -> tuple[list[Kernel], dict[str, Buffer]]:
    """Returns kernels (not fused yet) and buffers that hold bf16 where that is enough."""
    chosen = _chosen(buffers, plan, _exact(nodes, recurrences))
    found = {b: replace(v, dtype="bf16") if b in chosen else v for b, v in buffers.items()}
    for name in (NAME, f"{NAME}'"):
        if name in buffers:
            copy = name.replace(NAME, COPY)
            found[copy] = replace(buffers[name], name=copy, dtype="bf16")
    return [_retyped(kernel, chosen) for kernel in kernels], found


def _exact(nodes: Sequence[Node], recurrences: Sequence[Recurrence]) -> set[Node]:
    """Returns the nodes whose values are not to be rounded."""
    exact: set[Node] = set()
    for node in nodes:  # sources first
        made = node.prim in MAPS.keys() | SLID and exact.issuperset(node.src)
        # What is spread out has the size of an activation, if it is more than a number.
        spread = node.prim == "broadcast" and node.src[0].type.size > 1
        if node.prim in _EXACT or (made and not spread):
            exact.add(node)
    for node in nodes:
        if node.prim == "host":  # Python layers take and leave f32
            exact |= {node, *node.src}
    factors = {stripped(s) for node in nodes if node.prim == "contract" for s in node.src}
    for factor in factors:
        if factor.prim == "concat":  # of weights, side by side: like the copy that products read
            exact.difference_update(stripped(part, VIEWS) for part in factor.src)
    return exact | {r.source for r in recurrences if not {r.leaf, r.source} & factors}


def _chosen(buffers: dict[str, Buffer], plan: Plan, exact: set[Node]) -> set[str]:
    """Returns the buffers that hold bf16; one and the parts of it are of one type."""
    whole = {name: buffer.base or name for name, buffer in buffers.items()}
    kept = {whole[plan.storage[node].buffer] for node in exact if node in plan.storage}
    return {
        name
        for name, buffer in buffers.items()
        if buffers[whole[name]].role == "inner" and buffer.dtype == "f32"
        if buffer.role == "inner" and whole[name] not in kept
    }


def _retyped(kernel: Kernel, chosen: set[str]) -> Kernel:
    def visit(e: Expr) -> Expr | None:
        return replace(e, dtype="bf16") if isinstance(e, Load) and e.buffer in chosen else None

    def weight(e: Expr) -> Expr:
        if isinstance(e, Load) and e.buffer == NAME:
            return replace(e, buffer=COPY, dtype="bf16")
        return e

    body: list[Statement] = []
    for s in kernel.body:
        value = rebuild(s.value, visit)
        if isinstance(s, Reduce):
            payload = rebuild(s.payload, visit) if s.payload is not None else None
            s = replace(s, value=value, payload=payload)
            if product(s) is not None and isinstance(value, Op):
                s = replace(s, value=replace(value, args=tuple(weight(a) for a in value.args)))
            body.append(s)
            continue
        dtype: Dtype = "bf16" if s.buffer in chosen else s.dtype
        body.append(replace(s, value=value, dtype=dtype))
        if s.buffer == f"{NAME}'":
            body.append(replace(s, buffer=f"{COPY}'", value=value, dtype="bf16"))
    return replace(kernel, body=tuple(body))
