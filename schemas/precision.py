"""What products are computed in; apart from all else, as the command line's help needs it."""

from typing import Literal, get_args

# fp32: IEEE. tf32: the factors are rounded to 10 bits of mantissa. bf16: to 7 bits, and so are
# activations and their gradients in memory; weights, sums and losses stay fp32.
Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
