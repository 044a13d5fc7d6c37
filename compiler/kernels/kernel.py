"""Kernel: one loop nest, as scalar expressions over index expressions.

A kernel runs its body at every point of `space`. The body is a list of statements in order:

    Reduce   acc = sum | max | argmax  of a value over further axes
    Store    writes a value, at this point or once for each point of further axes

A value (`Expr`) may use the results of the Reduces before it (`Acc`). So a map is a body of one
Store; a convolution is a Reduce(sum) of a product of two Loads, then Stores of maps of its Acc
(the epilogue: bias, activation); a softmax is Reduce(max), Reduce(sum), Store over the row.
Nothing depends on the order of the points of `space`: they may all run at once. An epilogue may
also have Reduces over axes of `space` itself, the rows of a tile or the places of a window: their
result is the same for all of them, and a Store of it that does not depend on the row (the place) is
made once for all. The values of all Stores at the point (without axes of their own) are computed
before the first of them is stored: a kernel may update a buffer in place, reading the very element
that the same point stores. Otherwise no kernel reads a buffer that it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from compiler.kernels.index import Axis, Index, axes_of, bounds, substitute
from schemas.program import Dtype, HostCall


@dataclass(frozen=True, slots=True)
class Guard:
    """low <= index < high."""

    index: Index
    low: int
    high: int

    def always(self) -> bool:
        low, high = bounds(self.index)
        return self.low <= low and high < self.high

    def __str__(self) -> str:
        return f"{self.low} <= {self.index} < {self.high}"


Guards = tuple[Guard, ...]


@dataclass(frozen=True, slots=True)
class Const:
    """A number known now."""

    value: float | int | bool
    dtype: Dtype = "f32"


@dataclass(frozen=True, slots=True)
class Load:
    """buffer[offset] where all guards hold, else `other`; nothing is read where one does not.

    bf16 and u8 are types of memory alone: loaded as f32 and i32, rounded and cut by a Store.
    """

    buffer: str
    offset: Index
    dtype: Dtype
    guards: Guards = ()
    other: float = 0.0


@dataclass(frozen=True, slots=True)
class Op:
    """A scalar map of compiler/prims/maps.py by name: `add`, `exp`, `select` ...

    `attrs` are the primitive's (relu: slope). dtype is the result's; `cast` goes to it.
    """

    name: str
    args: tuple[Expr, ...]
    dtype: Dtype
    attrs: tuple[tuple[str, Hashable], ...] = ()


@dataclass(frozen=True, slots=True)
class Position:
    """The value of an index, as i32."""

    index: Index
    dtype: Dtype = "i32"


@dataclass(frozen=True, slots=True)
class Guarded:
    """`value` where all guards hold, else `other`."""

    guards: Guards
    value: Expr
    other: float
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform in [0, 1): Philox word 0 of counter (element, 0, iteration, stream), 24 upper bits.

    Seed and iteration are the i32 words `seed_lo`, `seed_hi`, `iteration` of the scalar block,
    read as unsigned (`compiler.kernels.kernel.SCALARS`).
    """

    stream: int
    element: Index
    dtype: Dtype = "f32"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a constant matrix."""

    matrix: tuple[tuple[float, ...], ...]
    row: Index
    column: Index
    dtype: Dtype = "f32"


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor of a product that is a map of what is loaded, made on its way to the product."""

    value: Expr
    dtype: Dtype = "f32"


@dataclass(frozen=True, slots=True)
class Acc:
    """The result of the Reduce with this id."""

    id: int
    dtype: Dtype


Expr = Const | Load | Op | Position | Guarded | Random | Entry | Factor | Acc

# The block of numbers that change from step to step, 4 bytes each: name -> (word, type).
SCALARS: dict[str, tuple[int, Dtype]] = {
    "iteration": (0, "i32"),
    "seed_lo": (1, "i32"),
    "seed_hi": (2, "i32"),
    "lr": (3, "f32"),
    "first": (4, "f32"),
    "rate_scale": (5, "f32"),
}
SCALAR_BUFFER = "scalars"


