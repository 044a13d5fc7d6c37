"""Fields of layers: what may be written, what is said where it may not, what editors are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jsonschema
import pytest
import yaml

from compiler.frontend.json_schema import json_schema
from compiler.layers import layer_types
from compiler.layers.fields import describe, fields_of, option, read_fields
from schemas.errors import Diagnostics
from schemas.net import LayerSpec, Name, value_of
from schemas.params import Filler


@dataclass(frozen=True)
class Example:
    """A layer with a field of each kind."""

    count: int = option("how many", low=1)
    ratio: float = option("a share", 0.5, above=0, below=1)
    flag: bool = option("whether", False)
    text: str = option("a word", "")
    how: Literal["MAX", "AVE"] = option("which", "MAX")
    norm: Literal["L1", "L2"] = option("which", "L1", first=1)
    sizes: tuple[int, ...] = option("sizes", (), low=1, odd=True)
    maybe: int | None = option("perhaps", None)
    filler: Filler = option("first values", Filler())
    fillers: tuple[Filler, ...] = option("first values of each", ())
    shape: tuple[tuple[int, ...], ...] = option("shapes", ())


def read(fields: dict[str, Any]) -> tuple[Any, list[str]]:
    diag = Diagnostics()
    params = {k: value_of(v) for k, v in fields.items()}
    layer = read_fields(Example, LayerSpec(Name("x"), Name("Example"), params=params), diag)
    return layer, [f"{e.message}; {e.hint}" if e.hint else e.message for e in diag.errors]


GOOD = [
    ("count", 3, 3),
    ("count", 3.0, 3),
    ("ratio", 0.25, 0.25),
    ("flag", True, True),
    ("flag", 1, True),
    ("text", "abc", "abc"),
    ("how", "AVE", "AVE"),
    ("how", "ave", "AVE"),
    ("how", 1, "AVE"),
    ("norm", 1, "L1"),
    ("norm", 2, "L2"),
    ("sizes", 5, (5,)),
    ("sizes", [3, 5], (3, 5)),
    ("sizes", [], ()),
    ("maybe", -1, -1),
    ("maybe", None, None),
    ("filler", "xavier", Filler("xavier")),
    ("filler", 0.1, Filler(value=0.1)),
    ("filler", {"type": "gaussian", "std": 1}, Filler("gaussian", std=1.0)),
    ("filler", {"variance_norm": "AVERAGE"}, Filler(variance_norm="AVERAGE")),
    ("fillers", ["msra", {"value": 2}], (Filler("msra"), Filler(value=2.0))),
    ("shape", 3, ((3,),)),
    ("shape", [3, 2], ((3, 2),)),
    ("shape", [[3, 2], [4]], ((3, 2), (4,))),
    ("shape", {"dim": [3, 2]}, ((3, 2),)),
    ("shape", [{"dim": [3, 2]}, {"dim": 4}], ((3, 2), (4,))),
]


@pytest.mark.parametrize(("name", "given", "want"), GOOD)
def test_read(name: str, given: Any, want: Any) -> None:
    layer, errors = read({"count": 1, name: given})
    assert not errors
    found = getattr(layer, name)
    assert found == want and type(found) is type(want)


BAD = [
    ("norm", 0, "'norm' must be L1 or L2, not 0"),
    ("count", 0, "'count' must be 1 or more, not 0"),
    ("count", 1.5, "'count' must be an integer, not 1.5"),
    ("count", "3", "'count' must be an integer, not '3'"),
    ("count", True, "'count' must be an integer, not true"),
    ("count", [1, 2], "'count' must be an integer, not a list of 2"),
    ("count", 2**31, "'count' must be at most 2147483647, not 2147483648"),
    pytest.param(
        "count", 10**400, f"'count' must be a finite number, not 1{'0' * 36}...", id="big"
    ),
    ("ratio", 0, "'ratio' must be more than 0, not 0"),
    ("ratio", 1.0, "'ratio' must be less than 1, not 1.0"),
    ("ratio", float("nan"), "'ratio' must be a finite number, not nan"),
    ("ratio", {}, "'ratio' must be a number, not a mapping"),
    ("flag", "yes", "'flag' must be true or false, not 'yes'; write true"),
    ("flag", 2, "'flag' must be true or false, not 2"),
    ("text", 5, "'text' must be a string, not 5; quote it: '5'"),
    ("text", ["a"], "'text' must be a string, not a list of 1"),
    ("how", "MAXX", "'how' must be MAX or AVE, not 'MAXX'; did you mean 'MAX'?"),
    ("how", 2, "'how' must be MAX or AVE, not 2"),
    ("sizes", [3, 4], "'sizes' must be odd, not 4"),
    ("sizes", [3, "b"], "'sizes' must be an integer, not 'b'"),
    (
        "filler",
        "xaver",
        "'filler' must be constant, uniform, gaussian, positive_unitball, xavier, msra or "
        "bilinear, not 'xaver'; did you mean 'xavier'?",
    ),
    ("filler", {"stdd": 1}, "unknown field 'stdd' in 'filler'; did you mean 'std'?"),
    ("filler", {"sparse": 1.5}, "'filler.sparse' must be an integer, not 1.5"),
    ("filler", [1], "'filler' must be a filler such as xavier, or a mapping, not a list of 1"),
    ("shape", [3, 0], "'shape' must be 1 or more along each axis, not 0"),
    ("shape", "3", "'shape' must be an integer, not '3'"),
    ("shape", {"dims": 3}, "unknown field 'dims' in 'shape'; known: dim"),
    ("cuont", 3, "unknown field 'cuont'; did you mean 'count'?"),
]


@pytest.mark.parametrize(("name", "given", "want"), BAD)
def test_errors(name: str, given: Any, want: str) -> None:
    layer, errors = read({"count": 1, name: given})
    assert layer is None
    assert errors == [f"layer 'x' (Example): {want}"]


def test_all_errors_of_a_layer_are_told() -> None:
    _, errors = read({"ratio": 2, "flag": "x", "wrong": 1})
    assert len(errors) == 4
    assert "'count' is missing; count: how many (integer)" in errors[-1]


def test_describe() -> None:
    assert describe(Example)[:7] == [
        ("count", "integer", "required", "how many"),
        ("ratio", "number", "0.5", "a share"),
        ("flag", "true or false", "false", "whether"),
        ("text", "string", "", "a word"),
        ("how", "MAX | AVE", "MAX", "which"),
        ("norm", "L1 | L2", "L1", "which"),
        ("sizes", "integer or list", "", "sizes"),
    ]
    assert describe(Example)[8:] == [
        ("filler", "filler", "constant 0", "first values"),
        ("fillers", "filler or list", "", "first values of each"),
        ("shape", "shape or list of shapes", "", "shapes"),
    ]


@pytest.mark.parametrize("name", layer_types())
def test_every_layer_and_field_is_documented(name: str) -> None:
    cls = layer_types()[name]
    assert cls.__doc__
    for info in fields_of(cls).values():
        assert info.doc and "\n" not in info.doc, info.name


NET = """
name: net
blocks:
  unit:
    params: {channels: , rate: 1}
    layers:
    - {name: conv, type: Convolution, num_output: $channels, kernel_size: [3, 5],
       param: [{lr_mult: $rate}, {lr_mult: 2, decay_mult: 0}], weight_filler: {type: msra}}
    - {name: relu, type: ReLU}
