"""Writes index and scalar expressions as Triton text, each value once.

A tile has named dimensions. A value knows which of them it varies along, so that what depends on
rows only is computed as a vector of rows and is widened (`x[:, None]`) only where it meets columns;
and it knows at which depth of loops it is computed, so that what no loop changes stands before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from compiler.index import Axis, Div, Index, Mod, bounds
from compiler.kernel import (
    SCALAR_BUFFER,
    Acc,
    Const,
    Expr,
    Guard,
    Guarded,
    Guards,
    Load,
    Op,
    Position,
    Random,
    Store,
)
from compiler.triton_source.maps import INFIX, call, constant_power, convert
from compiler.triton_source.text import ELEMENTS, Names, identifier, literal
from schemas.program import Dtype

Dims = frozenset[str]
_SCALAR: Dims = frozenset()
_INLINE = 32  # a longer part of an expression gets a name


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


class Emitter:
    """Collects the lines of one kernel function.

    `order` lists the tile dimensions from left to right; `block` gives their lengths.
    """

    def __init__(self, order: Sequence[str], block: dict[str, int]) -> None:
        self.order, self.block = tuple(order), block
        self.names = Names()
        self.scopes = [_Scope()]
        self.pointers: dict[str, tuple[str, Dtype]] = {}  # buffer -> argument, element type
        self.helpers: set[str] = set()
        self.axes: dict[Axis, Value] = {}
        self.tails: dict[str, Axis] = {}  # dimension -> axis that its last block may overrun
        self.accs: dict[int, Value] = {}
        self.labels: dict[Any, str] = {}  # index atom -> the name that the spec's axis has
        self._alive: list[Expr] = []

    # -- lines and scopes

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

    def _find(self, key: Any) -> Value | None:
        return next((s.values[key] for s in self.scopes if key in s.values), None)

    def define(self, value: Value, hint: str) -> Value:
        """Gives a value a name, at the outermost place where all that it needs is known."""
        if value.known or value.text.isidentifier():
            return value
        key = ("text", value.text)
        if (found := self._find(key)) is not None:
            return found
        name = self.names.fresh(hint)
        self.line(f"{name} = {value.text}", value.level)
        named = replace(value, text=name, plain=True)
        self.scopes[value.level].values[key] = named
        return named

    # -- shapes

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

    def _sum(self, parts: Sequence[Value], dtype: Dtype = "i32") -> Value:
        """Adds values that vary along different dimensions."""
        dims = _SCALAR.union(*(p.dims for p in parts))
        text = " + ".join(self.fit(p, dims) for p in parts)
        return Value(text, dims, dtype, max(p.level for p in parts), len(parts) == 1)

    # -- indices

    def bind(self, axis: Axis, text: str, dims: Sequence[str], level: int | None = None) -> None:
        """Says which variable holds an axis."""
        self.axes[axis] = Value(
            text, frozenset(dims), "i32", self.level if level is None else level
        )

    def index(self, i: Index, hint: str = "at") -> Value:
        key = ("index", i)
        if (found := self._find(key)) is not None:
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
        total = parts[0] if len(parts) == 1 else self._sum(parts)
        self.scopes[total.level].values[key] = total
        return total

    def _atom(self, atom: Axis | Div | Mod) -> Value:
        if isinstance(atom, Axis):
            return self.axes[atom]
        key = ("atom", atom)
        if (found := self._find(key)) is not None:
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

    # -- conditions

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
        all_dims = _SCALAR.union(*(p.dims for p in parts))
        text = " & ".join(self.fit(p, all_dims) for p in parts)
        level = max(p.level for p in parts)
        return Value(text, all_dims, "bool", level, len(parts) == 1)

    # -- memory

    def pointer(self, buffer: str, dtype: Dtype) -> tuple[str, Dtype]:
        # The scalar block is words: always read as f32, then taken as what each word is.
        if buffer not in self.pointers:
            name = self.names.fresh(f"{identifier(buffer)}_ptr")
            self.pointers[buffer] = name, "f32" if buffer == SCALAR_BUFFER else dtype
        return self.pointers[buffer]

    def _address(self, pointer: str, offset: Value, dims: Dims) -> str:
        """Returns pointer + offset as a tile of `dims`."""
        text = self.fit(offset, dims)
        # Along a dimension that the offset does not depend on all but one element is masked,
        # unless all load the same one.
        for dim in self.order:
            if dim in dims - offset.dims:
                zero = Value(
                    f"tl.zeros(({self.block[dim]},), tl.int32)", frozenset([dim]), "i32", 0
                )
                text = f"{text} + {self.fit(zero, dims)}"
        return f"{pointer} + {text}"

    def load(self, e: Load) -> Value:
        pointer, kept = self.pointer(e.buffer, e.dtype)
        key = ("load", e)
        if (found := self._find(key)) is not None:
            return found
        offset = self.index(e.offset, identifier(e.buffer))
        test = self.mask(e.guards, offset.dims)
        dims = offset.dims | (test.dims if test else _SCALAR)
        text = f"tl.load({self._address(pointer, offset, dims)}"
        level = offset.level
        if test is not None:
            level = max(level, test.level)
            text += f", mask={self.fit(test, dims)}, other={literal(e.other, kept)}"
        text += ")"
        if kept == "bool":
            text = f"({text} != 0)"
        elif kept != e.dtype:
            text = f"{text}.to({ELEMENTS[e.dtype]}, bitcast=True)"
        name = self.names.fresh(e.buffer)
        self.line(f"{name} = {text}", level)
        value = Value(name, dims, e.dtype, level)
        self.scopes[level].values[key] = value
        return value

    def store(self, s: Store, dims: Dims) -> None:
        """Writes a store to a tile; what it overwrites no later statement reads (see Kernel)."""
        value = self.expr(s.value)
        pointer, kept = self.pointer(s.buffer, s.dtype)
        offset = self.index(s.offset, identifier(s.buffer))
        test = self.mask((), dims)
        if value.dtype != s.dtype:
            value = self.cast(value, s.dtype)
        text = self.fit(value, dims) if value.dims != dims else value.text
        if kept == "bool" and not value.known:
            text = f"{self.fit(value, dims)}.to(tl.int8)"
        mask = f", mask={self.fit(test, dims)}" if test is not None else ""
        self.line(f"tl.store({self._address(pointer, offset, dims)}, {text}{mask})")

    # -- values

    def expr(self, e: Expr) -> Value:
        key = ("expr", id(e))
        if (found := self._find(key)) is not None:
            return found
        self._alive.append(e)  # so that no other object takes its id
        value = self._expr(e)
        if not value.known and len(value.text) > _INLINE:
            value = self.define(value, _hint(e))
        self.scopes[value.level].values[key] = value
        return value

    def _expr(self, e: Expr) -> Value:
        if isinstance(e, Const):
            text = literal(e.value, e.dtype)
            return Value(text, _SCALAR, e.dtype, 0, not text.startswith("-"), known=True)
        if isinstance(e, Acc):
            return self.accs[e.id]
        if isinstance(e, Load):
            return self.load(e)
        if isinstance(e, Position):
            return self.index(e.index)
        if isinstance(e, Random):
            self.helpers.add("uniform")
            pointer, _ = self.pointer(SCALAR_BUFFER, "f32")
            i = self.define(self.index(e.element), "element")
            text = f"tl.cast({i.text}, tl.uint32)" if i.known else i.text
            text = f"uniform({pointer}, {text}, {e.stream:#x})"
            return Value(text, i.dims, "f32", i.level)
        if isinstance(e, Guarded):
            value = self.expr(e.value)
            return self._where(self.mask(e.guards, _SCALAR), value, e.other)
        return self._op(e)

    def _where(self, test: Value | None, value: Value, other: float) -> Value:
        if test is None:
            return value
        dims, no = test.dims | value.dims, literal(other, value.dtype)
        text = f"tl.where({self.fit(test, dims)}, {self.fit(value, dims)}, {no})"
        return Value(text, dims, value.dtype, max(test.level, value.level))

    def _op(self, e: Op) -> Value:
        args = [self.expr(a) for a in e.args]
        dims = _SCALAR.union(*(a.dims for a in args))
        level = max(a.level for a in args)
        if e.name == "cast":
            return self.cast(args[0], e.dtype)
        if all(a.known for a in args):
            args[0] = _tensor(args[0])
        texts = [self.fit(a, dims) for a in args]
        if e.name in INFIX:
            text = f"{texts[0]} {INFIX[e.name]} {texts[1]}"
            return Value(text, dims, e.dtype, level, False)
        if e.name == "pow" and args[1].known:
            x = self.fit(self.define(args[0], "base"), dims)
            if (text_ := constant_power(x, float(args[1].text))) is not None:
                return Value(text_, dims, e.dtype, level)
        if e.name in ("sign", "relu"):
            texts[0] = self.fit(self.define(args[0], "x"), dims)
        if e.name == "pow":
            texts = [self.fit(_tensor(a) if a.known else a, dims) for a in args]
        self.helpers |= {"tanh": {"tanh"}, "pow": {"power"}}.get(e.name, set())
        text = call(e.name, texts, e.dtype, dict(e.attrs))
        return Value(text, dims, e.dtype, level, e.name != "stop")

    def cast(self, v: Value, to: Dtype) -> Value:
        if v.known:
            text = literal(
                float(v.text) if v.text not in ("True", "False") else v.text == "True", to
            )
            return replace(v, text=text, dtype=to, plain=not text.startswith("-"))
        return replace(v, text=convert(v.operand, v.dtype, to), dtype=to, plain=True)


def _tensor(v: Value) -> Value:
    return replace(v, text=f"tl.cast({v.text}, {ELEMENTS[v.dtype]})", known=False, plain=True)


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


def _hint(e: Expr) -> str:
    if isinstance(e, Op):
        return {"add": "total", "mul": "scaled", "div": "ratio"}.get(e.name, e.name)
    return {Guarded: "inside", Random: "random", Position: "pos"}.get(type(e), "value")
