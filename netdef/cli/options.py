"""Options that several commands share, and the values they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.net import NetSpec

F = TypeVar("F", bound=Callable[..., Any])
Shape = tuple[int, ...]
BACKENDS = ("auto", "cpu", "triton", "reference")


def net_argument(command: F) -> F:
    return click.argument("net")(command)


def phase_option(default: str | None = None) -> Callable[[F], F]:
    text = "Which layers take part: those for training or those for testing."
    choice = click.Choice(["TRAIN", "TEST"], case_sensitive=False)
    return click.option("--phase", type=choice, default=default, show_default=True, help=text)


def backend_option(command: F) -> F:
    return click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="Where to compute; auto is the GPU if there is one, else the CPU.",
    )(command)


def threads_option(command: F) -> F:
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Worker threads of the CPU backend (one for each core).",
    )(command)


def json_option(command: F) -> F:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
    )(command)


def shape_option(command: F) -> F:
    return click.option(
        "--input-shape",
        "shapes",
        multiple=True,
        metavar="BLOB=C,H,W",
        help="Shape of one item of a data layer whose data is not here (data=3,227,227), "
        "or the whole shape of an input. May be given several times.",
    )(command)


def set_option(command: F) -> F:
    return click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a field of the solver (max_iter=100) or of a layer (conv1.num_output=30). "
        "May be given several times.",
    )(command)


def layer_set_option(command: F) -> F:
    return click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="LAYER.FIELD=VALUE",
        help="Change a field of a layer (conv1.num_output=30). May be given several times.",
    )(command)


def weights_option(required: bool = True) -> Callable[[F], F]:
    return click.option(
        "--weights",
        required=required,
        metavar="FILE",
        help="Weights to load: .safetensors (a snapshot's too) or .caffemodel.",
    )


def python_option(command: F) -> F:
    return click.option(
        "--allow-python-layers",
        "python",
        is_flag=True,
        help="Let layers of type Python run the code that the net names; without it they may not.",
    )(command)


def read_net(path: str, sets: tuple[str, ...] = (), python: bool = False) -> NetSpec:
    """Returns the net of a file with `--set` applied. Raises NetError.

    `python`: its Python layers may run.
    """
    from netdef import formats
    from netdef.python_layers import with_python

    spec, _ = formats.apply_set(formats.read_net(path), None, sets)
    assert spec is not None
    return with_python(spec, python)


def read_shapes(texts: tuple[str, ...]) -> dict[str, Shape]:
    """Returns shapes by blob name from `data=3,227,227`. Raises UsageError."""
    found: dict[str, Shape] = {}
    for text in texts:
        name, equals, sizes = text.partition("=")
        try:
            shape = tuple(int(part) for part in sizes.replace("x", ",").split(","))
        except ValueError:
            shape = ()
        if not equals or not name or not shape or min(shape) < 1:
            hint = "write the blob's name and its sizes: --input-shape data=3,227,227"
            raise UsageError(f"'{text}' is not a shape", hint=hint)
        found[name.strip()] = shape
    return found
