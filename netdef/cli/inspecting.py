"""`netdef inspect`."""

import click


@click.command()
@click.argument("net")
def inspect(net: str) -> None:
    """inspect."""
