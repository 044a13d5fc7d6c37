"""`netdef layers`: the layer types and their fields, as text, Markdown or JSON."""

from __future__ import annotations

import inspect as python_inspect
from typing import Any

import click

from netdef.cli import options, output
from schemas.errors import UsageError, did_you_mean, near

FIELD_HEADS = ("field", "type", "default", "what it is")


@click.command()
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Print Markdown, as in docs/layers.md.")
@options.json_option
def layers(name: str | None, markdown: bool, as_json: bool) -> None:
    """List the layer types, or the fields of the type NAME."""
    from compiler.layers import layer_types

    types = layer_types()
    if name is not None and name not in types:
        match = near(name, types)
        if match is None or match.casefold() != name.casefold():
            hint = did_you_mean(name, types) or "'netdef layers' lists them"
            raise UsageError(f"there is no layer type '{name}'", hint=hint)
        name = match
    chosen = [name] if name is not None else list(types)
    if as_json:
        documents = [document(one, types[one]) for one in chosen]
        output.print_json(documents[0] if name is not None else documents)
    elif markdown:
        print(as_markdown({one: types[one] for one in chosen}), end="")
    elif name is not None:
        _print_one(name, types[name])
    else:
        rows = [(one, _bottoms(cls), _doc(cls)[0]) for one, cls in types.items()]
        output.print_table(("layer", "bottoms", "what it does"), rows)
        print("\n'netdef layers NAME' shows the fields of one.")


def document(name: str, cls: type[Any]) -> dict[str, Any]:
    """Returns what is known of a layer type as plain data."""
    from compiler.layers import bottom_names
    from compiler.layers.fields import describe

    named, needed, more = bottom_names(cls)
    keys = ("name", "type", "default", "doc")
    return {
        "type": name,
        "doc": " ".join(_doc(cls)),
        "bottoms": {"names": list(named), "least": needed, "more": more},
        "fields": [dict(zip(keys, field, strict=True)) for field in describe(cls)],
    }


def as_markdown(types: dict[str, type[Any]]) -> str:
    """Returns a page with one section for each layer type."""
    from compiler.layers.fields import describe

    lines = ["# Layers", ""] if len(types) > 1 else []
    if lines:
        lines += ["Made by `netdef layers --markdown`; do not edit.", ""]
        lines += [f"- [{name}](#{name.lower()}): {_doc(cls)[0]}" for name, cls in types.items()]
        lines.append("")
    for name, cls in types.items():
        lines += [f"## {name}", "", *_doc(cls), "", f"Bottoms: {_bottoms(cls) or 'none'}.", ""]
        fields = describe(cls)
        if fields:
            lines += ["| field | type | default | what it is |", "| --- | --- | --- | --- |"]
            lines += [f"| {' | '.join(map(_cell, field))} |" for field in fields]
            lines.append("")
    return "\n".join(lines)


def _print_one(name: str, cls: type[Any]) -> None:
    from compiler.layers.fields import describe

    print(f"{name}: {_doc(cls)[0]}")
    for line in _doc(cls)[1:]:
        print(line)
    print(f"\nbottoms: {_bottoms(cls) or 'none'}\n")
    fields = describe(cls)
    if fields:
        output.print_table(FIELD_HEADS, fields)
    else:
        print("It has no fields of its own.")


def _bottoms(cls: type[Any]) -> str:
    """Returns a type's bottoms by name: `x, label, [weight], ...`."""
    from compiler.layers import bottom_names

    named, needed, more = bottom_names(cls)
    texts = [name if i < needed else f"[{name}]" for i, name in enumerate(named)]
    return ", ".join([*texts, *(["..."] if more else [])])


def _doc(cls: type[Any]) -> list[str]:
    return (python_inspect.getdoc(cls) or "").splitlines() or [""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
