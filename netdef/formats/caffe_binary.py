"""Reads binary Caffe files, nets and solvers: the tree that the text form would give.

`caffe_wire.tsv` says which field has which number. Blobs are left out, and so are fields that the
table does not have (a fork's), as protobuf itself passes over what it does not know.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from netdef.formats.fields import items
from netdef.formats.messages import short
from runtime.protobuf import FIXED64, Field, Message, WireError
from schemas.errors import SpecError
from schemas.net import Value
from schemas.span import Span

MAX_DEPTH = 100
_NET = frozenset(("layer", "layers", "input"))
Table = dict[str, dict[int, tuple[str, str]]]


@cache
def _table() -> Table:
    """Returns message -> field number -> (name, type); the words of an enum stand as fields."""
    found: Table = {}
    text = resources.files("netdef.formats").joinpath("caffe_wire.tsv").read_text("utf-8")
    for line in text.splitlines()[1:]:
        message, name, number, kind = line.split("\t")
        found.setdefault(message, {})[int(number)] = (name, kind)
    return found


def read_caffe_binary(content: memoryview, file: str) -> Value | None:
    """Returns the fields of a net or a solver, None where the bytes are neither."""
    for kind in ("NetParameter", "SolverParameter"):
        try:
            root = _message(kind, Message(content), Span(file, 1, 1), 0)
        except WireError:
            continue
        if root.data.keys() & _NET or (kind == "SolverParameter" and "base_lr" in root.data):
            return root
    return None


def read_caffemodel_net(content: memoryview, file: str) -> Value:
    """Returns the net that a .caffemodel holds beside its weights. Raises SpecError."""
    span = Span(file, 1, 1)
    try:
        root = _message("NetParameter", Message(content), span, 0)
    except WireError as error:
        message = f"the file is damaged or no .caffemodel: {error}"
        raise SpecError(message, span, "give the .yaml or .prototxt file") from None
    layers = [one for key in ("layer", "layers") for one in items(root.data.get(key, Value(None)))]
    if not any({"bottom", "top"} & one.data.keys() for one in layers):
        hint = f"give the .yaml or .prototxt file; 'netdef summary {file}' lists it"
        raise SpecError("the file holds weights alone, no net", span, hint)
    return root


def _message(kind: str, message: Message, span: Span, depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise WireError("messages nested too deeply", message.start)
    known, found = _table()[kind], dict[str, list[Value]]()
    for field in message:
        if field.number in known:
            name, type_ = known[field.number]
            values = _values(type_.rstrip("*"), field, span, depth)
            made = [v if isinstance(v, Value) else Value(v, span, span) for v in values]
            if type_.endswith("*"):
                found.setdefault(name, []).extend(made)
            else:
                found[name] = made[-1:]  # the last one counts, as protobuf has it
    data = {
        name: values[0] if len(values) == 1 else Value(tuple(values), span, span)
        for name, values in found.items()
        if values
    }
    return Value(data, span, span)


def _values(kind: str, field: Field, span: Span, depth: int) -> list[Any]:
    """Returns the values of one occurrence of a field; several where they are packed."""
    if kind == "string":
        return [field.text()]
    if kind == "float":
        return [_whole(short(float(x))) for x in field.numbers()]
    if kind == "double":
        return [_whole(float(x)) for x in field.numbers(FIXED64)]
    if kind == "bool":
        return [bool(x) for x in field.integers()]
    if kind in ("int32", "int64", "uint32"):
        return list(field.integers())
    known = _table()[kind]
    if all(word == "=" for _, word in known.values()):
        # A number that the table does not have is told by whoever reads the field.
        return [known[n][0] if n in known else n for n in field.integers()]
    return [_message(kind, field.message(), span, depth + 1)]


def _whole(value: float) -> float:
    """Returns 1.0 as 1, as a person would have written it."""
    return int(value) if value.is_integer() and abs(value) < 2**31 else value
