"""Names, literals and docstrings for generated Python text."""

from __future__ import annotations

import keyword
import math
import re

import numpy as np

from schemas.program import Dtype

POINTERS: dict[str, str] = {
    "f32": "*fp32",
    "f64": "*fp64",
    "bf16": "*bf16",
    "i32": "*i32",
    "u8": "*u8",
    "bool": "*i8",
}
ELEMENTS: dict[str, str] = {
    "f32": "tl.float32",
    "f64": "tl.float64",
    "bf16": "tl.bfloat16",
    "i32": "tl.int32",
    "u8": "tl.uint8",
    "bool": "tl.int1",
}
_HERE = "tl triton pid range float tanh power uniform last meet gdc"  # names that modules use
_RESERVED = frozenset([*keyword.kwlist, *_HERE.split()])


def identifier(text: str) -> str:
    """Returns a Python name that resembles a name of the spec; the text is never trusted."""
    name = re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")
    name = re.sub("_+", "_", name).lower()[:48] or "x"
    return f"_{name}" if name[0].isdigit() else name


class Names:
    """Hands out names that are used once."""

    def __init__(self) -> None:
        self.used: set[str] = set(_RESERVED)

    def fresh(self, wish: str) -> str:
        name, n = identifier(wish), 1
        base = name
        while name in self.used:
            n += 1
            name = f"{base}_{n}"
        self.used.add(name)
        return name


def literal(value: float | int | bool, dtype: Dtype) -> str:
    """Returns a number as Python text that Triton takes for exactly this value of `dtype`."""
    if dtype == "bool":
        return str(bool(value))
    if dtype in ("i32", "u8"):
        return str(int(value))
    if math.isinf(value) or math.isnan(value):
        return f'float("{float(value)}")'
    return repr(float(value)) if dtype == "f64" else repr(float(str(np.float32(value))))


def quoted(text: str) -> str:
    """Returns text that cannot end the docstring that it is put in."""
    return text.replace("\\", "/").replace('"', "'")


def next_power(n: int) -> int:
    """Returns the least power of two >= n."""
    return 1 << max(0, n - 1).bit_length()


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
