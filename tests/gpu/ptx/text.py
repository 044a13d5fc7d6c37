"""Reads the text of a PTX kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

Register = str  # its name: `%r1`, `global_smem`, a label


class Unknown(AssertionError):
    """An instruction, or a form of one, that the emulator does not know."""


@dataclass(frozen=True, slots=True)
class Address:
    base: Register | int
    offset: int


@dataclass(frozen=True, slots=True)
class Tile:
    """What the copy engine reads: a descriptor's address, and where the tile begins."""

    descriptor: Register
    start: tuple[Operand, ...]


# A number with a fraction is written as the bits of an f32, and stays that.
Operand = Register | int | Address | Tile | tuple["Operand", ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line. `guard`: the predicate that must hold, or (`negated`) must not."""

    name: str
    operands: tuple[Operand, ...]
    guard: Register | None
    negated: bool
    text: str

    @property
    def parts(self) -> list[str]:
        return self.name.split(".")


@dataclass(frozen=True, slots=True)
class Code:
    """A kernel: its instructions, and at which of them labels stand."""

    name: str
    parameters: tuple[str, ...]
    threads: int
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]


_IGNORED = re.compile(r"//.*|^\s*\.(?:loc|file)\b.*$", re.MULTILINE)
_ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)\s*(.*?)\{(.*)\}", re.DOTALL)
_LABEL = re.compile(r"([$\w]+):\s*")
_GUARD = re.compile(r"@(!?)([%\w]+)\s+")
_TOKEN = re.compile(r"\s*([{}\[\],|]|[^\s{}\[\],|]+)")


def read(ptx: str) -> Code:
    """Reads a module with one kernel."""
    found = _ENTRY.search(_IGNORED.sub("", ptx))
    if found is None:
        raise ValueError("no kernel")
    name, head, attributes, body = found.groups()
    threads = re.search(r"\.reqntid (\d+)", attributes)
    assert threads is not None, attributes
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement, scope in _statements(body):
        if label := _LABEL.fullmatch(statement):
            labels[_scoped(label[1], scope)] = len(instructions)
        elif not statement.startswith("."):
            instructions.append(_instruction(statement, scope))
    parameters = tuple(re.findall(r"(\w+_param_\d+)", head))
    return Code(name, parameters, int(threads[1]), tuple(instructions), labels)


def _scoped(name: str, scope: int) -> str:
    """Labels and registers of inline assembly are its own: each block has a number."""
    return name if name[0] in "$%" else f"{name}@{scope}"


def _statements(body: str) -> Iterator[tuple[str, int]]:
    """Yields instructions, declarations and labels, each with the number of its block."""
    scopes, made = [0], 0
    for piece in body.split(";"):
        text = piece.strip()
        while text:
            if text[0] == "{":
                made += 1
                scopes.append(made)
                text = text[1:].strip()
            elif text[0] == "}":
                scopes.pop()
                text = text[1:].strip()
            elif label := _LABEL.match(text):
                yield label[0].strip(), scopes[-1]
                text = text[label.end() :]
            else:
                yield text, scopes[-1]
                break


def _instruction(statement: str, scope: int) -> Instruction:
    text, guard, negated = statement, None, False
    if found := _GUARD.match(text):
        negated, guard = bool(found[1]), _scoped(found[2], scope)
        text = text[found.end() :]
    name, _, rest = text.partition(" ") if " " in text else text.partition("\t")
    name, *tail = name.split("\t", 1)
    tokens = _TOKEN.findall(" ".join((*tail, rest)))
    operands = tuple(_operands(tokens, scope))
    assert not tokens, statement
    return Instruction(name, operands, guard, negated, " ".join(statement.split()))


def _operands(tokens: list[str], scope: int) -> Iterator[Operand]:
    """Takes operands from the front of the tokens, up to what closes them."""
    while tokens and tokens[0] not in "}]":
        yield _operand(tokens, scope)
        if tokens and tokens[0] in (",", "|"):
            tokens.pop(0)


def _operand(tokens: list[str], scope: int) -> Operand:
    first = tokens.pop(0)
    if first == "{":
        inner = tuple(_operands(tokens, scope))
        tokens.pop(0)
        return inner
    if first == "[":
        return _address(tokens, scope)
    return _atom(first, scope)


def _address(tokens: list[str], scope: int) -> Operand:
    text = ""
    while tokens[0] not in ("]", ","):
        text += tokens.pop(0)
    if tokens.pop(0) == ",":  # where a tile begins
        (start,) = _operands(tokens, scope)
        tokens.pop(0)
        assert isinstance(start, tuple)
        return Tile(text, start)
    base, _, offset = text.partition("+")
    found = _atom(base, scope, scoped=False)
    assert isinstance(found, str | int)
    return Address(found, int(offset or "0", 0))


def _atom(text: str, scope: int, scoped: bool = True) -> Register | int:
    if text[:2] in ("0f", "0F", "0d", "0D"):
        return int(text[2:], 16)
    if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", text):
        return int(text.rstrip("U"), 0)
    known = text[0] in "$%" or text in ("_", "global_smem") or "_param_" in text
    return text if known or not scoped else _scoped(text, scope)
