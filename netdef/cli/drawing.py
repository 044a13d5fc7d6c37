"""`netdef draw`."""

import click


@click.command()
@click.argument("net")
def draw(net: str) -> None:
    """draw."""
