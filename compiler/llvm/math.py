"""Vectorised exp, log, tanh, sigmoid, erf, pow and Philox, as LLVM instructions.

Error bounds against float64, in units in the last place, held by tests/backends/test_cpu_math:
exp 2, log 2, tanh 3, sigmoid 4 (where the result is not denormal), erf 2, pow 1. The greatest
found on millions of samples were 1.01, 0.83, 1.95, 2.44, 1.22 and 0.51. Denormal arguments and
results may be flushed to zero: the step function runs in flush-to-zero mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.llvm.builder import Builder, Val, const
from schemas.philox import MULTIPLIERS, ROUNDS, WEYL

# S. L. Moshier, Cephes Mathematical Library, single precision: expf, logf.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
        5.0000001201e-1)  # fmt: skip
_LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
# Fitted for netdef (least squares, reweighted by Lawson's rule): erf(x) / x - 1 in x**2 where
# |x| < 1, to 1e-9 relative, and log(1 - erf(x)) in x for 1 < x < 4, where erf is off by 1e-9.
_ERF = (7.85390657e-5, -8.01020826e-4, 5.18832961e-3, -2.68538129e-2, 1.12835854e-1,
        -3.76126260e-1, 1.28379167e-1)  # fmt: skip
_ERFC = (1.8557407e-4, -2.9396079e-3, 2.1805320e-2, -1.0303737e-1, -6.3822567e-1, -1.1270400,
         -3.5371876e-4)  # fmt: skip
# A float of this size has no fraction: to add it rounds, and leaves n in its low bits.
_WHOLE, _WHOLE_BITS = 1.5 * 2**23, 0x4B400000
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP2 = tuple(math.log(2) ** n / math.factorial(n) for n in range(9, -1, -1))
_LOG2 = tuple(2 / math.log(2) / n for n in range(13, -1, -2))


def polynomial(b: Builder, x: Val, coefficients: Sequence[float]) -> Val:
    """Horner's scheme, highest power first."""
    y = b.fconst(coefficients[0], x)
    for c in coefficients[1:]:
        y = b.muladd(y, x, b.fconst(c, x))
    return y


def _bits(b: Builder, x: Val) -> Val:
    return b.convert("bitcast", x, "i32" if x.elem == "float" else "i64")


def _power_of_two(b: Builder, n: Val) -> Val:
    """2**n of a normal result for i32 n, of which the low 9 bits count: n + 127 is the exponent."""
    field = b.bin("shl", b.bin("add", n, const(127, "i32")), const(23, "i32"))
    return b.convert("bitcast", field, "float")


def _reduced(b: Builder, x: Val) -> tuple[Val, Val]:
    """Returns e**r - 1 and _WHOLE + n as bits, where x = n * log(2) + r and n is whole."""
    near = b.muladd(x, b.fconst(1 / math.log(2), x), b.fconst(_WHOLE, x))
    n = b.bin("fsub", near, b.fconst(_WHOLE, x))
    r = b.muladd(n, b.fconst(-_LN2_HIGH, x), x)
    r = b.muladd(n, b.fconst(-_LN2_LOW, x), r)
    return b.muladd(polynomial(b, r, _EXP), b.bin("fmul", r, r), r), _bits(b, near)


def _below(b: Builder, x: Val, most: float) -> Val:
    """x, but at most so much. An ordered comparison, so that nan passes."""
    limit = b.fconst(most, x)
    return b.select(b.cmp("fcmp ogt", x, limit), limit, x)


def _above(b: Builder, x: Val, least: float) -> Val:
    limit = b.fconst(least, x)
    return b.select(b.cmp("fcmp olt", x, limit), limit, x)


def exp(b: Builder, x: Val) -> Val:
    y, bits = _reduced(b, _below(b, _above(b, x, -104.0), 89.0))
    y = b.bin("fadd", y, b.fconst(1.0, y))
    # In two steps: 2**128 and the denormal powers have no float of their own.
    whole = b.bin("sub", bits, const(_WHOLE_BITS, "i32"))
    half = b.bin("ashr", whole, const(1, "i32"))
    y = b.bin("fmul", y, _power_of_two(b, half))
    return b.bin("fmul", y, _power_of_two(b, b.bin("sub", whole, half)))


def _to_int(b: Builder, x: Val) -> Val:
    # The value of nan does not matter, but it must not be poison.
    ordered = b.select(b.cmp("fcmp ord", x, x), x, b.fconst(0.0, x))
    return b.convert("fptosi", ordered, "i32")


