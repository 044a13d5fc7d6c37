"""The calls of Python layers in a program, ready to be made between its launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runtime.executable import Array
from schemas.errors import BackendError
from schemas.host import Host
from schemas.program import Program

Hosts = Mapping[str, Host]
Call = Callable[[Array], Array]  # takes the block that goes in, returns what comes out


def calls_of(program: Program, hosts: Hosts | None) -> dict[int, Call]:
    """Returns what each launch that is a call does, by its position.

    Raises BackendError where a program, read from a file, comes without its layers.
    """
    hosts = hosts or {}
    missing = [name for name in program.python_layers if name not in hosts]
    if missing:
        listed = ", ".join(f"'{name}'" for name in missing)
        raise BackendError(
            f"program '{program.name}' needs its Python layers: {listed}",
            hint="run the net itself: netdef.load(..., allow_python_layers=True)",
        )
    return {
        i: _call(hosts[launch.call.layer], launch.call.way, launch.call.wanted)
        for i, launch in enumerate(program.launches)
        if launch.call is not None
    }


def _call(host: Host, way: str, wanted: tuple[bool, ...]) -> Call:
    if way == "forward":
        return host.forward
    return lambda gradient: host.backward(gradient, wanted)
