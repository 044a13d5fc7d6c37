"""Says to ptxas which loops stay loops: Triton has no word for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_LABEL = re.compile(r"(\$L\w+):")
_BRANCH = re.compile(r"\bbra(?:\.uni)?\s+(\$L\w+);")
_PRODUCT = re.compile(r"wgmma\.mma_async|\bmma\.sync|tcgen05\.mma")
_KEPT = '\t.pragma "nounroll";'


def rolled(ptx: str) -> str:
    """Returns PTX in which every loop around a matrix product is said to be kept.

    ptxas writes out loops whose number of steps it knows, of 32 steps too: that takes it ten times
    as long, and gains nothing where each step waits for the tensor cores.
    """
    lines = ptx.split("\n")
    labels: dict[str, int] = {}
    products: list[int] = []
    heads: set[int] = set()
    for number, line in enumerate(lines):
        if found := _LABEL.match(line):
            labels[found[1]] = number
        elif _PRODUCT.search(line):
            products.append(number)
        elif (found := _BRANCH.search(line)) and found[1] in labels:
            head = labels[found[1]]
            if any(head < product for product in products):
                heads.add(head)
    return "\n".join(f"{line}\n{_KEPT}" if n in heads else line for n, line in enumerate(lines))


def keep_loops(*given: Any) -> tuple[str, str] | None:
    """Changes one of Triton's stages, as a hook of it: PTX is `rolled`.

    Later versions of Triton ask without arguments first: by which key what is made is kept.
    """
    if not given:
        return "netdef-loops", "netdef-loops"
    stages: dict[str, Callable[..., str]] = given[1]
    if "ptx" in stages:
        ptx = stages["ptx"]
        stages["ptx"] = lambda module, metadata: rolled(ptx(module, metadata))
    return None
