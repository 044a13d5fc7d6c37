"""Instructions that compute a register of registers, lane by lane."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.gpu.ptx.lanes import Array, Lanes, Step, dtype, reader
from tests.gpu.ptx.text import Instruction

Function = Callable[..., Array]

_SMALLEST = np.float32(2.0**-126)  # what is smaller is flushed by `.ftz`


def as_float(bits: Array) -> Array:
    """bf16 -> f32"""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def as_bf16(value: Array) -> Array:
    """f32 -> bf16, to the nearest, ties to even."""
    bits = value.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(value), np.uint32(0x7FFF0000), rounded).astype(np.uint32) >> np.uint32(
        16
    )


def _flushed(value: Array) -> Array:
    return np.where(np.abs(value) < _SMALLEST, np.copysign(np.float32(0), value), value)


def _fma(a: Array, b: Array, c: Array) -> Array:
    """The product is exact in 64 bits; the sum is rounded twice, which hardly ever shows."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def _shift(value: Array, by: Array, left: bool) -> Array:
    """By as many bits as a number has, or more, nothing is left of it but its sign."""
    bits = 8 * value.dtype.itemsize
    most = bits - 1 if value.dtype.kind == "i" and not left else bits
    by = np.minimum(by, np.uint32(most))
    inside = np.minimum(by, np.uint32(bits - 1)).astype(value.dtype)
    moved = np.left_shift(value, inside) if left else np.right_shift(value, inside)
    result: Array = np.where(by < bits, moved, np.zeros_like(moved))
    return result


def _upper(a: Array, b: Array) -> Array:
    """The upper half of a product."""
    size, kind = a.dtype.itemsize, a.dtype.kind
    if size < 8:
        wide = np.dtype(f"{kind}{2 * size}")
        upper: Array = (a.astype(wide) * b.astype(wide)) >> (8 * size)
        return upper.astype(a.dtype)
    assert kind == "u"
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    (a1, a0), (b1, b0) = ((x >> half, x & low) for x in (a, b))
    middle = a1 * b0 + ((a0 * b0) >> half)
    result: Array = a1 * b1 + (middle >> half) + ((a0 * b1 + (middle & low)) >> half)
    return result


def _wide(a: Array, b: Array) -> Array:
    type_ = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
    result: Array = a.astype(type_) * b.astype(type_)
    return result


def _divided(a: Array, b: Array) -> Array:
    """Towards zero; by zero it is anything."""
    safe = np.where(b == 0, np.ones_like(b), b)
    quotient = np.abs(a.astype(np.int64)) // np.abs(safe.astype(np.int64))
    result: Array = np.where((a < 0) != (safe < 0), -quotient, quotient)
    return result.astype(a.dtype)


def _remainder(a: Array, b: Array) -> Array:
    result: Array = a - _divided(a, b) * b
    return result.astype(a.dtype)


def _field(value: Array, start: Array, length: Array) -> Array:
    """Bits from `start` on; of a signed number the last of them is the sign."""
    bits = 8 * value.dtype.itemsize
    above = np.maximum(np.int64(bits) - length - start, 0).astype(np.uint32)
    return _shift(_shift(value, above, left=True), above + start, left=False)


def _inserted(field: Array, into: Array, start: Array, length: Array) -> Array:
    """`into`, whose bits from `start` on are those of the field; what is past its end is lost."""
    ones = np.full_like(into, ~into.dtype.type(0))
    mask = _shift(~_shift(ones, length, left=True), start, left=True)
    return into & ~mask | _shift(field, start, left=True) & mask