def log(b: Builder, x: Val) -> Val:
    bits = _bits(b, x)
    # Moves [sqrt(1/2), sqrt(2)) to one exponent: subtract the bits of sqrt(1/2).
    shifted = b.bin("sub", bits, const(0x3F3504F3, "i32"))
    exponent = b.bin("ashr", shifted, const(23, "i32"))
    mantissa = b.bin("sub", bits, b.bin("shl", exponent, const(23, "i32")))
    e = b.convert("sitofp", exponent, "float")
    f = b.bin("fsub", b.convert("bitcast", mantissa, "float"), b.fconst(1.0, x))
    z = b.bin("fmul", f, f)
    y = b.bin("fmul", b.bin("fmul", polynomial(b, f, _LOG), f), z)
    y = b.muladd(e, b.fconst(_LN2_LOW, x), y)
    y = b.muladd(z, b.fconst(-0.5, x), y)
    y = b.muladd(e, b.fconst(_LN2_HIGH, x), b.bin("fadd", f, y))
    # Zero and denormals count as 0; negative numbers and nan give nan; inf stays.
    y = b.select(b.cmp("fcmp olt", x, b.fconst(2.0**-126, x)), b.fconst(-math.inf, x), y)
    y = b.select(b.cmp("fcmp oeq", x, b.fconst(math.inf, x)), x, y)
    wrong = b.cmp("fcmp ult", x, b.fconst(0.0, x))
    return b.select(wrong, b.fconst(math.nan, x), y)


def sigmoid(b: Builder, x: Val) -> Val:
    """1 / (1 + e**-x); the sum is (1 + 2**n) + 2**n * (e**r - 1)."""
    held = _below(b, _above(b, x, -88.0), 87.0)  # 2**n is a normal number there
    y, bits = _reduced(b, b.bin("fsub", b.fconst(-0.0, x), held))
    scale, one = _power_of_two(b, bits), b.fconst(1.0, x)
    return b.bin("fdiv", one, b.muladd(y, scale, b.bin("fadd", scale, one)))


def tanh(b: Builder, x: Val) -> Val:
    """(1 - e**-2x) / (1 + e**-2x) for x > 0; near 0, where n = 0, the dividend is 1 - e**r."""
    size = _below(b, b.intrinsic("llvm.fabs", x), 10.0)  # from there on tanh is 1
    y, bits = _reduced(b, b.bin("fmul", size, b.fconst(-2.0, x)))
    scale, one = _power_of_two(b, bits), b.fconst(1.0, x)
    minus = b.bin("fsub", b.fconst(-0.0, x), y)
    dividend = b.muladd(minus, scale, b.bin("fsub", one, scale))
    result = b.bin("fdiv", dividend, b.muladd(y, scale, b.bin("fadd", one, scale)))
    return b.intrinsic("llvm.copysign", result, x)


def erf(b: Builder, x: Val) -> Val:
    size = b.intrinsic("llvm.fabs", x)
    near = b.muladd(polynomial(b, b.bin("fmul", x, x), _ERF), x, x)
    four = b.fconst(4.0, x)  # from here on erf is 1
    held = b.select(b.cmp("fcmp ogt", size, four), four, size)
    far = b.bin("fsub", b.fconst(1.0, x), exp(b, polynomial(b, held, _ERFC)))
    far = b.intrinsic("llvm.copysign", far, x)
    return b.select(b.cmp("fcmp olt", size, b.fconst(1.0, x)), near, far)


def maximum(b: Builder, x: Val, y: Val, greater: str = "fcmp ogt") -> Val:
    """The greater of both (`fcmp olt`: the lesser), nan if either is."""
    larger = b.select(b.cmp(greater, x, y), x, y)
    return b.select(b.cmp("fcmp uno", x, x), x, larger)


def quarters(b: Builder, x: Val, count: int) -> Val:
    """x ** (count / 4) by products and square roots, to 3e-7; infinite from 8e37 on."""
    whole, rest = divmod(abs(count), 4)
    factors = [x] * whole
    if rest:
        positive = b.bin("fadd", x, b.fconst(0.0, x))  # -0 counts as 0
        factors = [positive] * whole
        root = b.intrinsic("llvm.sqrt", positive)
        factors += [root] if rest & 2 else []
        factors += [b.intrinsic("llvm.sqrt", root)] if rest & 1 else []
    y = factors[0]
    for factor in factors[1:]:
        y = b.bin("fmul", y, factor)
    return y if count > 0 else b.bin("fdiv", b.fconst(1.0, y), y)


