"""What products are computed in; apart from all else, as the command line's help needs it."""

from typing import Literal, get_args

# fp32: IEEE. tf32: the factors are rounded to 10 bits of mantissa.
Precision = Literal["fp32", "tf32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
