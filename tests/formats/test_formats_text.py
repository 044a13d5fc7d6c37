"""What the readers make of single values: YAML, prototxt and expressions, and where they stand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from netdef.formats.prototxt import parse_prototxt
from netdef.formats.substitute import evaluate
from netdef.formats.yaml_text import parse_yaml
from schemas.errors import SpecError
from schemas.net import NOWHERE, Value

SCALARS = {
    "1e-3": 1e-3, "1E5": 1e5, "-.5": -0.5, "+3": 3, "3.": 3.0, "0x1F": 31, "0o17": 15, "017": 17,
    "1_000": "1_000", "1:30": "1:30", "2001-01-01": "2001-01-01", "NO": "NO", "yes": "yes",
    "on": "on", "true": True, "False": False, "~": None, "null": None, "": None, "'3'": "3",
    ".inf": math.inf, "-.inf": -math.inf, "!!str 3": "3", "h[t-1]": "h[t-1]", "$x": "$x",
    "[a, h[t-1]]": ["a", "h[t-1]"], "{a: 1, b: [2]}": {"a": 1, "b": [2]}, "1.5f": "1.5f",
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SCALARS.items())
def test_yaml_scalars_have_the_sense_of_yaml_1_2(text: str, expected: Any) -> None:
    found = parse_yaml(f"key: {text}").plain()["key"]
    assert found == expected and type(found) is type(expected)


def test_yaml_places() -> None:
    root = parse_yaml("a: 1\nb: {cc: [x, 'yy']}\n", "f")
    inner = root.data["b"].data["cc"]
    assert str(inner.key) == "f:2:5" and inner.key.length == 2
    assert str(inner.data[1].span) == "f:2:13" and inner.data[1].span.length == 4
    assert inner.data[1].span.text == "b: {cc: [x, 'yy']}"
    assert parse_yaml("a: &x [1]\nb: *x\n").plain() == {"a": [1], "b": [1]}


def test_aliases_cannot_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(SpecError, match="aliases stand for too many values"):
        parse_yaml("\n".join(lines))


VALUES = {
    "x: 1": 1, "x: -0x1f": -31, "x: 017": 15, "x: 1.f": 1.0, "x: .5": 0.5, "x: - 2e3": -2000.0,
    "x: 1e-3F": 1e-3, "x: inf": math.inf, "x: -Infinity": -math.inf, "x: MAX": "MAX",
    "x: true": True, "x: False": False, "x: 'a\"b'": 'a"b', "x: \"a\" 'b' # c\n \"c\"": "abc",
    'x: "\\n\\x41\\101\\u00e9\\303\\251\\\\"': "\nAAéé\\", "x { y: 1; z: 2, }": {"y": 1, "z": 2},
    "x: < y: 1 >": {"y": 1}, "x {}": {}, "x: [1, 2]": [1, 2], "x: []": [], "x: 1 x: 2": [1, 2],
    "x: [1] x: [2, 3]": [1, 2, 3], "x: [{y: 1}, <y: 2>]": [{"y": 1}, {"y": 2}],
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), VALUES.items())
def test_prototxt_values(text: str, expected: Any) -> None:
    found = parse_prototxt(text).plain()["x"]
    assert found == expected and type(found) is type(expected)


def test_prototxt_places() -> None:
    value = parse_prototxt("a {\n  bb: 'x'\n  bb: 'y'\n}", "f").data["a"].data["bb"]
    assert [str(v.span) for v in value.data] == ["f:2:7", "f:3:7"]
    assert str(value.data[1].key) == "f:3:3" and value.data[1].key.length == 2


EXPRESSIONS = {"1 + 2 * 3": 7, "(n - 1) // 2": 3, "8 / 2": 4, "7 / 2": 3.5, "-n % 5": 3, "1.5*2": 3}


@pytest.mark.parametrize(("text", "expected"), EXPRESSIONS.items())
def test_expressions(text: str, expected: float) -> None:
    assert evaluate(text, {"n": Value(7)}, NOWHERE) == expected


@pytest.mark.parametrize(
    "text",
    ["1 / 0", "n.real", "f(1)", "2 ** 9", "9 * " * 40 + "9", "1 if n else 2", "x", "", "1_0", "(1"],
)
def test_expressions_that_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        evaluate(text, {"n": Value(7)}, NOWHERE)
