"""What the tables of mistakes share: layers to begin with, and the check of a row."""

from __future__ import annotations

import pytest

import netdef
from schemas.errors import NetError

X = "- {name: x, type: Input, shape: [6, 3, 4]}\n"
SUM = """\
- {name: xh, type: InnerProduct, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "h[t-1]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
"""
# The text below `layers:`, and everything that is shown.
Row = tuple[str, str]


def check(row: Row, phase: str = "TEST") -> None:
    text, want = row
    with pytest.raises(NetError) as caught:
        netdef.load(text=f"layers:\n{text}", format="yaml", backend="cpu", phase=phase)
    assert f"{caught.value}\n" == want