@dataclass(frozen=True, slots=True)
class Reduce:
    """Folds `value` over `axes`, the last varying fastest.

    argmax gives `payload` of the first greatest value, as i32; Loads whose guards fail count as
    `other`, which is the least float for max and argmax, so that padding never wins.
    """

    id: int
    op: Literal["sum", "max", "argmax"]
    axes: tuple[Axis, ...]
    value: Expr
    dtype: Dtype
    payload: Expr | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """buffer[offset] = value where all guards hold, for each point of `axes` and of the space."""

    buffer: str
    offset: Index
    value: Expr
    dtype: Dtype
    axes: tuple[Axis, ...] = ()
    guards: Guards = ()


# What the factors of a product may be stored as.
FLOATS: frozenset[Dtype] = frozenset(["f32", "bf16"])

Statement = Reduce | Store
Kind = Literal["map", "reduce", "row", "contract", "transform", "host"]


@dataclass(frozen=True, slots=True)
class Call:
    """What a kernel of kind `host` does instead of a body: it calls a Python layer.

    The layer gets `source` from element `offset` on (None: nothing) and fills `target`; the calls
    that left the buffers `before` come first.
    """

    host: HostCall
    source: str | None
    offset: int
    target: str
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """How sums are shared out: their axis of number `cut` is cut in `count` parts.

    The parts lie in `buffer`, and whoever is last to finish one adds all up, in their order.
    """

    cut: int
    count: int
    buffer: str


@dataclass(frozen=True)
class Kernel:
    """One loop nest; see the module's docstring. `space` is ordered, its last axis fastest."""

    name: str
    space: tuple[Axis, ...]
    body: tuple[Statement, ...]
    layers: tuple[str, ...] = ()
    loop: int = 0  # kernels of one loop go through time together, step by step; 0: none
    call: Call | None = None
    parts: Parts | None = None
    # Kernels over columns, or groups of tiles and columns, whose sums run over what the one before
    # stores once a tile, the first over this one's: each is done as soon as all of that is there.
    joins: tuple[Kernel, ...] = ()

    @cached_property
    def kind(self) -> Kind:
        """What the generators choose by; it follows from the body alone.

        contract  the first statement sums a product of two Loads or Factors; none after it reduces,
                  but over axes of the space; a Store with axes of its own spreads the result
        transform likewise, of a value between two constant matrices
        row       statements with axes of their own (Stores over a row), or several Reduces
        reduce    Reduces over the same axes, then Stores at the point
        map       Stores at the point
        host      a call of a Python layer, nothing else
        """
        if self.call is not None:
            return "host"
        reduces = [r for r in self.reduces if not self.rows or r.axes != self.rows]
        wide = any(isinstance(s, Store) and s.axes for s in self.body)
        if len(reduces) == 1 and product(reduces[0]) is not None:
            return "contract"
        if len(reduces) == 1 and not wide and sandwich(reduces[0]) is not None:
            return "transform"
        if not reduces and not wide:
            return "map"
        same = len({r.axes for r in reduces}) == 1
        chained = any(isinstance(e, Acc) for r in reduces for e in walk(r.value))
        return "reduce" if same and not wide and not chained else "row"

    @cached_property
    def stores(self) -> tuple[Store, ...]:
        return tuple(s for s in self.body if isinstance(s, Store))

    @cached_property
    def reduces(self) -> tuple[Reduce, ...]:
        return tuple(s for s in self.body if isinstance(s, Reduce))

    @cached_property
    def rows(self) -> tuple[Axis, ...]:
        """The axes of the space that Reduces fold over, if they do."""
        return next((r.axes for r in self.reduces if r.axes and r.axes[0] in self.space), ())

    @cached_property
    def leaves(self) -> tuple[Load | Random, ...]:
        """What is read from memory, repeated reads too."""
        parts = (x for s in self.body for e in values(s) for x in walk(e))
        return tuple(x for x in parts if isinstance(x, (Load, Random)))

    def loads(self) -> Iterator[Load]:
        """Yields every load, repeated ones too."""
        return (x for x in self.leaves if isinstance(x, Load))

    def accesses(self) -> Iterator[Load | Store]:
        """Yields whatever reads or writes memory, in the joins too."""
        for one in (self, *self.joins):
            yield from one.loads()
            yield from one.stores

    def reads(self) -> set[str]:
        """Returns the buffers that the kernel reads, the scalar block included."""
        found = {x.buffer if isinstance(x, Load) else SCALAR_BUFFER for x in self.leaves}
        if self.call is not None:
            found |= {*self.call.before} | ({self.call.source} if self.call.source else set())
        made = {s.buffer for s in self.stores}
        for join in self.joins:
            found |= join.reads() - made
            made |= join.writes()
        return found

    def writes(self) -> set[str]:
        found = {s.buffer for s in self.stores}
        found |= {self.call.target} if self.call is not None else set()
        found = found.union(*(join.writes() for join in self.joins))
        return found | ({self.parts.buffer} if self.parts is not None else set())


