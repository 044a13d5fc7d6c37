"""Says whether the Python layers of a net may run: a spec alone never runs code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runtime.python_host import PythonLayers
from schemas.errors import BackendError
from schemas.host import Host, HostSpec
from schemas.net import NetSpec


def with_python(spec: NetSpec, allowed: bool) -> NetSpec:
    """Returns the net with its Python layers allowed to run, if they are."""
    if not allowed:
        return spec
    path = Path(spec.file)
    return replace(spec, python=PythonLayers(path.parent.resolve() if path.is_file() else None))


def without_python(spec: NetSpec) -> NetSpec:
    """Returns the net as one for a program file, which must do without Python."""
    return replace(spec, python=_refuse)


def _refuse(spec: HostSpec) -> Host:
    message = f"layer '{spec.layer}' (Python): a program file stands alone, without Python code"
    hint = "netdef train, test and predict run it, with --allow-python-layers"
    raise BackendError(message, spec.span, hint)
