"""netdef compiles neural networks that are written down as files.

    net = netdef.load("net.yaml")            a net, forward and backward
    solver = netdef.Solver("solver.yaml")    a training run
    program = netdef.compile("net.yaml")     the compiled program, to inspect or to ship
"""

from __future__ import annotations

from netdef.compiling import compile
from netdef.net import Net, load
from netdef.solver import Solver
from schemas.errors import NetError, NetErrors

__version__ = "0.1.0"
__all__ = ["Net", "NetError", "NetErrors", "Solver", "__version__", "compile", "load"]