def product(reduce: Reduce) -> tuple[Load, Load] | None:
    """Returns where the two factors are read if the Reduce is a sum of a product of two."""
    if reduce.op == "sum" and isinstance(reduce.value, Op) and reduce.value.name == "mul":
        a, b = map(_read_at, reduce.value.args)
        if a is not None and b is not None and {a.dtype, b.dtype} <= FLOATS:
            return a, b
    return None


def _read_at(e: Expr) -> Load | None:
    """Returns the Load that a factor is, or that a Factor is a map of, if any: it has most axes."""
    if isinstance(e, Factor):
        loads = (x for x in walk(e) if isinstance(x, Load))
        return max(loads, key=lambda x: len(load_axes(x)), default=None)
    return e if isinstance(e, Load) else None


def sandwich(reduce: Reduce) -> tuple[Entry, Entry, Expr] | None:
    """Returns (A, B, x) if the Reduce is a sum of A * B * x, entries of matrices and a value."""
    match reduce.value:
        case Op("mul", (Op("mul", (Entry() as left, Entry() as right)), x)) if reduce.op == "sum":
            return left, right, x
    return None


def load_axes(load: Load) -> set[Axis]:
    """Returns the axes that a load's address or guards depend on."""
    return axes_of(load.offset).union(*(axes_of(guard.index) for guard in load.guards))


def values(statement: Statement) -> tuple[Expr, ...]:
    """Returns the expressions that a statement evaluates."""
    if isinstance(statement, Reduce) and statement.payload is not None:
        return statement.value, statement.payload
    return (statement.value,)


def walk(e: Expr) -> Iterator[Expr]:
    """Yields an expression and everything inside it, parents first."""
    stack = [e]
    while stack:
        e = stack.pop()
        yield e
        if isinstance(e, Op):
            stack.extend(reversed(e.args))
        elif isinstance(e, (Guarded, Factor)):
            stack.append(e.value)


def rebuild(e: Expr, visit: Callable[[Expr], Expr | None]) -> Expr:
    """Returns e with every part for which `visit` gives a replacement replaced, outermost first."""
    done: dict[int, Expr] = {}  # by id: hashing an expression walks all of it

    def go(e: Expr) -> Expr:
        new = done.get(id(e))
        if new is None:
            new = done[id(e)] = visit(e) or inside(e)
        return new

    def inside(e: Expr) -> Expr:
        if isinstance(e, Op):
            args = tuple(go(a) for a in e.args)
            if any(new is not old for new, old in zip(args, e.args, strict=True)):
                return Op(e.name, args, e.dtype, e.attrs)
        elif isinstance(e, (Guarded, Factor)):
            value = go(e.value)
            if value is not e.value:
                return replace(e, value=value)
        return e

    return go(e)


def shift(e: Expr, axes: dict[Axis, Index]) -> Expr:
    """Returns e with axes replaced by index expressions."""

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Load):
            offset = substitute(e.offset, axes)
            return Load(e.buffer, offset, e.dtype, shift_guards(e.guards, axes), e.other)
        if isinstance(e, Position):
            return replace(e, index=substitute(e.index, axes))
        if isinstance(e, Random):
            return replace(e, element=substitute(e.element, axes))
        if isinstance(e, Entry):
            return replace(e, row=substitute(e.row, axes), column=substitute(e.column, axes))
        if isinstance(e, Guarded):
            return Guarded(shift_guards(e.guards, axes), shift(e.value, axes), e.other, e.dtype)
        return None

    return rebuild(e, visit)


def shift_guards(guards: Guards, axes: dict[Axis, Index]) -> Guards:
    """Returns guards with axes replaced by index expressions, those left out that always hold."""
    moved = (Guard(substitute(g.index, axes), g.low, g.high) for g in guards)
    return tuple(g for g in moved if not g.always())
