"""Reads protobuf text format into a Value tree in which everything has its place.

The reader knows no message types: a field written once is a Value, a field written several times
(or as `[a, b]`) is a tuple of Values in the order of the file, and a message is a dict. Enum
words become strings. Whoever reads the tree decides which fields may repeat.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Any, NamedTuple

from schemas.errors import SpecError
from schemas.net import Value
from schemas.span import Span

MAX_DEPTH = 100  # protobuf's own limit
MAX_DIGITS = 40

_TOKEN = re.compile(
    r"""(?P<skip>(?:\s+|\#[^\n]*)+)
    |(?P<word>[A-Za-z_][A-Za-z_0-9]*)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?)
    |(?P<string>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
    |(?P<mark>[-:{}<>\[\],;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))"
)
_SIMPLE = dict(zip("nrtabfv\\'\"?", "\n\r\t\a\b\f\v\\'\"?", strict=True))
_WORDS = {"true": True, "True": True, "false": False, "False": False}
_FLOATS = {"inf": "inf", "infinity": "inf", "nan": "nan"}


class _Token(NamedTuple):
    kind: str  # word, number, string, mark, end
    text: str
    start: int


class _Tokens:
    """The tokens of a text, one ahead, and their places."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.lines = text.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.offset = 0
        self.next = self.scan()

    def span(self, token: _Token) -> Span:
        line = bisect_right(self.starts, token.start) - 1
        column = token.start - self.starts[line]
        if token.kind == "end":  # show the last line that holds something
            while line > 0 and not self.lines[line].strip():
                line -= 1
                column = len(self.lines[line])
        return Span(self.file, line + 1, column + 1, max(len(token.text), 1), self.lines[line])

    def take(self) -> _Token:
        token = self.next
        self.next = self.scan()
        return token

    def take_mark(self, marks: str) -> _Token | None:
        """Takes the next token if it is one of these marks."""
        if self.next.kind == "mark" and self.next.text in marks:
            return self.take()
        return None

    def scan(self) -> _Token:
        match = _TOKEN.match(self.text, self.offset)
        if match and match.lastgroup == "skip":
            self.offset = match.end()
            match = _TOKEN.match(self.text, self.offset)
        start = self.offset
        if match is None:
            if start >= len(self.text):
                return _Token("end", "", len(self.text))
            raise self.bad_character(start)
        self.offset = match.end()
        token = _Token(str(match.lastgroup), match.group(), start)
        if token.kind == "number" and re.match(r"[\w.]", self.text[self.offset : self.offset + 1]):
            tail = re.match(r"[\w.]*", self.text[start:])
            whole = tail.group() if tail else token.text
            raise SpecError(f"'{whole[:40]}' is not a number", self.span(token))
        return token

    def bad_character(self, start: int) -> SpecError:
        char = self.text[start]
        span = self.span(_Token("mark", char, start))
        if char in "\"'":
            return SpecError("this string is never closed", span, f"write {char} on the same line")
        shown = f"'{char}'" if char.isprintable() else f"U+{ord(char):04X}"
        return SpecError(f"unexpected character {shown}", span)


def parse_prototxt(text: str, file: str = "<string>") -> Value:
    """Returns the message that `text` is, as a Value of a dict.

    Raises SpecError at the first place that is not protobuf text format.
    """
    tokens = _Tokens(text, file)
    root = Value(_message(tokens, None, 0), Span(file, 1, 1, 1, tokens.lines[0]))
    return root


def _message(tokens: _Tokens, opening: _Token | None, depth: int) -> dict[str, Value]:
    """Reads fields up to the closing brace of `opening` (or to the end of the text)."""
    if depth > MAX_DEPTH:
        assert opening is not None
        raise SpecError(f"nested more than {MAX_DEPTH} levels deep", tokens.span(opening))
    closing = {"{": "}", "<": ">"}[opening.text] if opening else ""
    fields: dict[str, list[Value]] = {}
    keys: dict[str, Span] = {}
    while True:
        token = tokens.next
        if token.kind == "end":
            if opening is None:
                break
            hint = f"write '{closing}' where the message ends"
            raise SpecError(f"'{opening.text}' is never closed", tokens.span(opening), hint)
        if closing and token.text == closing and token.kind == "mark":
            tokens.take()
            break
        name = _field_name(tokens, opening)
        key = tokens.span(name)
        keys.setdefault(name.text, key)
        fields.setdefault(name.text, []).extend(_field(tokens, name.text, key, depth))
        tokens.take_mark(",;")
    return {name: _join(values, keys[name]) for name, values in fields.items()}


def _field_name(tokens: _Tokens, opening: _Token | None) -> _Token:
    token = tokens.take()
    span = tokens.span(token)
    if token.kind == "word":
        return token
    if token.kind == "mark" and token.text in "}>":
        if opening is None:
            raise SpecError(f"'{token.text}' closes nothing", span, "a brace too many above?")
        place = tokens.span(opening)
        hint = f"the open message begins with '{opening.text}' at {place.line}:{place.column}"
        raise SpecError(f"'{token.text}' does not close '{opening.text}'", span, hint)
    if token.kind == "mark" and token.text == "[":
        raise SpecError("extensions ('[name]') are not supported", span)
    raise SpecError(f"expected a field name, not {_shown(token)}", span)


def _field(tokens: _Tokens, name: str, key: Span, depth: int) -> list[Value]:
    """Reads what follows a field's name: one value, or several where it is a list."""
    colon = tokens.take_mark(":")
    if brackets := (tokens.take_mark("[") if colon else None):
        values: list[Value] = []
        while not tokens.take_mark("]"):
            if tokens.next.kind == "end":
                hint = "write ']' where the list ends"
                raise SpecError("'[' is never closed", tokens.span(brackets), hint)
            if values and not tokens.take_mark(","):
                place = tokens.span(tokens.next)
                raise SpecError(f"expected ',' or ']', not {_shown(tokens.next)}", place)
            values.append(_value(tokens, key, depth))
        return values
    if not colon and not (tokens.next.kind == "mark" and tokens.next.text in "{<"):
        place = tokens.span(tokens.next)
        message = f"expected ':' or '{{' after '{name}', not {_shown(tokens.next)}"
        raise SpecError(message, place)
    return [_value(tokens, key, depth)]


def _value(tokens: _Tokens, key: Span, depth: int) -> Value:
    if opening := tokens.take_mark("{<"):
        return Value(_message(tokens, opening, depth + 1), tokens.span(opening), key)
    token = tokens.take()
    span = tokens.span(token)
    if token.kind == "string":
        return Value(_string(tokens, token), span, key)
    sign = 1
    if token.kind == "mark" and token.text == "-":
        sign, token = -1, tokens.take()
    if token.kind == "number":
        return Value(sign * _number(tokens, token), span, key)
    if token.kind == "word":
        if token.text.lower() in _FLOATS:
            return Value(sign * float(_FLOATS[token.text.lower()]), span, key)
        if sign == 1:
            return Value(_WORDS.get(token.text, token.text), span, key)
    what = "a number after '-'" if sign == -1 else "a value"
    raise SpecError(f"expected {what}, not {_shown(token)}", tokens.span(token))


def _number(tokens: _Tokens, token: _Token) -> Any:
    text = token.text
    if len(text) > MAX_DIGITS:
        raise SpecError("the number has too many digits", tokens.span(token))
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if not text.isdigit():
        return float(text.rstrip("fF"))
    if text[0] == "0" and len(text) > 1:  # protobuf takes a leading zero for octal
        if set(text) - set("01234567"):
            hint = "a number with a leading zero is octal: leave the zero out"
            raise SpecError(f"'{text}' is not a number", tokens.span(token), hint)
        return int(text, 8)
    return int(text)


def _string(tokens: _Tokens, token: _Token) -> str:
    """Joins the literal with those that follow it, as C does."""
    text = _unescape(tokens, token)
    while tokens.next.kind == "string":
        text += _unescape(tokens, tokens.take())
    return text


def _unescape(tokens: _Tokens, token: _Token) -> str:
    body = token.text[1:-1]
    if "\\" not in body:
        return body
    parts: list[bytes] = []
    end = 0
    try:
        for match in _ESCAPE.finditer(body):
            parts.append(body[end : match.start()].encode())
            parts.append(_escaped(match))
            end = match.end()
        parts.append(body[end:].encode())
        return b"".join(parts).decode()
    except (ValueError, KeyError):
        hint = "write a backslash as '\\\\'"
        raise SpecError("the string has a bad escape", tokens.span(token), hint) from None


def _escaped(match: re.Match[str]) -> bytes:
    """Returns the bytes that an escape stands for; octal and hex escapes are single bytes."""
    octal, two, four, eight, simple = match.groups()
    if octal:
        return bytes([int(octal, 8)])
    if two:
        return bytes([int(two, 16)])
    if four or eight:
        return chr(int(four or eight, 16)).encode()
    return _SIMPLE[simple].encode()


def _join(values: list[Value], key: Span) -> Value:
    if len(values) == 1:
        return values[0]
    return Value(tuple(values), values[0].span if values else key, key)


def _shown(token: _Token) -> str:
    return "the end of the file" if token.kind == "end" else f"'{token.text[:40]}'"
