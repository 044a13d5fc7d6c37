"""`netdef run`: the forward pass of a program file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output
from netdef.cli.predicting import show

if TYPE_CHECKING:
    from netdef.running import LoadedProgram


@click.command()
@click.argument("program", metavar="PROGRAM.ndp")
@click.option(
    "--input",
    "given",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A .npy or .npz array for an input; with its name where there are several.",
)
@click.option("-o", "--output", "path", metavar="FILE", help="Write outputs: .npy (one) or .npz.")
@options.threads_option
@options.json_option
def run(
    program: str, given: tuple[str, ...], path: str | None, threads: int | None, as_json: bool
) -> None:
    """Run the forward pass of a program that 'netdef compile' wrote.

    The machine needs a processor or GPU such as the program was compiled for, and no compiler. An
    array has exactly the shape of its input, and is taken as it is: nothing scales it.
    """
    from netdef.running import load_program
    from schemas.errors import UsageError

    if path is not None and Path(path).suffix not in (".npy", ".npz"):
        raise UsageError(f"'{path}' is of no kind that can be written", hint="give .npy or .npz")
    loaded = load_program(program, threads)
    try:
        if path is not None and path.endswith(".npy") and len(loaded.outputs) != 1:
            listed = ", ".join(f"'{name}'" for name in loaded.outputs) or "none"
            raise UsageError(f"'{path}' holds one output; there are {listed}", hint="write .npz")
        outputs = loaded.run(**_arrays(given, loaded))
    finally:
        loaded.close()
    if path is not None:
        output.write_file(Path(path), _encoded(outputs, path.endswith(".npz")))
    if as_json:
        output.print_json({name: value.tolist() for name, value in outputs.items()})
    else:
        show(program, None, outputs, [])


def _arrays(given: tuple[str, ...], loaded: LoadedProgram) -> dict[str, Any]:
    """Returns the arrays of `--input` by name."""
    from netdef.arrays import read_array
    from schemas.errors import UsageError

    found: dict[str, Any] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals:
            if len(loaded.inputs) != 1:
                listed = ", ".join(f"'{name}'" for name in loaded.inputs) or "none"
                hint = "name it: --input NAME=FILE"
                raise UsageError(f"'{text}' is for which input? There are {listed}", hint=hint)
            (name,), file = loaded.inputs, text
        if name in found:
            raise UsageError(f"input '{name}' is given twice")
        found[name] = read_array(Path(file), name)
    return found


def _encoded(outputs: Mapping[str, Any], several: bool) -> bytes:
    """Returns the content of an .npy or .npz file."""
    import numpy as np

    files = {}
    for name, value in outputs.items():
        stream = io.BytesIO()
        np.save(stream, value)
        files[f"{name}.npy"] = stream.getvalue()
    if not several:
        return next(iter(files.values()))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # np.savez has words that no blob may be called
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file), content)
    return stream.getvalue()
