"""Memory accesses and scalar expressions as Triton text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.kernels.kernel import (
    SCALAR_BUFFER,
    Acc,
    Const,
    Expr,
    Factor,
    Guarded,
    Load,
    Op,
    Position,
    Random,
    Store,
)
from compiler.triton_source.indices import Indices
from compiler.triton_source.lines import SCALAR, Dims, Value
from compiler.triton_source.maps import INFIX, call, constant_power, convert
from compiler.triton_source.text import ELEMENTS, identifier, literal
from schemas.program import Dtype

# What kernels compute in, of types of memory alone.
_COMPUTED: dict[Dtype, Dtype] = {"bf16": "f32", "u8": "i32"}
LEAST_BF16 = -3.3895313892515355e38
_INLINE = 32  # a longer part of an expression gets a name


class Emitter(Indices):
    """Writes the statements of a kernel."""

    def __init__(self, order: Sequence[str], block: dict[str, int], wide: bool = False) -> None:
        super().__init__(order, block, wide)
        self.pointers: dict[str, tuple[str, Dtype]] = {}  # buffer -> argument, element type
        self.helpers: set[str] = set()
        self.accs: dict[int, Value] = {}
        self.earliest = 0  # nothing is loaded outside of the loop of this level
        self._alive: list[Expr] = []

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

    def load(self, e: Load, raw: bool = False, across: bool = False) -> Value:
        """Returns what a load gives: u8 as i32, and bf16 as f32 unless it is wanted `raw`.

        across: neighbours in memory are results, and those along K are wanted together.
        """
        pointer, kept = self.pointer(e.buffer, e.dtype)
        made = e.dtype if raw else _COMPUTED.get(e.dtype, e.dtype)
        key = ("load", e, raw)
        if (found := self.find(key)) is not None:
            return found
        offset = self.index(e.offset, identifier(e.buffer))
        test = self.mask(e.guards, offset.dims)
        dims = offset.dims | (test.dims if test else SCALAR)
        level = max(offset.level, self.earliest)
        given = [self._address(pointer, offset, dims)]
        if test is not None:
            level = max(level, test.level)
            given.append(self.fit(test, dims))
        if across and len(dims) == 2:
            text = self._across(given, dims)
        else:
            masked = f", mask={given[1]}, other={_other(e.other, kept)}" if test is not None else ""
            text = f"tl.load({given[0]}{masked})"
        if kept == "bool":
            text = f"({text} != 0)"
        elif kept != e.dtype:
            text = f"{text}.to({ELEMENTS[e.dtype]}, bitcast=True)"
        elif made != kept:
            text = f"{text}.to({ELEMENTS[made]})"
        name = self.names.fresh(e.buffer)
        self.line(f"{name} = {text}", level)
        value = Value(name, dims, made, level)
        self.scopes[level].values[key] = value
        return value

    def _across(self, given: Sequence[str], dims: Dims) -> str:
        """Returns the text of a tile of results and K, from its pointers and perhaps a mask."""
        self.helpers.add("across")
        if next(d for d in self.order if d in dims) != "k":
            return f"across({', '.join(given)})"
        return f"tl.trans(across({', '.join(f'tl.trans({text})' for text in given)}))"

    def store(self, s: Store, dims: Dims) -> None:
        """Writes a store to a tile; what it overwrites no later statement reads (see Kernel)."""
        value = self.expr(s.value)
        pointer, kept = self.pointer(s.buffer, s.dtype)
        offset = self.index(s.offset, identifier(s.buffer))
        test = self.mask(s.guards, dims)
        if value.dtype != s.dtype:
            value = self.cast(value, s.dtype)
        text = self.fit(value, dims) if value.dims != dims else value.text
        if kept == "bool" and not value.known:
            text = f"{self.fit(value, dims)}.to(tl.int8)"
        mask = f", mask={self.fit(test, dims)}" if test is not None else ""
        self.line(f"tl.store({self._address(pointer, offset, dims)}, {text}{mask})")

    def expr(self, e: Expr) -> Value:
        key = ("expr", id(e))
        if (found := self.find(key)) is not None:
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
            return Value(text, SCALAR, e.dtype, 0, not text.startswith("-"), known=True)
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
            return self.where(self.mask(e.guards, SCALAR), value, e.other)
        if isinstance(e, Factor):
            return self.expr(e.value)
        assert isinstance(e, Op), e  # an Entry is of a kind that only the cpu backend has
        return self._op(e)

    def where(self, test: Value | None, value: Value, other: float) -> Value:
        if test is None:
            return value
        dims, no = test.dims | value.dims, literal(other, value.dtype)
        text = f"tl.where({self.fit(test, dims)}, {self.fit(value, dims)}, {no})"
        return Value(text, dims, value.dtype, max(test.level, value.level))

    def _op(self, e: Op) -> Value:
        args = [self.expr(a) for a in e.args]
        dims = SCALAR.union(*(a.dims for a in args))
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
        if v.dtype == "i32" and not v.dims and to != "bool":  # a loop's counter may be a plain int
            return replace(v, text=f"tl.cast({v.text}, {ELEMENTS[to]})", dtype=to, plain=True)
        return replace(v, text=convert(v.operand, v.dtype, to), dtype=to, plain=True)


def _other(value: float, kept: Dtype) -> str:
    """Returns what a masked load gives; the least float is less than any finite bf16."""
    return literal(max(value, LEAST_BF16) if kept == "bf16" else value, kept)


def _tensor(v: Value) -> Value:
    return replace(v, text=f"tl.cast({v.text}, {ELEMENTS[v.dtype]})", known=False, plain=True)


def _hint(e: Expr) -> str:
    if isinstance(e, Op):
        return {"add": "total", "mul": "scaled", "div": "ratio"}.get(e.name, e.name)
    return {Guarded: "inside", Random: "random", Position: "pos"}.get(type(e), "value")
