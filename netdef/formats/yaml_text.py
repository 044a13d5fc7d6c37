"""Reads YAML text into a Value tree in which everything has its place.

Scalars have the sense of YAML 1.2's core schema: `1e-3` is a number, `NO` and `on` are strings,
`0o17` and `0x1f` are integers, only true and false are booleans. Nothing is ever constructed:
PyYAML composes nodes, and the nodes are turned into Values here.

One liberty: `h[t-1]`, the delayed blob, may stand unquoted inside `[...]` and `{...}` too.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from schemas.errors import SpecError
from schemas.net import Value
from schemas.span import Span

MAX_DEPTH = 100  # PyYAML composes recursively
MAX_VALUES = 1_000_000  # aliases of aliases can stand for more values than any net has
MAX_DIGITS = 40

_BREAK = re.compile("[\n\x85\u2028\u2029]")
_DELAY = re.compile(r"(?<=[\w/}])\[(t *- *\d+)\]")
_HIDDEN_DELAY = re.compile("\ue000(t *- *\\d+)\ue001")
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
)


class _TooDeep(Exception):
    def __init__(self, mark: yaml.Mark) -> None:
        super().__init__()
        self.mark = mark


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2; only its composer is used."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeep(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), _first
    )


def parse_yaml(text: str, file: str = "<string>", shown: str | None = None) -> Value:
    """Returns the one document of `text`; an empty text gives a Value of None.

    `shown` replaces `text` in error excerpts, for callers that pad the text to keep columns.
    Raises SpecError.
    """
    lines = _BREAK.split(text if shown is None else shown)
    hidden = _DELAY.sub("\ue000\\1\ue001", text)
    loader = None
    try:
        loader = _Loader(hidden)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file, lines) from None
    except _TooDeep as error:
        span = _span_at(error.mark, file, lines)
        raise SpecError(f"nested more than {MAX_DEPTH} levels deep", span) from None
    except yaml.reader.ReaderError as error:
        raise _reader_error(error, hidden, file, lines) from None
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        return Value(None, Span(file, 1, 1, 1, lines[0]))
    return _Converter(file, lines).value(node)


class _Converter:
    """Turns composed nodes into Values."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file = file
        self.lines = lines
        self.done: dict[int, Value] = {}  # aliases: one Value for one node
        self.size: dict[int, int] = {}  # how many values a node stands for, aliases expanded
        self.open: set[int] = set()

    def span(self, node: yaml.Node) -> Span:
        start, end = node.start_mark, node.end_mark
        span = _span_at(start, self.file, self.lines)
        same_line = end.line == start.line
        length = end.column - start.column if same_line else len(span.text) - start.column
        return Span(span.file, span.line, span.column, max(length, 1), span.text)

    def value(self, node: yaml.Node) -> Value:
        key = id(node)
        if key in self.done:
            return self.done[key]
        if key in self.open:
            raise SpecError("an alias stands inside its own anchor", self.span(node))
        self.open.add(key)
        data: Any
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for _, child in node.value]
            data = self.mapping(node)
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
            data = tuple(self.value(child) for child in children)
        else:
            assert isinstance(node, yaml.ScalarNode)
            data = self.scalar(node)
        self.size[key] = 1 + sum(self.size[id(child)] for child in children)
        if self.size[key] > MAX_VALUES:
            raise SpecError("aliases stand for too many values", self.span(node))
        self.open.discard(key)
        self.done[key] = Value(data, self.span(node))
        return self.done[key]

    def mapping(self, node: yaml.MappingNode) -> dict[str, Value]:
        data: dict[str, Value] = {}
        for key, child in node.value:
            span = self.span(key)
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError("a key must be a word, not a list or a mapping", span)
            if key.value == "<<" and key.style is None:
                hint = "write the fields out, or name a group of layers under 'blocks:'"
                raise SpecError("merge keys ('<<') are not supported", span, hint)
            name = _show_delay(key.value)
            if name in data:
                first = data[name].key
                hint = f"it is first given at {first.line}:{first.column}"
                raise SpecError(f"'{name}' is given twice", span, hint)
            value = self.value(child)
            data[name] = Value(value.data, value.span, span)
        return data

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = node.value, node.tag.removeprefix("tag:yaml.org,2002:")
        try:
            if kind == "str":
                return _show_delay(text)
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return _integer(text)
            if kind == "float":
                return float(text.replace(".inf", "inf").replace(".nan", "nan").lower())
        except (ValueError, KeyError):
            message = f"'{_short(text)}' cannot be read as {kind}"
            raise SpecError(message, self.span(node)) from None
        raise SpecError(f"the tag '{node.tag}' is not supported", self.span(node), "leave it out")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _show_delay(text: str) -> str:
    return _HIDDEN_DELAY.sub("[\\1]", text)


