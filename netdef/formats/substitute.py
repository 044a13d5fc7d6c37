"""Fills the parameters of a block into its layers: `$channels`, `${channels * 4}`.

A text that is one reference as a whole takes the argument's own type (`num_output: $channels` is
an integer) and place; inside a longer text the argument is written out (`conv_${index}`). `$$` is
a dollar sign. Expressions know numbers, parameters, `+ - * / // %` and parentheses, nothing else.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping
from typing import Any

from schemas.errors import SpecError, did_you_mean
from schemas.net import Value
from schemas.span import Span

_REFERENCE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([^{}]*)\})")
# Only texts of these tokens ever reach Python's parser.
_EXPRESSION = re.compile(
    r"(?:\s*(?:[0-9]+(?:\.[0-9]+)?(?![\w.])|[A-Za-z_]\w*|//|[-+*/%()]))+\s*", re.ASCII
)
_OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a // b if isinstance(a, int) and a % b == 0 else a / b,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
MAX_EXPRESSION = 200
MAX_DEPTH = 100
MAX_VALUES = 10_000
MAX_TEXT = 10_000  # a text that names a parameter twice doubles with every level of blocks


def check_size(value: Value, name: str) -> None:
    """Refuses an argument that nested blocks have made huge: lists of lists of `$name`."""
    stack, count = [(value, 0)], 0
    while stack:
        one, depth = stack.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise SpecError(f"the parameter '{name}' holds too many values", value.span)
        if isinstance(one.data, tuple):
            stack += [(v, depth + 1) for v in one.data]
        elif isinstance(one.data, Mapping):
            stack += [(v, depth + 1) for v in one.data.values()]


def substitute(value: Value, args: Mapping[str, Value]) -> Value:
    """Returns `value` with every reference replaced. Raises SpecError at the reference."""
    data = value.data
    if isinstance(data, tuple):
        return Value(tuple(substitute(v, args) for v in data), value.span, value.key_span)
    if isinstance(data, Mapping):
        filled = {k: substitute(v, args) for k, v in data.items()}
        return Value(filled, value.span, value.key_span)
    if not isinstance(data, str) or "$" not in data:
        return value
    whole = _REFERENCE.fullmatch(data)
    if whole and not whole[1]:
        found = _look_up(whole, args, value.span)
        return Value(found.data, found.span, value.key_span)

    def write(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        part = _look_up(match, args, value.span).data
        if part is None or isinstance(part, (tuple, Mapping)):
            raise SpecError(f"'{match[0]}' is not a word or a number", value.span)
        return str(part).lower() if isinstance(part, bool) else str(part)

    stray = re.search(r"\$", _REFERENCE.sub("", data))
    if stray:
        hint = "write $name, ${name * 2}, or $$ for a dollar sign"
        raise SpecError(f"'{data}': a '$' that refers to nothing", value.span, hint)
    text = _REFERENCE.sub(write, data)
    if len(text) > MAX_TEXT:
        raise SpecError(f"the text grows past {MAX_TEXT} characters", value.span)
    return Value(text, value.span, value.key_span)


def _look_up(match: re.Match[str], args: Mapping[str, Value], span: Span) -> Value:
    if match[2]:
        return _argument(match[2], args, span)
    text = match[3].strip()
    if text.isidentifier():
        return _argument(text, args, span)
    return Value(evaluate(text, args, span), span)


def _argument(name: str, args: Mapping[str, Value], span: Span) -> Value:
    if name not in args:
        raise SpecError(f"the block has no parameter '{name}'", span, did_you_mean(name, args))
    return args[name]


def evaluate(text: str, args: Mapping[str, Value], span: Span) -> int | float:
    """Returns the value of an arithmetic expression over the arguments. Raises SpecError."""
    hint = "an expression knows numbers, parameters, + - * / // % and parentheses"
    bad = SpecError(f"cannot read the expression '{text[:60]}'", span, hint)
    if len(text) > MAX_EXPRESSION or not _EXPRESSION.fullmatch(text):
        raise bad
    try:
        tree = ast.parse(text, mode="eval").body
        return _number(tree, args, span, bad)
    except ZeroDivisionError:
        raise SpecError(f"'{text}' divides by zero", span) from None
    except OverflowError:
        raise SpecError(f"'{text}' is too large", span) from None
    except (SyntaxError, ValueError):
        raise bad from None


def _number(node: ast.AST, args: Mapping[str, Value], span: Span, bad: SpecError) -> int | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.Name):
        data = _argument(node.id, args, span).data
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            raise SpecError(f"'{node.id}' is not a number", span)
        return data
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        result = _OPERATORS[type(node.op)](_number(node.operand, args, span, bad))
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left = _number(node.left, args, span, bad)
        result = _OPERATORS[type(node.op)](left, _number(node.right, args, span, bad))
    else:
        raise bad
    if abs(result) >= 2**63:
        raise OverflowError
    assert isinstance(result, (int, float))
    return result
