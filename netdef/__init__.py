"""netdef compiles neural networks that are written down as files.

net = netdef.load("net.yaml")            a net, forward and backward
solver = netdef.Solver("solver.yaml")    a training run
program = netdef.compile("net.yaml")     the compiled program, to inspect or to ship
netdef.save_program(program, "net.ndp")  as a file with its weights
netdef.load_program("net.ndp").run(data=x)   runs where no compiler is
netdef.datum(image, label)               a record of an LMDB, for Data layers
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netdef.compiling import compile, save_program
    from netdef.net import Net, load
    from netdef.running import LoadedProgram, load_program
    from netdef.solver import Solver
    from runtime.data.datum import datum
    from runtime.python_layer import PythonLayer
    from schemas.errors import NetError, NetErrors

__version__ = "0.1.0"
__all__ = [
    "LoadedProgram", "Net", "NetError", "NetErrors", "PythonLayer", "Solver", "__version__",
    "compile", "datum", "load", "load_program", "save_program",
]  # fmt: skip

# Loaded when they are first used: `netdef --help` must not wait for the compiler.
_HOMES = {
    "LoadedProgram": "netdef.running",
    "Net": "netdef.net",
    "NetError": "schemas.errors",
    "NetErrors": "schemas.errors",
    "PythonLayer": "runtime.python_layer",
    "Solver": "netdef.solver",
    "compile": "netdef.compiling",
    "datum": "runtime.data.datum",
    "load": "netdef.net",
    "load_program": "netdef.running",
    "save_program": "netdef.compiling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'netdef' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
