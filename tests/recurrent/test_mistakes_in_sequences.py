"""What netdef says about mistakes in sequences, states and first values, word for word."""

# ruff: noqa: E501
from __future__ import annotations

import pytest

from tests.recurrent.mistakes import SUM, X, check

TABLE = {
    "sequences of different lengths": (
        X
        + """\
- {name: z, type: Input, shape: [5, 3, 5]}
- {name: xh, type: InnerProduct, bottom: x, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "h[t-1]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh, z]}
- {name: h, type: TanH}
""",
        """\
<string>:6:47: error: layer 'sum' (Eltwise): cannot add 'xh' (6x3x5) and 'z' (5x3x5)
    - {name: sum, type: Eltwise, bottom: [xh, hh, z]}
                                                  ^
  hint: equal shapes only; 'xh' is made by layer 'xh', 'z' by 'z'
""",
    ),
    "cont of the wrong shape": (
        X
        + """\
- {name: cont, type: Input, shape: [6]}
- {name: lstm, type: LSTM, bottom: [x, cont], num_output: 5}
""",
        """\
<string>:4:40: error: layer 'lstm' (LSTM): cont must be (6, 3), (T, N), not 'cont' (6,) of layer 'cont'
    - {name: lstm, type: LSTM, bottom: [x, cont], num_output: 5}
                                           ^
  hint: one mark for each step of each sequence: 0 where a new one begins
""",
    ),
    "initial from its own cycle": (
        X
        + SUM
        + """\
- {name: h, type: TanH, initial: sum}
""",
        """\
<string>:6:34: error: layer 'h' (TanH): initial: 'sum' depends on the cycle that it begins: hh -> sum -> hh
    - {name: h, type: TanH, initial: sum}
                                     ^
  hint: an initial state comes from outside of its cycle
""",
    ),
    "labels of other steps": (
        X
        + """\
- {name: label, type: Input, shape: [7, 3]}
- {name: loss, type: SoftmaxWithLoss, bottom: [x, label], axis: 2}
""",
        """\
<string>:4:3: error: layer 'loss' (SoftmaxWithLoss): needs 18 labels, not 21: 'x' (6, 3, 4) of layer 'x' and 'label' (7, 3) of layer 'label'
    - {name: loss, type: SoftmaxWithLoss, bottom: [x, label], axis: 2}
      ^
  hint: a label for each score but those along axis 2: (6, 3)
""",
    ),
    "softmax over time": (
        X
        + SUM
        + """\
- {name: h, type: Softmax, axis: 0}
""",
        """\
<string>:6:10: error: layer 'h' is on a cycle, but cannot go step by step: time is not the first axis of what it computes
    - {name: h, type: Softmax, axis: 0}
             ^
  hint: axis 0 is time: on a cycle, a step sees itself and what [t-1] names
""",
    ),
    "time folded away": (
        X
        + SUM
        + """\
- {name: h, type: Reshape, shape: [18, 5]}
""",
        """\
<string>:4:58: error: layer 'hh' (InnerProduct): axis 2 is outside of 'h[t-1]' (18, 5) of layer 'h'
    - {name: hh, type: InnerProduct, bottom: "h[t-1]", axis: 2, num_output: 5, bias_term: false}
                                                             ^
""",
    ),
    "statistics over time": (
        X
        + SUM
        + """\
- {name: bn, type: BatchNorm}
- {name: h, type: TanH}
""",
        """\
<string>:6:10: error: layer 'bn' is on a cycle, but cannot go step by step: time is not the first axis of what it computes
    - {name: bn, type: BatchNorm}
             ^
  hint: axis 0 is time: on a cycle, a step sees itself and what [t-1] names
""",
    ),
    "InnerProduct without axis": (
        X
        + """\
- {name: xh, type: InnerProduct, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "h[t-1]", num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
- {name: h, type: TanH}
""",
        """\
<string>:5:43: error: layer 'sum' (Eltwise): cannot add 'xh' (6x3x5) and 'hh' (6x5)
    - {name: sum, type: Eltwise, bottom: [xh, hh]}
                                              ^
  hint: layer 'hh' reads a sequence (T, N, ...): give it axis: 2
""",
    ),
    "initial is a list": (
        X
        + SUM
        + """\
- {name: h, type: TanH, initial: [1, 2]}
""",
        """\
<string>:6:34: error: layer 'h' (TanH): 'initial' is a number, 'learned' or the name of a blob
    - {name: h, type: TanH, initial: [1, 2]}
                                     ^
""",
    ),
    "initial is a truth value": (
        X
        + SUM
        + """\
- {name: h, type: TanH, initial: true}
""",
        """\
<string>:6:34: error: layer 'h' (TanH): 'initial' is a number, 'learned' or the name of a blob
    - {name: h, type: TanH, initial: true}
                                     ^
""",
    ),
    "initial of the wrong shape": (
        X
        + """\
- {name: s, type: Input, shape: [3, 4]}
- {name: xh, type: InnerProduct, bottom: x, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "h[t-1]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
- {name: h, type: TanH, initial: s}
""",
        """\
<string>:7:34: error: layer 'h' (TanH): initial: 's' (3, 4) does not fit the state (3, 5)
    - {name: h, type: TanH, initial: s}
                                     ^
  hint: it is what one time step of the blob is, without T
""",
    ),
    "initial from an unknown blob": (
        X
        + SUM
        + """\
- {name: h, type: TanH, initial: strat}
""",
        """\
<string>:6:34: error: layer 'h' (TanH): initial: unknown blob 'strat'
    - {name: h, type: TanH, initial: strat}
                                     ^
  hint: known: h, hh, sum, x, xh
""",
    ),
    "expose_hidden without states": (
        X
        + """\
- {name: l, type: LSTM, num_output: 5, expose_hidden: true, top: [l, h, c]}
""",
        """\
<string>:3:55: error: layer 'l' (LSTM): expose_hidden: h_0, c_0 are missing among its bottoms
    - {name: l, type: LSTM, num_output: 5, expose_hidden: true, top: [l, h, c]}
                                                          ^
  hint: bottom: [x, h_0, c_0], or with marks [x, cont, h_0, c_0]
""",
    ),
    "expose_hidden without tops": (
        X
        + """\
- {name: h0, type: Input, shape: [1,3,5]}
- {name: c0, type: Input, shape: [1,3,5]}
- {name: l, type: LSTM, bottom: [x, h0, c0], num_output: 5, expose_hidden: true}
""",
        """\
<string>:5:3: error: layer 'l' (LSTM): makes 3 tops, but 1 are named
    - {name: l, type: LSTM, bottom: [x, h0, c0], num_output: 5, expose_hidden: true}
      ^
  hint: shape of what it makes: (6, 3, 5), (1, 3, 5), (1, 3, 5)
""",
    ),
    "a state of the wrong shape": (
        X
        + """\
- {name: h0, type: Input, shape: [1,3,4]}
- {name: c0, type: Input, shape: [1,3,5]}
- {name: l, type: LSTM, bottom: [x, h0, c0], num_output: 5, expose_hidden: true, top: [l, h, c]}
""",
        """\
<string>:5:37: error: layer 'l' (LSTM): the initial state 'h_0' must be (1, 3, 5), not 'h0' (1, 3, 4) of layer 'h0'
    - {name: l, type: LSTM, bottom: [x, h0, c0], num_output: 5, expose_hidden: true, top: [l, h, c]}
                                        ^
  hint: (1, N, num_output)
""",
    ),
    "a static input of another N": (
        X
        + """\
- {name: cont, type: Input, shape: [6, 3]}
- {name: s, type: Input, shape: [4, 2]}
- {name: l, type: LSTM, bottom: [x, cont, s], num_output: 5}
""",
        """\
<string>:5:43: error: layer 'l' (LSTM): the static input must be (N, ...) with N = 3, not 's' (4, 2) of layer 's'
    - {name: l, type: LSTM, bottom: [x, cont, s], num_output: 5}
                                              ^
  hint: one for each sequence: every time step sees it
""",
    ),
    "no sequence": (
        """\
- {name: x, type: Input, shape: [6, 4]}
- {name: l, type: LSTM, num_output: 5}
""",
        """\
<string>:3:3: error: layer 'l' (LSTM): its first bottom must be a sequence (T, N, ...): 'x' (6, 4) of layer 'x'
    - {name: l, type: LSTM, num_output: 5}
      ^
  hint: one sequence has N = 1
""",
    ),
    "nothing from outside": (
        """\
- {name: y, type: TanH, bottom: 'y[t-1]'}
""",
        """\
<string>:2:33: error: the shape of 'y[t-1]' cannot be told from anything that is known
    - {name: y, type: TanH, bottom: 'y[t-1]'}
                                    ^
  hint: a cycle needs an input from outside: (T, N, ...)
""",
    ),
    "a cycle that grows": (
        X
        + """\
- {name: a, type: Concat, bottom: [x, 'a[t-1]'], axis: 2}
""",
        """\
<string>:3:39: error: layer 'a' (Concat): 'a[t-1]' has another shape each time round its cycle, at last (6, 3, 132)
    - {name: a, type: Concat, bottom: [x, 'a[t-1]'], axis: 2}
                                          ^
  hint: what goes round must keep its shape
""",
    ),
}
IN_TRAINING = {"statistics over time"}


@pytest.mark.parametrize("name", TABLE)
def test_mistake(name):
    check(TABLE[name], "TRAIN" if name in IN_TRAINING else "TEST")