layers:
- {name: data, type: Data, top: [data, label], source: digits, batch_size: 64, phase: TRAIN}
- {name: x, type: Input, shape: [[1, 2], [3]], top: [data, label], include: {phase: TEST, stage: a}}
- {block: unit, name: one, channels: 8, repeat: 2}
- {name: drop, type: Dropout, dropout_ratio: 0.4, exclude: [{phase: TEST}]}
- {name: loss, type: SoftmaxWithLoss, bottom: [drop, label], loss_weight: 2, ignore_label: 255}
"""


def test_json_schema_accepts_a_net() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(NET), schema)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dropout_ratio: 0.4", "dropout_ratio: 1.4"),
        ("dropout_ratio: 0.4", "dropout_rate: 0.4"),
        ("batch_size: 64", "batch_size: many"),
        ("batch_size: 64", "mirror: true"),  # batch_size is required
        ("type: ReLU", "type: Relu"),
        ("phase: TRAIN", "phase: TRAINING"),
        ("stage: a", "stages: a"),
        ("decay_mult: 0", "decay: 0"),
        ("type: msra", "type: mrsa"),
        ("name: net", "nam: net"),
        ("- {name: drop,", "- {"),
    ],
)
def test_json_schema_refuses(old: str, new: str) -> None:
    assert old in NET
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(NET.replace(old, new, 1)), json_schema())
