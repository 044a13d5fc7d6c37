"""One LLVM translation for each scalar map of compiler/prims/maps.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compiler.llvm import math as vm
from compiler.llvm.builder import Builder, Val, const
from schemas.program import Dtype

# u8 is a type of memory alone.
ELEM: dict[str, str] = {"f32": "float", "f64": "double", "i32": "i32", "u8": "i32", "bool": "i1"}

Rule = Callable[..., Val]


def _is_float(x: Val) -> bool:
    return x.elem in ("float", "double")


def _arith(floating: str, whole: str) -> Rule:
    return lambda b, x, y: b.bin(floating if _is_float(x) else whole, x, y)


def _compare(relation: str) -> Rule:
    def emit(b: Builder, x: Val, y: Val) -> Val:
        if _is_float(x):
            return b.cmp(f"fcmp o{relation}", x, y)
        sign = "" if relation == "eq" else "s" if x.elem == "i32" else "u"
        return b.cmp(f"icmp {sign}{relation}", x, y)

    return emit


def _div(b: Builder, x: Val, y: Val) -> Val:
    if _is_float(x):
        return b.bin("fdiv", x, y)
    wide = (b.convert("sitofp", v, "double") for v in (x, y))
    return _saturate(b, b.bin("fdiv", *wide), x.elem)


def _extreme(relation: str) -> Rule:
    def emit(b: Builder, x: Val, y: Val) -> Val:
        if _is_float(x):
            return vm.maximum(b, x, y, f"fcmp o{relation}")
        sign = "s" if x.elem == "i32" else "u"
        return b.select(b.cmp(f"icmp {sign}{relation}", x, y), x, y)

    return emit


def _neg(b: Builder, x: Val) -> Val:
    if _is_float(x):
        return b.op(f"fneg {x}", x.elem, x.lanes)
    return b.bin("sub", const(0, x.elem), x)


def _abs(b: Builder, x: Val) -> Val:
    if _is_float(x):
        return b.intrinsic("llvm.fabs", x)
    return b.select(b.cmp("icmp slt", x, const(0, x.elem)), _neg(b, x), x)


def _sign(b: Builder, x: Val) -> Val:
    zero, one = const(0, x.elem, x.lanes), const(1, x.elem, x.lanes)
    less, more = ("fcmp olt", "fcmp ogt") if _is_float(x) else ("icmp slt", "icmp sgt")
    low = b.select(b.cmp(less, x, zero), const(-1, x.elem, x.lanes), x)
    return b.select(b.cmp(more, x, zero), one, low)


def _relu(b: Builder, x: Val, slope: Any) -> Val:
    zero = const(0, x.elem, x.lanes)
    if not slope:
        return b.select(b.cmp("fcmp ole", x, zero), zero, x)
    steep = b.bin("fmul", x, b.fconst(float(slope), x))
    return b.select(b.cmp("fcmp ogt", x, zero), x, steep)


# The powers that layers use: squares, roots, LRN's 3/4 and what its gradient makes of it.
_QUARTERS = {const(n / 4, "float").text: n for n in range(-8, 9) if n}


def _pow(b: Builder, x: Val, y: Val) -> Val:
    quarters = _QUARTERS.get(y.text) if y.lanes == 1 else None
    return vm.power(b, x, y) if quarters is None else vm.quarters(b, x, quarters)


def _floor(b: Builder, x: Val) -> Val:
    return b.intrinsic("llvm.floor", x) if _is_float(x) else x


def _unary(name: str) -> Rule:
    return lambda b, x: b.intrinsic(name, x)


def _select(b: Builder, condition: Val, yes: Val, no: Val) -> Val:
    return b.select(truth(b, condition), yes, no)


def truth(b: Builder, x: Val) -> Val:
    """Returns x != 0 as i1."""
    if x.elem == "i1":
        return x
    zero = const(0, x.elem, x.lanes)
    return b.cmp("fcmp une" if _is_float(x) else "icmp ne", x, zero)


def cast(b: Builder, x: Val, elem: str) -> Val:
    """Converts; floats are cut towards zero, and held in range so that no value is undefined."""
    if x.elem == elem:
        return x
    if elem == "i1":
        return truth(b, x)
    if _is_float(x) and elem in ("float", "double"):
        return b.convert("fpext" if elem == "double" else "fptrunc", x, elem)
    if _is_float(x):
        return _saturate(b, x, elem)
    if elem in ("float", "double"):
        return b.convert("sitofp" if x.elem == "i32" else "uitofp", x, elem)
    return b.convert("zext" if elem == "i32" or x.elem == "i1" else "trunc", x, elem)


def _saturate(b: Builder, x: Val, elem: str) -> Val:
    signed = "si" if elem == "i32" else "ui"
    prefix = f"v{x.lanes}" if x.lanes > 1 else ""
    kind = "f32" if x.elem == "float" else "f64"
    name = f"llvm.fpto{signed}.sat.{prefix}{elem}.{prefix}{kind}"
    return b.call(name, Val("", elem, x.lanes).type, elem, x.lanes, str(x))


RULES: Mapping[str, Rule] = {
    "add": _arith("fadd", "add"),
    "sub": _arith("fsub", "sub"),
    "mul": _arith("fmul", "mul"),
    "div": _div,
    "maximum": _extreme("gt"),
    "minimum": _extreme("lt"),
    "pow": _pow,
    "neg": _neg,
    "exp": vm.exp,
    "log": vm.log,
    "sqrt": _unary("llvm.sqrt"),
    "tanh": vm.tanh,
    "sigmoid": vm.sigmoid,
    "erf": vm.erf,
    "abs": _abs,
    "sign": _sign,
    "floor": _floor,
    "less": _compare("lt"),
    "lesseq": _compare("le"),
    "equal": _compare("eq"),
    "and": lambda b, x, y: b.bin("and", truth(b, x), truth(b, y)),
    "select": _select,
    "stop": lambda b, x: x,
}


def emit_op(b: Builder, name: str, args: tuple[Val, ...], dtype: Dtype, attrs: Any) -> Val:
    """Emits one map; `dtype` is its result's."""
    elem = ELEM[dtype]
    if name == "cast":
        return cast(b, args[0], elem)
    if name == "relu":
        return _relu(b, args[0], dict(attrs)["slope"])
    return RULES[name](b, *args)
