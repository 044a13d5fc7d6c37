"""Nets with Python layers as text, opened on every backend."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec

from compiler.backends import get_backend
from netdef.engine import Engine, open_engine
from netdef.formats import read_net
from netdef.net import Net
from netdef.python_layers import with_python
from runtime.executable import Device
from schemas.net import NetSpec

MODULE = "tests.python_layer.layers"
BACKENDS: list[tuple[str, str | None]] = [("reference", None), ("cpu", None)]
if find_spec("triton"):
    BACKENDS.append(("triton", "interpreter"))


@cache
def device_of(backend: tuple[str, str | None], threads: int) -> Device | None:
    """Returns the device of a backend, the same one each time: Triton's starts slowly."""
    return open_engine(backend[0], backend[1], threads=threads).device


def layer(cls: str, **fields: object) -> str:
    """Returns a Python layer as a line of YAML."""
    return "- " + json.dumps({"type": "Python", "module": MODULE, "layer": cls, **fields})


def spec_of(text: str, allowed: bool = True) -> NetSpec:
    return with_python(read_net(text="layers:\n" + text, format="yaml"), allowed)


def engine_of(backend: tuple[str, str | None], threads: int = 3) -> Engine:
    return Engine(get_backend(*backend), device_of(backend, threads))


def net_of(text: str, backend: tuple[str, str | None] = ("cpu", None), phase: str = "TRAIN") -> Net:
    return Net(spec_of(text), phase, engine=engine_of(backend))