def _span_at(mark: yaml.Mark, file: str, lines: list[str]) -> Span:
    # The end of a text that ends in a newline is a place after the last line: show the last.
    line = min(mark.line, len(lines) - 1)
    column = mark.column
    while line > 0 and not lines[line].strip():
        line -= 1
        column = len(lines[line])
    return Span(file, line + 1, column + 1, 1, lines[line])


def _reader_error(
    error: yaml.reader.ReaderError, text: str, file: str, lines: list[str]
) -> SpecError:
    before = _BREAK.split(text[: error.position])
    span = Span(file, len(before), len(before[-1]) + 1, 1, lines[len(before) - 1])
    code = f"U+{ord(text[error.position]):04X}"
    return SpecError(f"the character {code} is not allowed in YAML", span)


_OPENERS = {"while parsing a flow sequence": "[", "while parsing a flow mapping": "{"}
_SENTENCES = (  # part of PyYAML's problem, what we say, hint
    ("found character '\\t'", "a tab cannot be used for indentation", "use spaces"),
    (
        "mapping values are not allowed here",
        "':' is not allowed here",
        "check the indentation, or quote the value",
    ),
    ("could not find expected ':'", "expected ':' after this word", "write 'key: value'"),
    ("but found '}'", "'}' closes nothing", None),
    ("but found ']'", "']' closes nothing", None),
    ("that cannot start any token", "a value cannot begin with this character", "quote the value"),
    (
        "expected <block end>",
        "this line does not fit the lines above it",
        "check the indentation; each layer begins with '- '",
    ),
    ("but found another document", "a second document begins here", "keep one net in one file"),
    ("found unexpected end of stream", "the quoted text that begins here is never closed", None),
    (
        "found undefined alias",
        "this alias has no anchor",
        "write '&name' before the value it stands for, or quote the text",
    ),
    ("found duplicate anchor", "this anchor is defined twice", None),
)


def _syntax_error(error: yaml.MarkedYAMLError, file: str, lines: list[str]) -> SpecError:
    """Says what PyYAML says in a plain sentence, at the place the user has to look at."""
    problem = error.problem or error.context or "this is not YAML"
    context = error.context or ""
    mark = error.problem_mark or error.context_mark
    assert mark is not None
    span = _span_at(mark, file, lines)
    opener = _OPENERS.get(context)
    if opener and error.context_mark is not None:
        opened = _span_at(error.context_mark, file, lines)
        closer = {"[": "]", "{": "}"}[opener]
        next_layer = span.line > opened.line and span.text.lstrip().startswith("- ")
        if "<stream end>" in problem or "<document" in problem or next_layer:
            hint = f"write '{closer}' where it ends"
            return SpecError(f"'{opener}' is never closed", opened, hint)
        hint = f"the '{opener}' that it belongs to is at {opened.line}:{opened.column}"
        return SpecError(f"expected ',' or '{closer}' here", span, hint)
    begun = "unexpected end of stream" in problem or "expected ':'" in problem
    if begun and error.context_mark is not None:
        span = _span_at(error.context_mark, file, lines)
    for part, sentence, advice in _SENTENCES:
        if part in problem:
            return SpecError(sentence, span, advice)
    return SpecError(_show_delay(problem), span)
