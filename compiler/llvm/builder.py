"""Writes one LLVM function: SSA names, blocks, loops and vectors, as text."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

BITS = {"float": 32, "double": 64, "i1": 1, "i8": 8, "i32": 32, "i64": 64}


@dataclass(frozen=True, slots=True)
class Val:
    """An SSA value or constant: `lanes` elements of type `elem`, a scalar where lanes is 1."""

    text: str
    elem: str
    lanes: int = 1

    @property
    def type(self) -> str:
        return vector(self.elem, self.lanes)

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


# Scalar i64 arithmetic is folded where its operands are known.
Int = Val | int


def vector(elem: str, lanes: int) -> str:
    return elem if lanes == 1 else f"<{lanes} x {elem}>"


def number(value: float | int | bool, elem: str) -> str:
    """Returns a scalar constant as LLVM writes it; floats bit for bit."""
    if elem in ("float", "double"):
        exact = float(np.float32(value)) if elem == "float" else float(value)
        return f"0x{struct.unpack('>Q', struct.pack('>d', exact))[0]:016X}"
    if elem == "i1":
        return "true" if value else "false"
    return str(int(value))


def const(value: float | int | bool, elem: str, lanes: int = 1) -> Val:
    text = number(value, elem)
    return Val(text if lanes == 1 else f"splat ({elem} {text})", elem, lanes)


def constants(values: Sequence[float | int | bool], elem: str) -> Val:
    inner = ", ".join(f"{elem} {number(v, elem)}" for v in values)
    return Val(f"<{inner}>", elem, len(values))


def as_val(value: Int) -> Val:
    return const(value, "i64") if isinstance(value, int) else value


class Var:
    """A mutable local, which LLVM turns into registers."""

    def __init__(self, builder: Builder, elem: str, lanes: int) -> None:
        self.builder, self.elem, self.lanes = builder, elem, lanes
        self.slot = builder.alloca(vector(elem, lanes))

    def get(self) -> Val:
        type_ = vector(self.elem, self.lanes)
        return self.builder.op(f"load {type_}, ptr {self.slot}", self.elem, self.lanes)

    def set(self, value: Val) -> None:
        value = self.builder.widen(value, self.lanes)
        assert value.elem == self.elem, (value, self.elem)
        self.builder.void(f"store {value}, ptr {self.slot}")


class Builder:
    """One function under construction. `fma` tells whether the processor has fused multiply-add."""

    def __init__(self, lanes: int, fma: bool = True) -> None:
        self.lanes = lanes
        self.fma = fma
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.declares: set[str] = set()
        self.globals: set[str] = set()
        self.block = "start"
        self._count = 0

    # ---- plain text --------------------------------------------------------------------------

    def name(self, prefix: str = "v") -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def void(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def op(self, text: str, elem: str, lanes: int = 1) -> Val:
        name = f"%{self.name()}"
        self.lines.append(f"  {name} = {text}")
        return Val(name, elem, lanes)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def alloca(self, type_: str, align: int = 0) -> str:
        name = f"%{self.name('a')}"
        self.allocas.append(f"  {name} = alloca {type_}" + (f", align {align}" if align else ""))
        return name

    def var(self, elem: str, lanes: int, init: Val | None = None) -> Var:
        made = Var(self, elem, lanes)
        if init is not None:
            made.set(init)
        return made

    def function(self, name: str, params: str, attrs: str = "noinline nounwind") -> str:
        """Returns the finished function."""
        head = f"define internal void @{name}({params}) {attrs} {{"
        body = [head, "entry:", *self.allocas, "  br label %start", "start:", *self.lines]
        return "\n".join([*body, "  ret void", "}"]) + "\n"

    # ---- values ------------------------------------------------------------------------------

    def widen(self, value: Val, lanes: int) -> Val:
        """Returns a scalar repeated in all lanes; vectors of that width as they are."""
        if value.lanes == lanes:
            return value
        assert value.lanes == 1, (value, lanes)
        if not value.text.startswith("%"):
            return Val(f"splat ({value.elem} {value.text})", value.elem, lanes)
        type_ = vector(value.elem, lanes)
        one = self.op(f"insertelement {type_} poison, {value}, i64 0", value.elem, lanes)
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.op(f"shufflevector {one}, {type_} poison, {zeros}", value.elem, lanes)

    def level(self, *values: Val) -> tuple[Val, ...]:
        """Returns the values, scalars widened if any is a vector."""
        lanes = max(v.lanes for v in values)
        return tuple(self.widen(v, lanes) for v in values)

    def bin(self, op: str, x: Val, y: Val) -> Val:
        x, y = self.level(x, y)
        assert x.elem == y.elem, (op, x, y)
        return self.op(f"{op} {x}, {y.text}", x.elem, x.lanes)

    def cmp(self, op: str, x: Val, y: Val) -> Val:
        """Compares: op is `fcmp olt`, `icmp slt` and so on."""
        x, y = self.level(x, y)
        assert x.elem == y.elem, (op, x, y)
        return self.op(f"{op} {x}, {y.text}", "i1", x.lanes)

    def select(self, condition: Val, yes: Val, no: Val) -> Val:
        yes, no = self.level(yes, no)
        if condition.lanes > 1:
            yes, no = self.widen(yes, condition.lanes), self.widen(no, condition.lanes)
        return self.op(f"select {condition}, {yes}, {no}", yes.elem, yes.lanes)

    def convert(self, op: str, x: Val, elem: str) -> Val:
        if x.elem == elem:
            return x
        return self.op(f"{op} {x} to {vector(elem, x.lanes)}", elem, x.lanes)

    def fconst(self, value: float, like: Val) -> Val:
        return const(value, like.elem, like.lanes)

    def intrinsic(self, name: str, *args: Val) -> Val:
        """Calls an intrinsic whose arguments and result have one type."""
        args = self.level(*args)
        elem, lanes = args[0].elem, args[0].lanes
        kind = {"float": "f32", "double": "f64"}.get(elem, elem)
        suffix = kind if lanes == 1 else f"v{lanes}{kind}"
        type_ = args[0].type
        self.declares.add(f"declare {type_} @{name}.{suffix}({', '.join([type_] * len(args))})")
        inner = ", ".join(map(str, args))
        return self.op(f"call {type_} @{name}.{suffix}({inner})", elem, lanes)

    def muladd(self, x: Val, y: Val, z: Val) -> Val:
        """x * y + z, rounded once where the processor can."""
        if self.fma:
            return self.intrinsic("llvm.fma", x, y, z)
        return self.bin("fadd", self.bin("fmul", x, y), z)

    # ---- scalar integers ---------------------------------------------------------------------

    def iadd(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        if x == 0 or y == 0:
            return y if x == 0 else x
        return self.bin("add nsw", as_val(x), as_val(y))

    def isub(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return x - y
        return x if y == 0 else self.bin("sub nsw", as_val(x), as_val(y))

    def imul(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        if x == 0 or y == 0:
            return 0
        if x == 1 or y == 1:
            return y if x == 1 else x
        return self.bin("mul nsw", as_val(x), as_val(y))

    def imin(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return min(x, y)
        return self.intrinsic("llvm.smin", as_val(x), as_val(y))

    def imax(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return max(x, y)
        return self.intrinsic("llvm.smax", as_val(x), as_val(y))

    def idivmod(self, x: Int, by: int, small: bool = True) -> tuple[Int, Int]:
        """Quotient and remainder of x >= 0; `small`: x fits 31 bits, where dividing is cheaper."""
        if isinstance(x, int):
            return divmod(x, by)
        if by == 1:
            return x, 0
        elem = "i32" if small else "i64"
        narrow = self.convert("trunc", x, elem)
        quotient = self.bin("udiv", narrow, const(by, elem))
        rest = self.bin("sub", narrow, self.bin("mul", quotient, const(by, elem)))
        return self.convert("zext", quotient, "i64"), self.convert("zext", rest, "i64")

    def unravel(self, x: Int, sizes: Sequence[int]) -> list[Int]:
        """Splits a row-major position into its coordinates."""
        found: list[Int] = []
        for size in reversed(sizes[1:]):
            x, rest = self.idivmod(x, size)
            found.append(rest)
        return [x, *reversed(found)] if sizes else []

    # ---- memory ------------------------------------------------------------------------------

    def at(self, pointer: str, elem: str, offset: Int) -> str:
        """Returns the address of an element."""
        if offset == 0:
            return pointer
        index = as_val(offset)
        return self.op(f"getelementptr {elem}, ptr {pointer}, {index}", "ptr").text

    def load(self, pointer: str, elem: str, lanes: int = 1) -> Val:
        align = max(BITS[elem] // 8, 1)
        return self.op(f"load {vector(elem, lanes)}, ptr {pointer}, align {align}", elem, lanes)

    def load_all(self, pointer: str, count: int, lanes: int) -> list[Val]:
        """Loads neighbouring float vectors."""
        return [
            self.load(self.at(pointer, "float", n * lanes), "float", lanes) for n in range(count)
        ]

    def prefetch(self, pointer: str) -> None:
        """Asks for a line of memory ahead of its use; the address may lie outside of a buffer."""
        self.declares.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.void(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")

    def store(self, value: Val, pointer: str) -> None:
        self.void(f"store {value}, ptr {pointer}, align {max(BITS[value.elem] // 8, 1)}")

    def call(self, name: str, result: str, elem: str, lanes: int, *args: str) -> Val:
        """Calls any other intrinsic and declares it; `args` are written with their types."""
        self.declare(name, result, args)
        return self.op(f"call {result} @{name}({', '.join(args)})", elem, lanes)

    def declare(self, name: str, result: str, args: Sequence[str]) -> None:
        types = ", ".join(_type_of(a) for a in args)
        self.declares.add(f"declare {result} @{name}({types})")

    # ---- control flow ------------------------------------------------------------------------

    @contextmanager
    def loop(self, start: Int, stop: Int, step: int = 1) -> Iterator[Val]:
        """Runs its body with i = start, start + step ... below stop."""
        n = self.name("")
        head, body, done = f"head{n}", f"body{n}", f"done{n}"
        before = self.block
        self.void(f"br label %{head}")
        self.label(head)
        phi = len(self.lines)
        self.lines.append("")
        i = Val(f"%i{n}", "i64")
        test = self.cmp("icmp slt", i, as_val(stop))
        self.void(f"br {test}, label %{body}, label %{done}")
        self.label(body)
        yield i
        after = self.bin("add nsw", i, const(step, "i64"))
        first = as_val(start).text
        self.lines[phi] = (
            f"  {i.text} = phi i64 [{first}, %{before}], [{after.text}, %{self.block}]"
        )
        self.void(f"br label %{head}")
        self.label(done)

    @contextmanager
    def when(self, condition: Val) -> Iterator[None]:
        n = self.name("")
        self.void(f"br {condition}, label %then{n}, label %cont{n}")
        self.label(f"then{n}")
        yield
        self.void(f"br label %cont{n}")
        self.label(f"cont{n}")

    def negate(self, condition: Val) -> Val:
        return self.bin("xor", condition, const(True, "i1", condition.lanes))


def _type_of(argument: str) -> str:
    """The type in front of an argument: `<4 x float> %v1` -> `<4 x float>`."""
    if argument.startswith("<"):
        return argument[: argument.index(">") + 1]
    return argument.split(" ")[0]
