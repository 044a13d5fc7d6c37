"""Fills in the uses of blocks: parametrised, repeated groups of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netdef.formats.fields import Reader, items, read_names
from netdef.formats.substitute import check_size, substitute
from schemas.errors import SpecError, did_you_mean
from schemas.net import LayerSpec, Name, Value

if TYPE_CHECKING:
    from netdef.formats.native import Builder, Scope

MAX_LAYERS = 20_000
MAX_DEPTH = 50

_BLOCK_FIELDS = ("params", "layers", "out")
_USE_FIELDS = ("block", "name", "bottom", "repeat")
_GIVEN = ("index", *_USE_FIELDS)  # what a block's own parameters cannot be called
_INPUT = re.compile(r"in\d*")


def read_blocks(reader: Reader, value: Value | None) -> dict[str, dict[str, Value]]:
    """Returns the fields of each block that `blocks:` defines."""
    blocks: dict[str, dict[str, Value]] = {}
    if value is None or value.data is None:
        return blocks
    if not isinstance(value.data, Mapping):
        reader.mismatch(value, "blocks", "a mapping from names to blocks")
        return blocks
    for name, block in value.data.items():
        blocks[name] = reader.mapping(block, name, _BLOCK_FIELDS)
        if isinstance(block.data, Mapping) and not items(block.data.get("layers", Value(None))):
            reader.error(f"block '{name}' has no 'layers'", block.key)
        params = blocks[name].get("params", Value(None))
        if isinstance(params.data, Mapping):
            for taken in sorted(set(params.data) & set(_GIVEN)):
                place = params.data[taken].key
                reader.error(f"a parameter of a block cannot be called '{taken}'", place)
            continue
        if params.data is not None:
            reader.mismatch(params, "params", "a mapping from names to defaults")
        blocks[name]["params"] = Value({}, params.span)
    return blocks


@dataclass(frozen=True)
class _Use:
    """One use of a block, read."""

    value: Value
    block: str
    name: Name
    args: dict[str, Value]
    repeat: int | None
    bottoms: tuple[str, ...]


class Uses:
    """Fills blocks into the net that a Builder builds."""

    def __init__(self, builder: Builder, blocks: dict[str, dict[str, Value]]) -> None:
        self.builder = builder
        self.diag = builder.diag
        self.blocks = blocks
        self.broken: set[str] = set()  # blocks with an error, which is told once
        self.count = 0

    def use(self, value: Value, scope: Scope) -> None:
        """Adds the layers of a use, as often as its `repeat` says."""
        try:
            use = self.read(value, scope)
            if use is not None and use.block not in self.broken:
                self.repeat(use, scope)
        except SpecError as error:
            self.diag.error(error)
            self.broken.add(str(value.data["block"].data))

    def repeat(self, use: _Use, scope: Scope) -> None:
        errors = len(self.diag.errors)
        bottoms = use.bottoms
        for index in range(1, (1 if use.repeat is None else use.repeat) + 1):
            one = use.name.text if use.repeat is None else f"{use.name.text}_{index}"
            output = self.fill(use, one, index, bottoms, scope)
            if len(self.diag.errors) > errors:
                self.broken.add(use.block)
                return
            if output is not None:
                bottoms = (output, *bottoms[1:])
                scope.blobs[one] = output
        if bottoms and bottoms != use.bottoms:
            scope.blobs[use.name.text] = bottoms[0]
            top = (Name(bottoms[0], use.value.span),)
            scope.chain.append(LayerSpec(use.name, Name(use.block), tops=top))

    def read(self, value: Value, scope: Scope) -> _Use | None:
        data = value.data
        reader = Reader(self.diag)
        name = reader.text(data["block"], "block")
        if name not in self.blocks:
            if name:
                hint = did_you_mean(name, self.blocks)
                reader.error(f"there is no block '{name}'", data["block"].span, hint)
            return None
        if name in scope.open or len(scope.open) >= MAX_DEPTH:
            path = " -> ".join((*scope.open, name)[-6:])
            what = "uses itself" if name in scope.open else "is nested too deeply"
            reader.error(f"block '{name}' {what}: {path}", data["block"].span)
            return None
        reader.who = f"block '{name}': "
        hint = "the layers inside are called after it"
        own = self.builder.required(value, f"a use of block '{name}'", "name", hint)
        args = self.arguments(reader, value, name)
        repeat = reader.integer(data["repeat"], "repeat", 0) if "repeat" in data else None
        if own is None or args is None or "layers" not in self.blocks[name]:
            return None
        if "bottom" in data:
            written = read_names(reader, data["bottom"], "bottom")
            bottoms = tuple(scope.blob(b.text) for b in written)
        else:
            found = self.builder.default_bottom(reader, LayerSpec(own, Name(name)), value, scope)
            bottoms = tuple(b.text for b in found)
        return _Use(value, name, own, args, repeat, bottoms)

    def arguments(self, reader: Reader, use: Value, name: str) -> dict[str, Value] | None:
        """Returns the block's parameters as given or by default."""
        params = self.blocks[name]["params"].data
        for key, one in use.data.items():
            if key not in params and key not in _USE_FIELDS:
                reader.unknown(key, one.key, [*params, *_USE_FIELDS])
        args: dict[str, Value] = {}
        for key, default in params.items():
            value = use.data.get(key, default)
            if value.data is None:
                reader.error(f"the parameter '{key}' is not given", use.span, f"write {key}: ...")
                return None
            args[key] = substitute(value, args) if value is default else value
            check_size(args[key], key)
        return args

    def fill(
        self, use: _Use, one: str, index: int, bottoms: tuple[str, ...], scope: Scope
    ) -> str | None:
        """Adds the layers of one repetition; returns its output blob, if it has one."""
        self.count += 1
        if max(self.count, len(self.builder.layers)) > MAX_LAYERS:
            message = f"the blocks make more than {MAX_LAYERS} layers"
            raise SpecError(message, use.value.span)
        block = self.blocks[use.block]
        full = scope.prefix + one
        given = {"name": Value(full, use.name.span), "index": Value(index, use.name.span)}
        args = {**use.args, **given}
        layers = substitute(block["layers"], args)
        inner = scope.inside(Name(full, use.name.span), use.block)
        for number, bottom in enumerate(bottoms, 1):
            inner.blobs["in" if number == 1 else f"in{number}"] = bottom
        if bottoms:
            top = (Name(bottoms[0], use.value.span),)
            inner.chain.append(LayerSpec(Name("in"), Name("in"), tops=top))
        for text in _tops(layers):
            inner.blobs.setdefault(text, inner.prefix + text)
        inner.blobs.setdefault(full, full)  # `top: $name` is in place on the layer without a name
        before = len(inner.chain)
        self.builder.layer_list(layers, inner)
        if "out" in block:
            out = substitute(block["out"], args)
            text = Reader(self.diag, f"block '{use.block}': ").text(out, "out")
            if text and text not in inner.blobs:
                hint = did_you_mean(text, inner.blobs)
                message = f"block '{use.block}' makes no blob '{text}'"
                self.diag.error(SpecError(message, out.span, hint))
            return inner.blobs.get(text)
        return inner.chain[-1].tops[0].text if len(inner.chain) > before else None


def _tops(layers: Value) -> list[str]:
    """Returns the blobs that the layers of a block make, under their names in the block."""
    found: list[str] = []
    for layer in items(layers):
        if isinstance(layer.data, Mapping) and "block" not in layer.data:
            tops = layer.data.get("top", layer.data.get("name", Value(None)))
            found += [t.data for t in items(tops) if isinstance(t.data, str)]
    return [text for text in found if not _INPUT.fullmatch(text)]
