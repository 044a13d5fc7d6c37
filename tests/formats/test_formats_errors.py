"""The exact text of the errors that people will meet most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from netdef.formats import read_net, read_solver
from schemas.errors import NetError, SpecError

L = "layers:\n"
NETS = [  # the YAML of a net; each error as "LINE:COL: message" and its hint
    (
        "name: n\n\tlayers: 3\n",
        [("2:1: a tab cannot be used for indentation", "use spaces")],
    ),
    (
        L + "- {name: a, type: ReLU\n- {name: b, type: ReLU}\n",
        [("2:3: '{' is never closed", "write '}' where it ends")],
    ),
    (
        L + "- {name: a type: ReLU}\n",
        [("2:16: expected ',' or '}' here", "the '{' that it belongs to is at 2:3")],
    ),
    (L + "- {name: a, type: ReLU}}\n", [("2:24: '}' closes nothing", None)]),
    (
        L + "- name: a\n type: ReLU\n",
        [
            (
                "3:2: this line does not fit the lines above it",
                "check the indentation; each layer begins with '- '",
            )
        ],
    ),
    (
        L + "- name: a\n  type: ReLU: x\n",
        [("3:13: ':' is not allowed here", "check the indentation, or quote the value")],
    ),
    (
        "name: n\nlayers\n- a\n",
        [("2:1: expected ':' after this word", "write 'key: value'")],
    ),
    ('name: "n\n', [("1:7: the quoted text that begins here is never closed", None)]),
    ("name: %x\n", [("1:7: a value cannot begin with this character", "quote the value")]),
    ("name: a\nname: b\n", [("2:1: 'name' is given twice", "it is first given at 1:1")]),
    (
        "name: a\nlayer:\n- {name: a}\n",
        [("2:1: unknown field 'layer'", "did you mean 'layers'?")],
    ),
    ("name: n\n", [("1:1: the net has no 'layers'", None)]),
    ("layers: 5\n", [("1:9: 'layers' must be a list, not 5", "begin each layer with '- '")]),
    (
        L + "- {type: ReLU}\n- {name: a}\n- 3\n- {name: 3, type: ReLU}\n",
        [
            ("2:3: layer (ReLU) has no 'name'", "a layer needs a name and a type"),
            ("3:3: layer 'a' has no 'type'", "a layer needs a name and a type"),
            (
                "4:3: a layer must be a mapping of fields, not 3",
                "write '- {name: ..., type: ..., ...}'",
            ),
            ("5:10: layer (ReLU): 'name' must be a string, not 3", "quote it: '3'"),
        ],
    ),
    (
        L + "- {name: a, type: ReLU, phase: TRAINN}\n",
        [
            (
                "2:32: layer 'a' (ReLU): 'phase' must be TRAIN or TEST, not 'TRAINN'",
                "did you mean 'TRAIN'?",
            )
        ],
    ),
    (
        L + "- {name: a, type: ReLU, param: {lr_mul: 1, decay_mult: '0'}}\n",
        [
            (
                "2:33: layer 'a' (ReLU): unknown field 'lr_mul' in 'param'",
                "did you mean 'lr_mult'?",
            ),
            (
                "2:56: layer 'a' (ReLU): 'decay_mult' must be a number, not '0'",
                "leave the quotes out",
            ),
        ],
    ),
    (
        L + "- {name: a, type: ReLU, phase: TEST, include: {stage: x}}\n",
        [
            (
                "2:25: layer 'a' (ReLU): 'phase' is short for 'include': give one of them",
                "write the phase into 'include'",
            )
        ],
    ),
    (
        L + "- {name: a, type: ReLU, bottom: x, propagate_down: yes}\n",
        [
            (
                "2:52: layer 'a' (ReLU): 'propagate_down' must be true or false, not 'yes'",
                "write true",
            )
        ],
    ),
    (
        L + "- {name: d, type: Input}\n- {name: p, type: Softmax, phase: TEST}\n"
        "- {name: r, type: ReLU}\n",
        [
            (
                "4:3: layer 'r' (ReLU): no 'bottom' is written, "
                "and the layer before may be 'd' or 'p'",
                "write the bottom",
            )
        ],
    ),
    (
        "blocks:\n  res: {params: {c: }, layers: [{name: x, type: ReLU}]}\n"
        + L
        + "- {block: rse, name: a}\n- {block: res, name: a}\n- {block: res, name: a, d: 1, c: 2}\n",
        [
            ("4:11: there is no block 'rse'", "did you mean 'res'?"),
            ("5:3: block 'res': the parameter 'c' is not given", "write c: ..."),
            (
                "6:25: block 'res': unknown field 'd'",
                "known: block, bottom, c, name, repeat",
            ),
        ],
    ),
    (
        "blocks:\n  res: {params: {c: 3}, layers: [{name: x, type: ReLU, k: '${c *}'}]}\n"
        + L
        + "- {block: res, name: a, repeat: 3}\n",
        [
            (
                "2:59: cannot read the expression 'c *'",
                "an expression knows numbers, parameters, + - * / // % and parentheses",
            )
        ],
    ),
    (
        "blocks:\n  a: {layers: [{block: b, name: x}]}\n  b: {layers: [{block: a, name: x}]}\n"
        + L
        + "- {block: a, name: u}\n",
        [("3:24: block 'a' uses itself: a -> b -> a", None)],
    ),
    ("name: &a [*a]\n", [("1:7: an alias stands inside its own anchor", None)]),
    (
        "name: !!python/name:os.system x\n",
        [
            (
                "1:7: the tag 'tag:yaml.org,2002:python/name:os.system' is not supported",
                "leave it out",
            )
        ],
    ),
    (
        "name:\n  <<: {b: 3}\n",
        [
            (
                "2:3: merge keys ('<<') are not supported",
                "write the fields out, or name a group of layers under 'blocks:'",
            )
        ],
    ),
    ("name: \x01\n", [("1:7: the character U+0001 is not allowed in YAML", None)]),
    ("# nothing\n", [("1:1: the file holds nothing but comments", None)]),
    ("", [("1:1: the file is empty", None)]),
    (
        "net: n.yaml\nbase_lr: 0.1\n",
        [("1:1: this is a solver, not a net", "give the net file that its 'net' names")],
    ),
]

PROTOTXTS = [
    (
        'layer { name: "a"\n  relu_param { \n',
        [("2:14: '{' is never closed", "write '}' where the message ends")],
    ),
    ('layer { name: "a" }}\n', [("1:20: '}' closes nothing", "a brace too many above?")]),
    (
        'layer {\n  name: "a" >\n',
        [("2:13: '>' does not close '{'", "the open message begins with '{' at 1:7")],
    ),
    (
        'layer { name: "a }\n',
        [("1:15: this string is never closed", 'write " on the same line')],
    ),
    ('layer { name "a" }\n', [("1:14: expected ':' or '{' after 'name', not '\"a\"'", None)]),
    ("layer { name: , }\n", [("1:15: expected a value, not ','", None)]),
    ('layer { top: ["a" }\n', [("1:19: expected ',' or ']', not '}'", None)]),
    ("layer { x: 0.1y }\n", [("1:12: '0.1y' is not a number", None)]),
    (
        "layer { x: 08 }\n",
        [
            (
                "1:12: '08' is not a number",
                "a number with a leading zero is octal: leave the zero out",
            )
        ],
    ),
    ('name: "a\\q"\n', [("1:7: the string has a bad escape", "write a backslash as '\\\\'")]),
    (
        'layr { }\nlayer { name: "a" type: "ReLU" relu_parm { negative_slope: 1 } }\n',
        [
            ("1:1: unknown field 'layr'", "did you mean 'layer'?"),
            (
                "2:32: layer 'a' (ReLU): unknown field 'relu_parm'",
                "did you mean 'relu_param'?",
            ),
        ],
    ),
    (
        'layer { name: "a" type: "ReLU"\n relu_param { negative_slope: 1 negative_slope: 2 } }\n',
        [("2:33: layer 'a' (ReLU): 'negative_slope' is given twice", "it is first given at 2:15")],
    ),
    (
        'layer { name: "a" type: "Data"\n transform_param { scale: 1 } data_param { scale: 2 } }\n',
        [
            (
                "2:44: layer 'a' (Data): 'scale' is given twice, with two values",
                "it is first given at 2:20",
            )
        ],
    ),
    (
        'layer { name: "a" type: "ReLU" }\nlayers { name: "b" type: RELU }\n',
        [
            (
                "1:1: the net mixes 'layer' and 'layers': 'layer' here",
                "write the net in one form; Caffe refuses this too (layers is used more)",
            )
        ],
    ),
    (
        'layer { name: "a" type: "ReLU" blobs_lr: 1 }\n',
        [
            (
                "1:32: layer 'a' (ReLU): 'blobs_lr' is of the older form 'layers'",
                "write param { lr_mult: ... } for each blob",
            )
        ],
    ),
    (
        'input: "data"\ninput_dim: 1 input_dim: 3\nlayer { name: "a" type: "ReLU" }\n',
        [
            (
                "2:14: 1 input needs 4 'input_dim', not 2",
                "write input_shape { dim: ... } for shapes of another rank",
            )
        ],
    ),
    (
        'layers { layer { name: "p" type: "padding" pad: 2 } bottom: "d" top: "p" }\n'
        'layers { layer { name: "c" type: "relu" } bottom: "p" top: "c" }\n',
        [
            (
                "1:44: layer 'c' (ReLU): cannot take in the padding before it",
                "write the pad into the layer itself",
            )
        ],
    ),
]

SOLVERS = [
    (
        "net: n\nlr_policy: stp\nmomentm: 0.9\nmax_iter: x\nsnapshot: true\nbase_lr: nan\n",
        [
            (
                "2:12: 'lr_policy' must be fixed, step, exp, inv, multistep, poly, sigmoid, "
                "cosine or plateau, not 'stp'",
                "did you mean 'step'?",
            ),
            ("3:1: unknown field 'momentm'", "did you mean 'momentum'?"),
            ("4:11: 'max_iter' must be an integer, not 'x'", None),
            ("5:11: 'snapshot' must be an integer, not true", None),
            ("6:10: 'base_lr' must be a number, not 'nan'", "nan and inf are no settings"),
        ],
    ),
    (
        "net: n\ntrain_net: m\nlr_policy: step\ntype: AdaGrad\nmomentum: 0.9\n"
        "test_interval: 3\nbase_lr: -1\n",
        [
            (
                "2:12: 'train_net' and 'net' both name the net to train",
                "give one of net, net_param, train_net, train_net_param",
            ),
            (
                "3:12: lr_policy 'step' needs 'stepsize'",
                "write stepsize: the number of iterations of one step",
            ),
            ("5:11: AdaGrad takes no 'momentum', but it is 0.9", "leave it out; AdaGrad has none"),
            ("7:10: 'base_lr' must be above 0, not -1", None),
        ],
    ),
    ("base_lr: 0.1\n", [("1:1: the solver names no net", "write net: net.yaml")]),
    (
        "net: n\nlr_policy: multistep\n",
        [
            (
                "2:12: lr_policy 'multistep' needs 'stepvalue'",
                "write stepvalue: the iterations at which the rate falls",
            )
        ],
    ),
    (
        "net: n\nstepvalue: [3, 2]\ntest_iter: [1, 2]\ntest_interval: 1\nsolver_type: ADAM\n"
        "type: SGD\ntest_state: {stage: a}\n",
        [
            ("2:12: the values of 'stepvalue' must not decrease", None),
            (
                "5:14: 'type' and 'solver_type' are both given",
                "leave out solver_type, the older form",
            ),
            ("7:13: 1 'test_state' for 2 test nets", "write one for each test_iter, or none"),
        ],
    ),
    (
        "net: n\ntest_iter: 10\n",
        [
            (
                "2:12: 'test_iter' without 'test_interval'",
                "write test_interval: the number of iterations between tests",
            )
        ],
    ),
    (
        L + "- {name: a, type: ReLU}\n",
        [
            (
                "1:1: this is a net, not a solver",
                "a solver file names its net: 'net: net.yaml'",
            )
        ],
    ),
]


def _check(read: Callable[[], Any], expected: list[tuple[str, str | None]]) -> None:
    with pytest.raises(NetError) as caught:
        read()
    errors = caught.value.flatten()
    assert all(isinstance(e, SpecError) for e in errors)
    found = [(f"{str(e.span).removeprefix('f:')}: {e.message}", e.hint) for e in errors]
    assert found == expected


@pytest.mark.parametrize(("text", "expected"), NETS)
def test_error_of_a_yaml_net(text: str, expected: list[tuple[str, str | None]]) -> None:
    _check(lambda: read_net("f", text=text, format="yaml"), expected)


@pytest.mark.parametrize(("text", "expected"), PROTOTXTS)
def test_error_of_a_prototxt(text: str, expected: list[tuple[str, str | None]]) -> None:
    _check(lambda: read_net("f", text=text, format="prototxt"), expected)


@pytest.mark.parametrize(("text", "expected"), SOLVERS)
def test_error_of_a_solver(text: str, expected: list[tuple[str, str | None]]) -> None:
    _check(lambda: read_solver("f", text=text, format="yaml"), expected)


def test_an_error_shows_the_line_and_a_caret() -> None:
    text = "layers:\n- {name: conv2, type: Convolution, phase: TRIAN}\n"
    with pytest.raises(SpecError) as caught:
        read_net("nets/net.yaml", text=text)
    assert str(caught.value) == (
        "nets/net.yaml:2:43: error: layer 'conv2' (Convolution): 'phase' must be TRAIN or TEST, "
        "not 'TRIAN'\n"
        "    - {name: conv2, type: Convolution, phase: TRIAN}\n"
        "                                              ^\n"
        "  hint: did you mean 'TRAIN'?"
    )