def _permuted(a: Array, b: Array, selector: Array) -> Array:
    """Picks bytes of (b, a); a nibble above 7 repeats the sign of its byte."""
    both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    result = np.zeros(np.broadcast(a, b, selector).shape, np.uint32)
    for n in range(4):
        nibble = (selector >> np.uint32(4 * n)) & np.uint32(15)
        byte = (both >> ((nibble & np.uint32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(255)
        sign = np.where(byte >= 128, np.uint64(255), np.uint64(0))
        chosen = np.where(nibble > 7, sign, byte).astype(np.uint32)
        result = result | (chosen << np.uint32(8 * n))
    return result


def _compared(test: str, a: Array, b: Array) -> Array:
    """`ltu` and its like hold for what is no number as well, `lt` does not."""
    functions: dict[str, Function] = {
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
    }
    unordered = np.asarray(np.isnan(a) | np.isnan(b) if a.dtype.kind == "f" else False)
    if test in ("nan", "num"):
        return unordered if test == "nan" else ~unordered
    found = functions[test[:2]](a, b)
    return np.asarray(found | unordered if test[2:] == "u" else found & ~unordered)


_BINARY: dict[str, Function] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mul.lo": np.multiply,
    "mul.hi": _upper,
    "mul.wide": _wide,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
_FLOAT: dict[str, Function] = {
    **{name: _BINARY[name] for name in ("add", "sub", "mul")},
    "div.full": np.divide,
    "div.approx": np.divide,
    "div.rn": np.divide,
    "fma.rn": _fma,
    "max": np.fmax,
    "min": np.fmin,
    "max.NaN": np.maximum,
    "min.NaN": np.minimum,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt.approx": np.sqrt,
    "sqrt.rn": np.sqrt,
    "rsqrt.approx": lambda x: np.float32(1) / np.sqrt(x),
    "rcp.approx": lambda x: np.float32(1) / x,
    "rcp.rn": lambda x: np.float32(1) / x,
    "ex2.approx": np.exp2,
    "lg2.approx": np.log2,
    "tanh.approx": np.tanh,
}
_INTEGER: dict[str, Function] = {
    **_BINARY,
    "mad.lo": lambda a, b, c: a * b + c,
    "mad.wide": lambda a, b, c: _wide(a, b) + c,
    "div": _divided,
    "rem": _remainder,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "abs": np.abs,
    "not": np.invert,
    "shl": partial(_shift, left=True),
    "shr": partial(_shift, left=False),
    "bfe": _field,
    "bfi": _inserted,
    "prmt": _permuted,
}
# Operands behind the first that are of another type than the instruction.
_OTHERS = {
    "shl": ("", "u32"),
    "shr": ("", "u32"),
    "bfe": ("", "u32", "u32"),
    "bfi": ("", "", "u32", "u32"),
    "mad.wide": ("", ""),
}


def elementwise(i: Instruction) -> Step | None:
    """Returns what runs an instruction, None if it is of another kind."""
    first = i.parts[0]
    special = {"mov": _move, "cvta": _move, "selp": _select, "setp": _compare, "cvt": _convert}.get(
        first
    )
    if special is not None:
        return special(i)
    kind, words = i.parts[-1], [p for p in i.parts[:-1] if p not in ("ftz", "uni")]
    name = ".".join(words)
    if kind in ("bf16", "bf16x2", "s16x2"):
        return _packed(i, name, kind)
    function = (_FLOAT if kind in ("f32", "f64") else _INTEGER).get(name)
    if function is None:
        return None
    kinds = [kind] * (len(i.operands) - 1)
    for n, other in enumerate(_OTHERS.get(name, ())):
        kinds[n] = other or kind
    if name == "mad.wide":
        kinds[2] = f"{kind[0]}{2 * int(kind[1:])}"
    return _step(i, function, kinds, flush="ftz" in i.parts)


def _step(i: Instruction, function: Function, kinds: list[str], flush: bool = False) -> Step:
    sources = [reader(o, kind) for o, kind in zip(i.operands[1:], kinds, strict=True)]

    def run(lanes: Lanes, active: Array | None) -> None:
        values = [read(lanes) for read in sources]
        if flush:
            values = [_flushed(v) for v in values]
        result = function(*values)
        lanes.put(i.operands[0], _flushed(result) if flush else result, active)

    return run


def _packed(i: Instruction, name: str, kind: str) -> Step:
    """bf16, and two numbers of 16 bits in a register."""
    inner = "s16" if kind == "s16x2" else "f32"
    one = (_INTEGER if inner == "s16" else _FLOAT)[name]

    def half(bits: Array) -> Array:
        return bits.astype(np.uint16).view(np.int16) if inner == "s16" else as_float(bits)

    def back(value: Array) -> Array:
        return value.view(np.uint16) if inner == "s16" else as_bf16(value).astype(np.uint16)

    def function(*values: Array) -> Array:
        low = back(one(*(half(v & v.dtype.type(0xFFFF)) for v in values)))
        if kind == "bf16":
            return low
        high = back(one(*(half(v >> np.uint32(16)) for v in values)))
        return low.astype(np.uint32) | (high.astype(np.uint32) << np.uint32(16))

    return _step(i, function, [kind] * (len(i.operands) - 1))


def _move(i: Instruction) -> Step:
    """A copy; or two registers that become one of twice the width, or one that becomes two."""
    kind = i.parts[-1]
    to, source = i.operands
    whole = dtype(kind)
    if not isinstance(to, tuple) and not isinstance(source, tuple):
        return _step(i, lambda x: x, [kind])
    many = to if isinstance(to, tuple) else source
    assert isinstance(many, tuple)
    size = 8 * whole.itemsize // len(many)
    if isinstance(source, tuple):
        parts = [reader(o, f"b{size}") for o in source]

        def join(lanes: Lanes, active: Array | None) -> None:
            bits = [p(lanes).astype(whole) << whole.type(size * n) for n, p in enumerate(parts)]
            lanes.put(to, np.bitwise_or.reduce(np.broadcast_arrays(*bits)), active)

        return join
    read = reader(source, kind)

    def split(lanes: Lanes, active: Array | None) -> None:
        bits = read(lanes)
        for n, register in enumerate(many):
            part = (bits >> whole.type(size * n)).astype(np.dtype(f"u{size // 8}"))
            lanes.put(register, part, active)

    return split


def _select(i: Instruction) -> Step:
    kind = i.parts[-1]
    return _step(i, lambda a, b, p: np.asarray(np.where(p, a, b)), [kind, kind, "pred"])


def _compare(i: Instruction) -> Step:
    test, kind = i.parts[1], i.parts[-1]
    if kind == "bf16x2":
        first, second = i.operands[0], i.operands[1]
        sources = [reader(o, "b32") for o in i.operands[2:]]

        def both(lanes: Lanes, active: Array | None) -> None:
            a, b = (read(lanes) for read in sources)
            mask = np.uint32(0xFFFF)
            low = _compared(test, as_float(a & mask), as_float(b & mask))
            high = _compared(test, as_float(a >> np.uint32(16)), as_float(b >> np.uint32(16)))
            lanes.put(first, low, active)
            lanes.put(second, high, active)

        return both
    if kind == "bf16":
        return _step(i, lambda a, b: _compared(test, as_float(a), as_float(b)), ["b16", "b16"])
    return _step(i, partial(_compared, test), [kind, kind])


def _convert(i: Instruction) -> Step:
    kind, source = i.parts[-2], i.parts[-1]
    rounding = [p for p in i.parts[1:-2] if p != "ftz"]
    if kind == "bf16x2":
        pack = lambda a, b: (as_bf16(a) << np.uint32(16)) | as_bf16(b)  # noqa: E731
        return _step(i, pack, ["f32", "f32"])
    if kind == "bf16":
        narrow = lambda x: as_bf16(x.astype(np.float32)).astype(np.uint16)  # noqa: E731
        return _step(i, narrow, [source])
    if source == "bf16":
        return _step(i, as_float, ["b16"])
    target = dtype(kind)
    if source[0] == "f" and kind[0] in "su":
        return _step(i, partial(_whole, rounding[0], target), [source])
    if source[0] == "f" and rounding and rounding[0] in _ROUNDINGS:
        return _step(i, _ROUNDINGS[rounding[0]], [source])
    return _step(i, lambda x: x.astype(target), [source])


_ROUNDINGS: dict[str, Function] = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def _whole(rounding: str, target: np.dtype[Any], value: Array) -> Array:
    """What does not fit becomes the nearest number that does; what is no number becomes 0."""
    limits = np.iinfo(target)
    whole = np.clip(_ROUNDINGS[rounding](value.astype(np.float64)), limits.min, limits.max)
    return np.where(np.isnan(value), 0, whole).astype(np.int64).astype(target)
