"""Layer cases of sequences: RNN, LSTM, GRU, masks of lengths, and what makes sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests import references_recurrent as seq
from tests.cases import Bottom, case, source

# T = 6 goes through a loop over time, T = 3 is written out, T = 1 has no earlier step.
_SHAPES = {"plain": (6, 3, 4), "short": (3, 2, 5), "one": (1, 2, 3), "image": (5, 2, 2, 3)}
_RULES = {"RNN": seq.rnn, "LSTM": seq.lstm, "GRU": seq.gru}


def recurrent(kind: str, name: str, bottoms: Any, **flags: Any) -> None:
    """A row; the reference takes cont, static input and initial states by keyword."""
    given = flags.pop("given", ())
    fields = {k: v for k, v in flags.items() if k in ("reset", "reverse", "expose_hidden")}
    how = {"reverse": True} if flags.get("reverse") else {}
    how |= {"before": True} if flags.get("reset") == "BEFORE" else {}
    exposed = bool(flags.get("expose_hidden"))

    def reference(p: Any, x: Any, *rest: Any) -> Any:
        found = _RULES[kind](p, x, **dict(zip(given, rest, strict=True)), **how)
        return found if exposed else found[0]

    layer = {"type": kind, "num_output": 5, **fields}
    tops = {"LSTM": 3}.get(kind, 2) if exposed else 1
    case(f"{kind.lower()}_{name}", layer, bottoms, reference, tops=tops)


def _marks(shape: tuple[int, ...]) -> Bottom:
    return Bottom(shape[:2], labels=2)


for _kind in ("RNN", "LSTM", "GRU"):
    for _name, _shape in _SHAPES.items():
        recurrent(_kind, _name, [_shape])
    _x = _SHAPES["plain"]
    recurrent(_kind, "reverse", [_x], reverse=True)
    recurrent(_kind, "cont", [_x, _marks(_x)], given=("cont",))
    recurrent(_kind, "cont_reverse", [_x, _marks(_x)], given=("cont",), reverse=True)
    recurrent(_kind, "static", [_x, _marks(_x), (3, 2)], given=("cont", "static"))
    _states = ("h_0", "c_0") if _kind == "LSTM" else ("h_0",)
    recurrent(
        _kind,
        "hidden",
        [_x, _marks(_x), *[(1, 3, 5)] * len(_states)],
        given=("cont", *_states),
        expose_hidden=True,
    )
recurrent("GRU", "before", [(6, 3, 4)], reset="BEFORE")
recurrent("GRU", "before_cont", [(6, 3, 4), _marks((6, 3))], given=("cont",), reset="BEFORE")


def _lengths(count: int, steps: int) -> Bottom:
    return Bottom((count,), labels=steps + 1)


def _masked(x: Any, length: Any, fill: float) -> Any:
    beyond = np.arange(len(x))[:, None] >= length
    return np.where(beyond.reshape(*beyond.shape, *[1] * (x.ndim - 2)), fill, x)


for _name, _shape in {"": (6, 3, 4), "_images": (4, 2, 3, 2), "_numbers": (5, 3)}.items():
    case(
        f"sequence_mask{_name}",
        {"type": "SequenceMask"},
        [_shape, _lengths(_shape[1], _shape[0])],
        lambda p, x, length: _masked(x, length, 0),
    )
case(
    "sequence_mask_fill",
    {"type": "SequenceMask", "fill": -1},
    [(6, 3), _lengths(3, 6)],
    lambda p, x, length: _masked(x, length, -1),
)

source("text_data", {"type": "TextData", "batch_size": 3, "steps": 4}, tops=3)
source("adding_data", {"type": "AddingData", "batch_size": 3, "steps": 5}, tops=3)
source("copy_data", {"type": "CopyData", "batch_size": 3, "delay": 2, "symbols": 4}, tops=2)
source("curve_data", {"type": "CurveData", "batch_size": 3, "steps": 6}, tops=2)
