"""Lines of a function, and values that are written once, where what they need is known.

A tile has named dimensions. A value knows which of them it varies along, so that what depends on
rows only is computed as a vector of rows and is widened (`x[:, None]`) only where it meets columns;
and it knows at which depth of loops it is computed, so that what no loop changes stands before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from compiler.triton_source.text import ELEMENTS, Names
from schemas.program import Dtype

Dims = frozenset[str]
SCALAR: Dims = frozenset()


@dataclass(frozen=True, slots=True)
class Value:
    """Text of a value; `plain`: it needs no parentheses; `known`: it is a number."""

    text: str
    dims: Dims
    dtype: Dtype
    level: int
    plain: bool = True
    known: bool = False

    @property
    def operand(self) -> str:
        return self.text if self.plain else f"({self.text})"


@dataclass
class _Scope:
    """The function's body or the body of an open loop."""

    lines: list[str] = field(default_factory=list)
    values: dict[Any, Value] = field(default_factory=dict)


class Lines:
    """The lines of one kernel function, and which value has which name.

    `order` lists the tile dimensions from left to right; `block` gives their lengths. `wide`:
    offsets do not fit in 32 bits.
    """

    def __init__(self, order: Sequence[str], block: dict[str, int], wide: bool = False) -> None:
        self.order, self.block, self.wide = tuple(order), block, wide
        self.names = Names()
        self.scopes = [_Scope()]
        if wide:
            self.line("pid = pid.to(tl.int64)")

    def arange(self, length: int) -> str:
        return f"tl.arange(0, {length}){'.to(tl.int64)' if self.wide else ''}"

    def line(self, text: str, level: int | None = None) -> None:
        self.scopes[-1 if level is None else level].lines.append(text)

    @contextmanager
    def loop(self, header: str) -> Iterator[None]:
        """Puts what is emitted inside into the body of a loop."""
        self.scopes.append(_Scope())
        yield
        body = self.scopes.pop()
        self.line(header)
        self.scopes[-1].lines.extend(f"    {text}" for text in body.lines)

    @property
    def level(self) -> int:
        return len(self.scopes) - 1

    def find(self, key: Any) -> Value | None:
        return next((s.values[key] for s in self.scopes if key in s.values), None)

    def define(self, value: Value, hint: str) -> Value:
        """Gives a value a name, at the outermost place where all that it needs is known."""
        if value.known or value.text.isidentifier():
            return value
        key = ("text", value.text)
        if (found := self.find(key)) is not None:
            return found
        name = self.names.fresh(hint)
        self.line(f"{name} = {value.text}", value.level)
        named = replace(value, text=name, plain=True)
        self.scopes[value.level].values[key] = named
        return named

    def shape(self, dims: Dims) -> str:
        sizes = [str(self.block[d]) for d in self.order if d in dims]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    def fit(self, v: Value, dims: Dims) -> str:
        """Returns the text of a value for use in a tile of these dimensions."""
        if not v.dims or len(dims) < 2 or v.dims == dims:
            return v.operand
        assert v.dims < dims, (v, dims)
        order = [d for d in self.order if d in dims]
        return f"{v.operand}[{', '.join(':' if d in v.dims else 'None' for d in order)}]"

    def full(self, v: Value, dims: Dims) -> str:
        """Returns the text of a value as a whole tile."""
        if v.dims == dims or not dims:
            return v.operand
        if v.known:
            return f"tl.full({self.shape(dims)}, {v.text}, {ELEMENTS[v.dtype]})"
        if not v.dims:
            return f"tl.broadcast_to({v.text}, {self.shape(dims)})"
        return f"tl.broadcast_to({self.fit(v, dims)}, {self.shape(dims)})"

    def total(self, parts: Sequence[Value], dtype: Dtype = "i32") -> Value:
        """Adds values that vary along different dimensions."""
        dims = SCALAR.union(*(p.dims for p in parts))
        text = " + ".join(self.fit(p, dims) for p in parts)
        return Value(text, dims, dtype, max(p.level for p in parts), len(parts) == 1)
