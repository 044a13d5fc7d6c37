"""Writes nets and solvers as Caffe prototxt: fields in the blocks where Caffe has them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from netdef.formats.caffe_names import BLOCKS, TYPES, reads
from netdef.spec_text import common_fields, head_fields, inner_nets
from schemas.errors import UsageError
from schemas.net import LayerSpec, NetSpec
from schemas.solver import SolverSpec

# Fields whose values are words of an enum, which stand without quotes.
_ENUMS = frozenset(
    "pool operation norm_region norm engine backend variance_norm round_mode normalization phase "
    "share_mode snapshot_format solver_mode solver_type".split()
)
_TRANSFORM = frozenset("scale mirror crop_size mean_file mean_value force_color force_gray".split())
_LOSS = frozenset("ignore_label normalization normalize".split())
_SHARED = ("transform_param", "loss_param")
# Types of forks whose block is not called after them.
_FORKS = {"Normalize": "norm", "ReLU6": "relu", "SmoothL1Loss": "smooth_l1_loss"}
_WORD = re.compile(r"[A-Z][A-Z0-9_]*")
_NAME = re.compile(r"[A-Za-z_]\w*")
Fields = Mapping[str, Any]


def net_prototxt(spec: NetSpec) -> str:
    """Returns the net as a file that Caffe reads, and that reads back as the same net here."""
    return "\n".join(message_lines(net_fields(spec))) + "\n"


def net_fields(spec: NetSpec) -> dict[str, Any]:
    """Returns a net as plain data, under the names of Caffe's NetParameter."""
    return {**head_fields(spec), "layer": [layer_message(layer) for layer in spec.layers]}


def solver_prototxt(spec: SolverSpec) -> str:
    """Returns the solver as a file that Caffe reads; nets in it stand in it."""
    fields: dict[str, Any] = {}
    for name, value in spec.raw.items():
        nets = inner_nets(spec, name)
        fields[name] = value.plain() if nets is None else [net_fields(net) for net in nets]
    return "\n".join(message_lines(fields)) + "\n"


def layer_message(layer: LayerSpec) -> dict[str, Any]:
    """Returns a layer as plain data, under the names of Caffe's LayerParameter."""
    fields: dict[str, Any] = {"name": layer.name.text, "type": layer.type.text}
    fields["bottom"] = [name.text for name in layer.bottoms]
    fields["top"] = [name.text for name in layer.tops]
    if layer.phase:
        fields["phase"] = layer.phase
    fields |= common_fields(layer)
    kind = layer.type.text
    blocks: dict[str, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for name, value in layer.params.items():
        plain = value.plain()
        block = block_of(kind, name)
        kept = kind in TYPES or name in BLOCKS or name == block
        if kept and name.endswith("_param") and isinstance(plain, Mapping):
            whole[name] = plain  # a block that the reader left as it was
        else:
            blocks.setdefault(block, {})[name] = _caffe(name, plain)
    return fields | blocks | whole


def block_of(kind: str, field: str) -> str:
    """Returns the block in which a layer of this type has a field."""
    if field in _TRANSFORM and (reads(kind, "transform_param") or kind.endswith("Data")):
        return "transform_param"
    if field in _LOSS and reads(kind, "loss_param"):
        return "loss_param"
    if kind == "InfogainLoss" and field == "engine":
        return "softmax_param"
    if kind.endswith("Convolution"):  # also the forks' own kinds of convolution
        return "convolution_param"
    read = [block for block in sorted(BLOCKS) if reads(kind, block) and block not in _SHARED]
    read.sort(key=lambda block: not _is_own(kind, block))
    return read[0] if read else f"{_FORKS.get(kind) or _snake(kind)}_param"


def _is_own(kind: str, block: str) -> bool:
    return block.removesuffix("_param").replace("_", "") == kind.casefold()


def _snake(kind: str) -> str:
    """Returns `ROIPooling` as roi_pooling, as Caffe's forks name the block of a type."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind)
    return re.sub(r"\W", "_", split).lower()


def _caffe(name: str, value: Any) -> Any:
    """Returns a value in Caffe's form: the short forms of a net.yaml written out."""
    if name == "shape" and isinstance(value, list):
        if all(isinstance(n, int) for n in value):
            return {"dim": value}
        return [{"dim": one} if isinstance(one, list) else one for one in value]
    if name.endswith("filler"):
        if isinstance(value, str):
            return {"type": value}
        if isinstance(value, (int, float)):
            return {"type": "constant", "value": value}
        if isinstance(value, list):
            return [_caffe(name, one) for one in value]
    return value


def message_lines(fields: Fields, indent: str = "") -> Iterator[str]:
    """Yields the lines of a message in protobuf's text format; a list is a repeated field."""
    for name, value in fields.items():
        if not _NAME.fullmatch(name):
            hint = "a name is letters, digits and underscores"
            raise UsageError(f"a field called '{name}' cannot stand in a prototxt", hint=hint)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, list):
                raise UsageError(f"'{name}' is a list of lists, which a prototxt cannot say")
            if isinstance(one, Mapping):
                inner = list(message_lines(one, indent + "  "))
                yield f"{indent}{name} {{" if inner else f"{indent}{name} {{}}"
                yield from [*inner, f"{indent}}}"] if inner else []
            elif one is not None:
                yield f"{indent}{name}: {_scalar(name, one)}"


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isfinite(value):
            return f"{value:g}" if float(f"{value:g}") == value else repr(value)
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, int):
        return str(value)
    if name in _ENUMS and _WORD.fullmatch(value):
        return str(value)
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())
