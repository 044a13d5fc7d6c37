"""Compiles a unit, or reads what it was compiled to before."""

from __future__ import annotations

from contextlib import suppress

from compiler.cache import Cache, default_folder
from compiler.fingerprint import fingerprint
from compiler.unit import Unit
from schemas.errors import SourceError
from schemas.program import Program
from schemas.program_file import pack_program, unpack_program

_FOLDER = default_folder()
PROGRAMS = Cache(_FOLDER / "programs" if _FOLDER is not None else None)


def compile_or_load(unit: Unit) -> Program:
    """Returns the Program of a unit; the passes run only for one that is new.

    Where it was read, the unit is left as it was: no kernels, no plans.
    """
    key = fingerprint(unit) if PROGRAMS.folder is not None else None
    content = PROGRAMS.load(key) if key is not None else None
    if content is not None:
        with suppress(SourceError):
            return unpack_program(content, "an entry of the cache")
    from compiler.pipeline import compile_unit

    program = compile_unit(unit)
    if key is not None:
        PROGRAMS.save({key: pack_program(program, level=1)})
    return program
