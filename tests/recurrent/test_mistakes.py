"""What netdef says about mistakes in delays and cycles, word for word."""

# ruff: noqa: E501
from __future__ import annotations

import pytest

from tests.recurrent.mistakes import X, check

TABLE = {
    "a delay of 0": (
        X
        + """\
- {name: xh, type: InnerProduct, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "h[t-0]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
- {name: h, type: TanH}
""",
        """\
<string>:4:42: error: layer 'hh' (InnerProduct): 'h[t-0]' has a delay of 0
    - {name: hh, type: InnerProduct, bottom: "h[t-0]", axis: 2, num_output: 5, bias_term: false}
                                             ^
  hint: 'h' reads this step, 'h[t-1]' the one before
""",
    ),
    "no delay in brackets": (
        X
        + """\
- {name: xh, type: InnerProduct, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "h[t]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
- {name: h, type: TanH}
""",
        """\
<string>:4:42: error: layer 'hh' (InnerProduct): 'h[t]' has a delay of 0
    - {name: hh, type: InnerProduct, bottom: "h[t]", axis: 2, num_output: 5, bias_term: false}
                                             ^
  hint: 'h' reads this step, 'h[t-1]' the one before
""",
    ),
    "delayed, unknown": (
        X
        + """\
- {name: y, type: Eltwise, bottom: [x, "z[t-1]"]}
""",
        """\
<string>:3:40: error: layer 'y' (Eltwise): unknown bottom 'z'
    - {name: y, type: Eltwise, bottom: [x, "z[t-1]"]}
                                           ^
  hint: known: x, y
""",
    ),
    "delayed, a near match": (
        X
        + """\
- {name: xh, type: InnerProduct, axis: 2, num_output: 5}
- {name: hh, type: InnerProduct, bottom: "hs[t-1]", axis: 2, num_output: 5, bias_term: false}
- {name: sum, type: Eltwise, bottom: [xh, hh]}
- {name: h, type: TanH}
""",
        """\
<string>:4:42: error: layer 'hh' (InnerProduct): unknown bottom 'hs'
    - {name: hh, type: InnerProduct, bottom: "hs[t-1]", axis: 2, num_output: 5, bias_term: false}
                                             ^
  hint: did you mean 'h'?
""",
    ),
    "a delay that is a name": (
        X
        + """\
- {name: y, type: Eltwise, bottom: [x, 'x[t-k]']}
""",
        """\
<string>:3:40: error: layer 'y' (Eltwise): unknown bottom 'x[t-k]'
    - {name: y, type: Eltwise, bottom: [x, 'x[t-k]']}
                                           ^
  hint: the step before is 'x[t-1]', two before 'x[t-2]', the next 'x[t+1]'
""",
    ),
    "a delay as in Python": (
        X
        + """\
- {name: y, type: Eltwise, bottom: [x, 'x[-1]']}
""",
        """\
<string>:3:40: error: layer 'y' (Eltwise): unknown bottom 'x[-1]'
    - {name: y, type: Eltwise, bottom: [x, 'x[-1]']}
                                           ^
  hint: the step before is 'x[t-1]', two before 'x[t-2]', the next 'x[t+1]'
""",
    ),
    "a delayed top": (
        X
        + """\
- {name: y, type: TanH, top: 'y[t-1]'}
""",
        """\
<string>:3:30: error: layer 'y' (TanH): a top is of this time step, not 'y[t-1]'
    - {name: y, type: TanH, top: 'y[t-1]'}
                                 ^
  hint: top: y; 'y[t-1]' is what a bottom may say
""",
    ),
    "a cycle without delay": (
        X
        + """\
- {name: a, type: Eltwise, bottom: [x, c]}
- {name: b, type: TanH}
- {name: c, type: TanH}
""",
        """\
<string>:3:40: error: the layers form a cycle: a -> b -> c -> a
    - {name: a, type: Eltwise, bottom: [x, c]}
                                           ^
  hint: read it one step earlier with 'c[t-1]' if a recurrence is meant
""",
    ),
    "two cycles without delay": (
        X
        + """\
- {name: a, type: Eltwise, bottom: [x, b]}
- {name: b, type: TanH}
- {name: c, type: Eltwise, bottom: [b, d]}
- {name: d, type: TanH}
""",
        """\
<string>:3:40: error: the layers form a cycle: a -> b -> a
    - {name: a, type: Eltwise, bottom: [x, b]}
                                           ^
  hint: read it one step earlier with 'b[t-1]' if a recurrence is meant
<string>:5:40: error: the layers form a cycle: c -> d -> c
    - {name: c, type: Eltwise, bottom: [b, d]}
                                           ^
  hint: read it one step earlier with 'd[t-1]' if a recurrence is meant
""",
    ),
    "a layer that reads itself": (
        X
        + """\
- {name: a, type: Eltwise, bottom: [x, a]}
""",
        """\
<string>:3:40: error: layer 'a' (Eltwise): reads 'a', which nothing but the layer itself makes
    - {name: a, type: Eltwise, bottom: [x, a]}
                                           ^
  hint: read it one step earlier with 'a[t-1]' if a recurrence is meant
""",
    ),
    "a loss on a cycle": (
        X
        + """\
- {name: l, type: EuclideanLoss, bottom: [x, s]}
- {name: s, type: Eltwise, bottom: [x, 'l[t-1]']}
""",
        """\
<string>:4:40: error: layer 's' (Eltwise): 'l[t-1]' is one number, not a sequence with a value for each step
    - {name: s, type: Eltwise, bottom: [x, 'l[t-1]']}
                                           ^
  hint: a cycle cannot go through a loss, nor through what sums over time
""",
    ),
    "a loss on a cycle without delay": (
        X
        + """\
- {name: s, type: Eltwise, bottom: [x, l]}
- {name: l, type: EuclideanLoss, bottom: [x, s]}
""",
        """\
<string>:3:40: error: the layers form a cycle: s -> l -> s
    - {name: s, type: Eltwise, bottom: [x, l]}
                                           ^
  hint: a cycle cannot go through a loss: 'l' is one number for all steps
""",
    ),
    "data on a cycle": (
        """\
- {name: x, type: DummyData, shape: [6, 3, 4], bottom: "h[t-1]"}
- {name: h, type: InnerProduct, axis: 2, num_output: 4}
""",
        """\
<string>:2:56: error: the shape of 'h[t-1]' cannot be told from anything that is known
    - {name: x, type: DummyData, shape: [6, 3, 4], bottom: "h[t-1]"}
                                                           ^
  hint: a cycle cannot go through data: 'x' (DummyData) takes no bottom
""",
    ),
    "data on a cycle without delay": (
        """\
- {name: x, type: DummyData, shape: [6, 3, 4], bottom: h}
- {name: h, type: InnerProduct, axis: 2, num_output: 4}
""",
        """\
<string>:2:56: error: the layers form a cycle: x -> h -> x
    - {name: x, type: DummyData, shape: [6, 3, 4], bottom: h}
                                                           ^
  hint: a cycle cannot go through data: 'x' (DummyData) takes no bottom
""",
    ),
    "past and future on one cycle": (
        X
        + """\
- {name: a, type: Eltwise, bottom: [x, 'a[t-1]', 'a[t+1]']}
""",
        """\
<string>:3:50: error: layer 'a' (Eltwise): 'a[t+1]' and 'a[t-1]' read the future and the past on one cycle
    - {name: a, type: Eltwise, bottom: [x, 'a[t-1]', 'a[t+1]']}
                                                     ^
  hint: a cycle goes through time in one direction
""",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_mistake(name):
    check(TABLE[name])
