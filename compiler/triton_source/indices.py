"""Index expressions and conditions as Triton text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from compiler.kernels.index import Axis, Div, Index, Mod, bounds
from compiler.kernels.kernel import Guard, Guards
from compiler.triton_source.lines import SCALAR, Dims, Lines, Value


class Indices(Lines):
    """Writes indices: by dimension, so that each part is computed along its own alone."""

    def __init__(self, order: Sequence[str], block: dict[str, int], wide: bool = False) -> None:
        super().__init__(order, block, wide)
        self.axes: dict[Axis, Value] = {}
        self.tails: dict[str, Axis] = {}  # dimension -> axis that its last block may overrun
        self.labels: dict[Any, str] = {}  # index atom -> the name that the spec's axis has

    def bind(self, axis: Axis, text: str, dims: Sequence[str], level: int | None = None) -> None:
        """Says which variable holds an axis."""
        self.axes[axis] = Value(
            text, frozenset(dims), "i32", self.level if level is None else level
        )

    def bind_counter(self, axis: Axis, name: str) -> None:
        """Says which variable of a loop holds an axis: one of 32 bits, whatever it is used for."""
        if self.wide:
            counter, name = name, self.names.fresh(name)
            self.line(f"{name} = tl.cast({counter}, tl.int64)")
        self.bind(axis, name, [])

    def index(self, i: Index, hint: str = "at") -> Value:
        key = ("index", i)
        if (found := self.find(key)) is not None:
            return found
        groups: dict[tuple[int, int, tuple[str, ...]], list[tuple[str, int]]] = {}
        for atom, factor in i.terms:
            v = self._atom(atom)
            group = (len(v.dims), v.level, tuple(d for d in self.order if d in v.dims))
            groups.setdefault(group, []).append((v.operand, factor))
        if i.const or not groups:
            least = min(groups, default=(0, 0, ()))  # the cheapest place to add it
            groups.setdefault(least, []).append(("", i.const))
        parts = []
        for (_, level, dims), terms in groups.items():
            text = _terms(terms)
            v = Value(text, frozenset(dims), "i32", level, len(terms) == 1 and "*" not in text)
            if not dims and text.lstrip("-").isdigit():
                v = replace(v, known=True, plain=not text.startswith("-"))
            elif len(groups) > 1 and not v.plain:
                v = self.define(v, "_".join([hint, *dims]))
            parts.append(v)
        total = parts[0] if len(parts) == 1 else self.total(parts)
        self.scopes[total.level].values[key] = total
        return total

    def _atom(self, atom: Axis | Div | Mod) -> Value:
        if isinstance(atom, Axis):
            return self.axes[atom]
        key = ("atom", atom)
        if (found := self.find(key)) is not None:
            return found
        inner, low = self.index(atom.of), bounds(atom.of)[0]
        # Triton's // and % cut towards zero: lift a negative number first.
        lift = max(0, -(low // atom.by))
        text = f"({inner.text} + {lift * atom.by})" if lift else inner.operand
        text = f"{text} {'//' if isinstance(atom, Div) else '%'} {atom.by}"
        if lift and isinstance(atom, Div):
            text = f"{text} - {lift}"
        value = Value(text, inner.dims, "i32", inner.level, False)
        named = self.define(value, self.labels.get(atom, "part"))
        self.scopes[named.level].values[key] = named
        return named

    def _holds(self, guard: Guard) -> list[Value]:
        low, high = bounds(guard.index)
        i = self.index(guard.index, "pos")
        tests = [f">= {guard.low}"] if low < guard.low else []
        tests += [f"< {guard.high}"] if high >= guard.high else []
        if len(tests) > 1:
            i = self.define(i, "pos")
        return [Value(f"({i.operand} {t})", i.dims, "bool", i.level) for t in tests]

    def tail(self, dim: str) -> Value | None:
        """Returns the condition that the dimension's last block is not past its end."""
        axis = self.tails.get(dim)
        if axis is None or axis.size % self.block[dim] == 0:
            return None
        i = self.axes[axis]
        return Value(f"({i.text} < {axis.size})", i.dims, "bool", i.level)

    def mask(self, guards: Guards, dims: Dims) -> Value | None:
        """Returns the condition that all guards hold and no dimension is past its end."""
        tests = [t for d in self.order if d in dims and (t := self.tail(d)) is not None]
        tests += [t for g in guards for t in self._holds(g)]
        groups: dict[tuple[Dims, int], list[Value]] = {}
        for t in tests:
            same = groups.setdefault((t.dims, t.level), [])
            if t not in same:
                same.append(t)
        parts = []
        for (own, level), same in groups.items():
            text = " & ".join(t.text for t in same)
            v = Value(text, own, "bool", level, len(same) == 1)
            parts.append(
                v
                if len(same) == 1
                else self.define(v, "_".join(["ok", *(d for d in self.order if d in own)]))
            )
        if not parts:
            return None
        all_dims = SCALAR.union(*(p.dims for p in parts))
        text = " & ".join(self.fit(p, all_dims) for p in parts)
        level = max(p.level for p in parts)
        return Value(text, all_dims, "bool", level, len(parts) == 1)


def _terms(terms: Sequence[tuple[str, int]]) -> str:
    """Returns `a * 3 + b - 1` for [(a, 3), (b, 1), ('', -1)]."""
    text = ""
    for name, factor in terms:
        size = abs(factor)
        part = str(size) if not name else name if size == 1 else f"{name} * {size}"
        if not text:
            text = f"-{part}" if factor < 0 else part
        else:
            text += f" {'-' if factor < 0 else '+'} {part}"
    return text