def power(b: Builder, x: Val, y: Val) -> Val:
    """x**y as NumPy has it, through log2 and exp2 in double precision."""
    x, y = b.level(x, y)
    wide, times = b.convert("fpext", x, "double"), b.convert("fpext", y, "double")
    size = b.intrinsic("llvm.fabs", wide)
    result = _exp2(b, b.bin("fmul", times, _log2(b, size)))
    one, zero = b.fconst(1.0, wide), b.fconst(0.0, wide)
    result = b.select(b.cmp("fcmp oeq", size, one), one, result)
    # The sign: an odd exponent keeps that of x, an even one drops it, any other has no result.
    half = b.bin("fmul", times, b.fconst(0.5, wide))
    whole = b.cmp("fcmp oeq", b.intrinsic("llvm.floor", times), times)
    even = b.cmp("fcmp oeq", b.intrinsic("llvm.floor", half), half)
    odd = b.bin("and", whole, b.negate(even))
    result = b.select(odd, b.intrinsic("llvm.copysign", result, wide), result)
    # An infinite base has a power of any exponent; infinite exponents are whole and even.
    below = b.cmp("fcmp olt", wide, zero)
    finite = b.cmp("fcmp ogt", wide, b.fconst(-math.inf, wide))
    negative = b.bin("and", b.bin("and", below, finite), b.negate(whole))
    result = b.select(negative, b.fconst(math.nan, wide), result)
    unordered = b.cmp("fcmp uno", wide, times)
    result = b.select(unordered, b.fconst(math.nan, wide), result)
    certain = b.bin("or", b.cmp("fcmp oeq", times, zero), b.cmp("fcmp oeq", wide, one))
    return b.convert("fptrunc", b.select(certain, one, result), "float")


def _log2(b: Builder, x: Val) -> Val:
    """log2 of x >= 0 in double precision, to about 1e-12."""
    bits = _bits(b, x)
    shifted = b.bin("sub", bits, const(0x3FE6A09E667F3BCD, "i64"))
    exponent = b.bin("ashr", shifted, const(52, "i64"))
    mantissa = b.bin("sub", bits, b.bin("shl", exponent, const(52, "i64")))
    e = b.convert("sitofp", b.convert("trunc", exponent, "i32"), "double")
    m = b.convert("bitcast", mantissa, "double")
    one = b.fconst(1.0, x)
    # log(m) = 2 * atanh((m - 1) / (m + 1))
    s = b.bin("fdiv", b.bin("fsub", m, one), b.bin("fadd", m, one))
    y = b.muladd(polynomial(b, b.bin("fmul", s, s), _LOG2), s, e)
    y = b.select(b.cmp("fcmp oeq", x, b.fconst(0.0, x)), b.fconst(-math.inf, x), y)
    return b.select(b.cmp("fcmp oeq", x, b.fconst(math.inf, x)), x, y)


def _exp2(b: Builder, t: Val) -> Val:
    """2**t in double precision, to about 1e-11; float32 has no use for |t| above 200."""
    t = b.select(b.cmp("fcmp ogt", t, b.fconst(200.0, t)), b.fconst(200.0, t), t)
    t = b.select(b.cmp("fcmp olt", t, b.fconst(-200.0, t)), b.fconst(-200.0, t), t)
    n = b.intrinsic("llvm.rint", t)
    y = polynomial(b, b.bin("fsub", t, n), _EXP2)
    field = b.convert("sext", b.bin("add", _to_int(b, n), const(1023, "i32")), "i64")
    scale = b.convert("bitcast", b.bin("shl", field, const(52, "i64")), "double")
    return b.bin("fmul", y, scale)


def philox_uniform(b: Builder, element: Val, words: tuple[Val, Val, Val], stream: int) -> Val:
    """Uniform floats in [0, 1) for counters (element, 0, iteration, stream); see schemas/philox.

    `words`: iteration, and the low and high word of the seed, as i32.
    """
    iteration, k0, k1 = words
    x0, x1, x2, x3 = element, const(0, "i32"), iteration, const(_signed(stream), "i32")
    for _ in range(ROUNDS):
        high0, low0 = _product(b, x0, MULTIPLIERS[0])
        high1, low1 = _product(b, x2, MULTIPLIERS[1])
        x0 = b.bin("xor", b.bin("xor", high1, x1), k0)
        x2 = b.bin("xor", b.bin("xor", high0, x3), k1)
        x1, x3 = low1, low0
        k0 = b.bin("add", k0, const(_signed(WEYL[0]), "i32"))
        k1 = b.bin("add", k1, const(_signed(WEYL[1]), "i32"))
    upper = b.convert("sitofp", b.bin("lshr", x0, const(8, "i32")), "float")
    return b.bin("fmul", upper, b.fconst(2.0**-24, upper))


def _product(b: Builder, x: Val, factor: int) -> tuple[Val, Val]:
    wide = b.bin("mul", b.convert("zext", x, "i64"), const(factor, "i64"))
    high = b.convert("trunc", b.bin("lshr", wide, const(32, "i64")), "i32")
    return high, b.convert("trunc", wide, "i32")


def _signed(word: int) -> int:
    word &= 0xFFFFFFFF
    return word - 2**32 if word >= 2**31 else word
