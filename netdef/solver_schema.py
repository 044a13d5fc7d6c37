"""The JSON Schema of solver files, made of SolverSpec."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

from netdef.formats.solver import FIELDS, POLICIES, TYPES
from schemas.net import NetSpec, NetState
from schemas.precision import PRECISIONS
from schemas.solver import SolverSpec

Schema = dict[str, Any]

NAMES: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
WORDS: dict[str, tuple[str, ...]] = {
    "type": TYPES,
    "lr_policy": POLICIES,
    "regularization_type": ("L2", "L1", "L1L2"),
    "snapshot_format": ("SAFETENSORS", "HDF5", "BINARYPROTO"),
    "precision": PRECISIONS,
}
# The name in the file, where the attribute of SolverSpec has another.
ATTRIBUTES = {
    "test_net": "test_nets",
    "test_iter": "test_iters",
    "stepvalue": "stepvalues",
    "test_state": "test_states",
    "test_net_param": "test_net_params",
}
DOCS = {
    "net": "the net file, relative to this file; for training, and for tests where test_iter is",
    "train_net": "a net file for training alone",
    "test_net": "net files for tests",
    "type": "the update rule",
    "max_iter": "iterations of the whole run",
    "iter_size": "batches whose gradients are added up for one update",
    "base_lr": "the learning rate to begin with",
    "lr_policy": "how the learning rate changes with the iteration",
    "gamma": "factor of lr_policy step, exp, inv, multistep and sigmoid",
    "power": "exponent of lr_policy inv and poly",
    "stepsize": "iterations between two changes, for step; the middle, for sigmoid",
    "stepvalue": "iterations of the changes, for multistep",
    "warmup_iter": "iterations over which the rate rises to its value",
    "min_lr": "the rate never falls below this",
    "momentum": "of SGD and Nesterov; Adam's beta1",
    "momentum2": "Adam's beta2",
    "rms_decay": "RMSProp's decay",
    "delta": "keeps divisions from dividing by zero",
    "weight_decay": "strength of the regularisation",
    "weight_decay_l1": "strength of its L1 part, for L1L2",
    "regularization_type": "what weight_decay does",
    "clip_gradients": "the gradients' L2 norm is cut to this; negative: not",
    "test_iter": "batches of each test, one number a test net",
    "test_interval": "iterations between two tests",
    "test_initialization": "test before the first iteration",
    "display": "iterations between two lines of progress",
    "average_loss": "the shown loss is the mean of so many",
    "snapshot": "iterations between two snapshots",
    "snapshot_prefix": "where snapshots go (the run folder)",
    "carry_state": "hidden states go on from one batch to the next (the net's own)",
    "unroll": "steps that a gradient goes back through time, and that a batch of text has",
    "precision": "what products are computed in (tf32 on GPUs that have it, else fp32)",
    "snapshot_after_train": "write a snapshot at the end",
    "random_seed": "the same seed gives the same run; negative: draw one",
    "deterministic_reference": "convolutions are summed as they are written (no Winograd's form)",
    "weights": "weight files to start from",
}


def solver_schema() -> Schema:
    """Returns the schema (draft 2020-12) that editors check and complete a solver.yaml with."""
    hints = get_type_hints(SolverSpec)
    defaults = {f.name: f.default for f in fields(SolverSpec)}
    properties: dict[str, Schema] = {}
    for name in FIELDS:
        attribute = ATTRIBUTES.get(name, name)
        if attribute not in hints:  # of Caffe's devices and files
            properties[name] = {"description": "Caffe's; without effect"}
            continue
        schema = {"enum": list(WORDS[name])} if name in WORDS else _type(hints[attribute])
        default = defaults[attribute]
        if isinstance(default, (bool, int, float, str)):
            schema = {**schema, "default": default}
        if name in DOCS:
            schema = {**schema, "description": DOCS[name]}
        properties[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netdef solver",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _type(hint: Any) -> Schema:
    args = [arg for arg in get_args(hint) if arg is not type(None)]
    if get_origin(hint) is tuple:
        one = _type(args[0])
        return {"anyOf": [one, {"type": "array", "items": one}]}
    if args:
        return _type(args[0])
    if hint is NetSpec:
        return {"$ref": "net.schema.json"}
    if hint is NetState:
        state = {
            "phase": {"enum": ["TRAIN", "TEST"]},
            "level": {"type": "integer"},
            "stage": NAMES,
        }
        return {"type": "object", "properties": state, "additionalProperties": False}
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    return {"type": names[hint]}
