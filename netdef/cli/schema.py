"""`netdef schema`: the JSON Schemas with which editors check and complete specs."""

from __future__ import annotations

from pathlib import Path

import click

from netdef.cli import output

KINDS = ("net", "solver")


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default="net")
@click.option("-o", "--output", "folder", metavar="DIR", help="Write both schemas into DIR.")
def schema(kind: str, folder: str | None) -> None:
    """Print the JSON Schema of net files (or of solver files), for editors.

    With -o, write DIR/net.schema.json and DIR/solver.schema.json. A line at the top of a YAML file
    tells the editor where to look:

    \b
      # yaml-language-server: $schema=net.schema.json
    """
    from compiler.frontend.json_schema import json_schema
    from netdef.solver_schema import solver_schema

    made = {"net": json_schema(), "solver": solver_schema()}
    if folder is None:
        output.print_json(made[kind])
        return
    for name, one in made.items():
        path = Path(folder) / f"{name}.schema.json"
        output.write_file(path, output.json_text(one).encode())
        print(path)
