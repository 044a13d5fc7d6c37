"""How each scalar map reads in Triton."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compiler.triton_source.text import ELEMENTS, literal
from schemas.program import Dtype

INFIX: dict[str, str] = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "less": "<", "lesseq": "<=", "equal": "==",
    "and": "&",
}  # fmt: skip

# A NaN stays a NaN, as in NumPy, so that a net that diverges shows it.
_NAN = "propagate_nan=tl.PropagateNan.ALL"

_CALLS: dict[str, str] = {
    "maximum": f"tl.maximum({{0}}, {{1}}, {_NAN})",
    "minimum": f"tl.minimum({{0}}, {{1}}, {_NAN})",
    "exp": "tl.exp({0})",
    "log": "tl.log({0})",
    "sqrt": "tl.sqrt({0})",
    "tanh": "tanh({0})",
    "sigmoid": "(1.0 / (1.0 + tl.exp(-({0}))))",
    "erf": "tl.erf({0})",
    "abs": "tl.abs({0})",
    "floor": "tl.floor({0})",
    "neg": "(-({0}))",
    "sign": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, {0}))",
    "select": "tl.where({0}, {1}, {2})",
    "stop": "{0}",
    "pow": "power({0}, {1})",
}

# Functions that a module defines before its kernels, if one of them uses it.
HELPERS: dict[str, str] = {
    "tanh": '''@triton.jit
def tanh(x):
    """tanh without cancellation: near 0 a series, else (1 - e) / (1 + e), e = exp(-2|x|)."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    x2 = x * x
    near = x * (1.0 + x2 * (-0.33333333 + x2 * (0.13333333 + x2 * -0.05396825)))
    return tl.where(tl.abs(x) < 0.25, near, tl.where(x < 0, -far, far))
''',
    "power": '''@triton.jit
def power(x, y):
    """x ** y as in C: a negative x takes the sign of (-1) ** y, and NaN where y is no integer."""
    size = tl.exp2(y * tl.log2(tl.abs(x)))
    half = y * 0.5
    signed = tl.where(half == tl.floor(half), size, -size)
    result = tl.where(x < 0, tl.where(y == tl.floor(y), signed, float("nan")), size)
    return tl.where(y == 0, 1.0, result)
''',
    "uniform": '''@triton.jit
def uniform(scalars_ptr, element, stream: tl.constexpr):
    """Uniform in [0, 1): the upper 24 bits of Philox4x32-10 at (element, 0, iteration, stream)."""
    iteration = tl.load(scalars_ptr + ITERATION).to(tl.uint32, bitcast=True)
    low = tl.load(scalars_ptr + SEED_LO).to(tl.uint32, bitcast=True).to(tl.uint64)
    high = tl.load(scalars_ptr + SEED_HI).to(tl.uint32, bitcast=True).to(tl.uint64)
    word, _1, _2, _3 = tl.philox(low | (high << 32), element.to(tl.uint32), 0, iteration, stream)
    return (word >> 8).to(tl.float32) * 5.960464477539063e-08
''',
    "across": '''@triton.jit
def across(pointers, mask=None):
    """Loads a tile of (results, k) that lies along its results, to be copied along k.

    A warp takes 8 results of 4 k at a time: whole sectors of memory, all banks of shared memory.
    Triton hands out threads first along what it is told is contiguous. It is told so of k too, of
    which nothing is read: else a warp took 32 results, which are copied to one bank in four.
    """
    shape: tl.constexpr = (pointers.shape[0] // 8, 8, pointers.shape[1])
    places = tl.multiple_of(tl.max_contiguous(tl.reshape(pointers, shape), [1, 8, 2]), [1, 1, 1])
    if mask is None:
        x = tl.load(places)
    else:
        whole = tl.broadcast_to(mask, pointers.shape)
        x = tl.load(places, mask=tl.reshape(whole, shape), other=0.0)
    return tl.reshape(x, pointers.shape)
''',
    "last": '''@triton.jit
def last(arrivals_ptr, count: tl.constexpr):
    """Whether this is the last of `count` programs to come: it sees what the others have stored.

    It leaves the number of those that came as it was: 0.
    """
    tl.debug_barrier()
    before = tl.atomic_add(arrivals_ptr, 1, sem="acq_rel", scope="gpu")
    tl.debug_barrier()
    tl.store(arrivals_ptr, 0, mask=before == count - 1)
    return before == count - 1
''',
    "meet": '''@triton.jit
def meet(barrier_ptr):
    """Waits for all programs; what any of them has stored, all of them see.

    Whoever comes adds 1, program 0 so much that all together flip the sign and leave the rest 0.
    """
    tl.debug_barrier()
    share = tl.where(tl.program_id(0) == 0, -2147483648 - (tl.num_programs(0) - 1), 1)
    before = tl.atomic_add(barrier_ptr, share, sem="acq_rel", scope="gpu")
    while (tl.atomic_add(barrier_ptr, 0, sem="acquire", scope="gpu") ^ before) >= 0:
        pass
    tl.debug_barrier()
''',
}


def call(name: str, args: list[str], dtype: Dtype, attrs: Mapping[str, Any]) -> str:
    """Returns the text of a map that is not infix; the arguments are names or in parentheses."""
    if name == "relu":
        slope = float(attrs["slope"])
        if slope == 0:
            return f"tl.maximum({args[0]}, 0.0, {_NAN})"
        return f"tl.where({args[0]} > 0, {args[0]}, {literal(slope, dtype)} * {args[0]})"
    return _CALLS[name].format(*args)


def constant_power(x: str, y: float) -> str | None:
    """Returns x ** y for a known y without the general helper where that is exact or as good."""
    if y == int(y) and 1 <= abs(y) <= 8:
        product = f"({' * '.join([x] * int(abs(y)))})"
        return product if y > 0 else f"(1.0 / {product})"
    if y == 0.5:
        return f"tl.sqrt({x})"
    if y == -0.5:
        return f"(1.0 / tl.sqrt({x}))"
    # A negative x gives NaN, as it must: its logarithm is one.
    return f"tl.exp2({literal(y, 'f32')} * tl.log2({x}))" if y != int(y) else None


def convert(text: str, source: Dtype, to: Dtype) -> str:
    """Returns the text of a cast; floats are cut towards zero."""
    if source == to:
        return text
    return f"({text} != 0)" if to == "bool" else f"{text}.to({ELEMENTS[to]})"
