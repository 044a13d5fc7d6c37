"""Reads a solver from its Value tree: types, words, and which fields need which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from netdef.formats.fields import Reader, by_number, describe, items, read_state
from netdef.formats.solver_rules import check_solver, tests_own_net
from schemas.errors import Diagnostics, SpecError
from schemas.net import NetSpec, Value
from schemas.precision import PRECISIONS
from schemas.solver import SolverSpec

NetReader = Callable[[Value, str, Diagnostics], NetSpec]

TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdamW")
POLICIES = (
    *("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"),
    *("cosine", "plateau"),
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "type": TYPES,
    "lr_policy": POLICIES,
    "regularization_type": ("L2", "L1", "L1L2"),
    "snapshot_format": ("SAFETENSORS", "HDF5", "BINARYPROTO"),
    "precision": PRECISIONS,
}
# Fields of one integer, with the least value that makes sense.
_INTEGERS: dict[str, int | None] = {
    **dict.fromkeys(
        ("max_iter", "warmup_iter", "test_interval", "display", "snapshot", "unroll"), 0
    ),
    **dict.fromkeys(("iter_size", "average_loss", "stepsize"), 1),
    "random_seed": None,
}
_NUMBERS = (
    *("base_lr", "gamma", "power", "min_lr", "momentum", "momentum2", "rms_decay", "delta"),
    *("weight_decay", "weight_decay_l1", "clip_gradients"),
)
_FLAGS = (
    *("test_initialization", "test_compute_loss", "snapshot_after_train", "debug_info"),
    *("carry_state", "deterministic_reference"),
)
_TEXTS = ("net", "train_net", "snapshot_prefix")
_LISTS = {  # a list of values: name in the file -> attribute
    "test_net": "test_nets",
    "test_iter": "test_iters",
    "stepvalue": "stepvalues",
    "weights": "weights",
    "test_state": "test_states",
    "test_net_param": "test_net_params",
}
# Read, checked and then without effect: they belong to Caffe's devices and files.
_IGNORED = ("solver_mode", "device_id", "layer_wise_reduce", "snapshot_diff")
_NETS = ("net_param", "train_net_param")
_OLD_TYPES = {kind.upper(): kind for kind in TYPES[:6]}
# The words of Caffe's enums, by their numbers.
_ENUMS: dict[str, tuple[str, ...]] = {
    "solver_mode": ("CPU", "GPU"),
    "snapshot_format": ("HDF5", "BINARYPROTO"),
    "solver_type": tuple(_OLD_TYPES),
}
FIELDS = (
    *_CHOICES,
    *_INTEGERS,
    *_NUMBERS,
    *_FLAGS,
    *_TEXTS,
    *_LISTS,
    *_IGNORED,
    *_NETS,
    "train_state",
    "solver_type",
)


def read_solver_spec(root: Value, file: str, diag: Diagnostics, read_net: NetReader) -> SolverSpec:
    """Returns the solver that a file describes; what is wrong goes to `diag`.

    `read_net` reads the nets that stand inside the file.
    """
    if not isinstance(root.data, Mapping):
        hint = "begin with 'net: net.yaml'"
        message = f"a solver is a mapping of fields, not {describe(root)}"
        diag.error(SpecError(message, root.span, hint))
        return SolverSpec(file=file)
    reader = Reader(diag)
    warned = len(diag.warnings)
    spec = SolverSpec(span=root.span, file=file, lenient=diag.lenient)
    for key, value in root.data.items():
        if key not in FIELDS:
            reader.unknown(key, value.key, FIELDS)
        else:
            spec = with_field(spec, reader, key, value, read_net)
    if not diag.errors:  # a field that cannot be read would look like one that is missing
        check_solver(spec, diag)
    untested = not (spec.test_nets or spec.test_net_params or tests_own_net(spec))
    if untested or not spec.test_iters:
        spec = replace(spec, test_iters=(), test_interval=0, test_states=())
    return replace(spec, warnings=tuple(diag.warnings[warned:]))


def with_field(
    spec: SolverSpec, reader: Reader, key: str, value: Value, read_net: NetReader | None = None
) -> SolverSpec:
    """Returns `spec` with one field read from `value`; the field has to be one of FIELDS."""
    assert key in FIELDS, key
    if key not in _LISTS:
        value = reader.one(value, key)
    attribute, data = _field(reader, key, value, spec.file, read_net)
    raw = {**spec.raw, key: value}
    spans = {**spec.spans, key: value.span, attribute: value.span}
    if data is None:
        return replace(spec, raw=raw, spans=spans)
    return replace(spec, raw=raw, spans=spans, **{attribute: data})


def _field(
    reader: Reader, key: str, value: Value, file: str, read_net: NetReader | None
) -> tuple[str, Any]:
    """Returns the attribute of SolverSpec that a field sets, and its new value (None: keep)."""
    if key in _CHOICES:
        return key, reader.choice(by_number(value, _ENUMS.get(key, ())), key, _CHOICES[key])
    if key in _INTEGERS:
        return key, reader.integer(value, key, _INTEGERS[key])
    if key in _NUMBERS:
        return key, reader.number(value, key)
    if key in _FLAGS:
        return key, reader.flag(value, key)
    if key in _TEXTS:
        return key, reader.text(value, key)
    if key in _LISTS:
        return _LISTS[key], _list(reader, key, value, file, read_net)
    if key == "train_state":
        return key, read_state(reader, value, key)
    if key == "solver_type":
        word = by_number(value, _ENUMS.get(key, ()))
        return "type", _OLD_TYPES[reader.choice(word, key, tuple(_OLD_TYPES))]
    if key in _NETS:
        return key, _net(reader, value, file, read_net)
    assert key in _IGNORED, key
    if key == "device_id":
        reader.integer(value, key)
    elif key == "solver_mode":
        reader.choice(by_number(value, _ENUMS.get(key, ())), key, ("GPU", "CPU"))
    else:
        reader.flag(value, key)
    return key, None


def _list(
    reader: Reader, key: str, value: Value, file: str, read_net: NetReader | None
) -> tuple[Any, ...]:
    values = items(value)
    if key in ("test_iter", "stepvalue"):
        return tuple(reader.integer(v, key, 0) for v in values)
    if key == "test_state":
        return tuple(read_state(reader, v, key) for v in values)
    if key == "test_net_param":
        nets = (_net(reader, v, file, read_net) for v in values)
        return tuple(net for net in nets if net is not None)
    texts = [reader.text(v, key) for v in values]
    if key == "weights":  # Caffe allows a list with commas in one string
        texts = [part.strip() for text in texts for part in text.split(",")]
    return tuple(text for text in texts if text)


def _net(reader: Reader, value: Value, file: str, read_net: NetReader | None) -> NetSpec | None:
    if read_net is None:
        reader.error("a net inside a solver can only be written in its file", value.span)
        return None
    return read_net(value, file, reader.diag)
