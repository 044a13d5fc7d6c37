"""Options that several commands share, and the values they take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from schemas.errors import UsageError
from schemas.precision import PRECISIONS

if TYPE_CHECKING:
    from schemas.net import NetSpec
    from schemas.solver import SolverSpec

F = TypeVar("F", bound=Callable[..., Any])
Shape = tuple[int, ...]
BACKENDS = ("auto", "cpu", "triton", "reference")


@dataclass(frozen=True)
class Reading:
    """How a net or a solver is read: which layers take part, what is passed over, what may run."""

    lenient: bool = False
    level: int | None = None
    stages: tuple[str, ...] = ()
    python: bool = False  # layers of type Python; those of a solver's nets: `nets_of`

    def net(self, spec: NetSpec) -> NetSpec:
        from netdef.python_layers import with_python
        from schemas.net import with_state

        return with_python(with_state(spec, self.level, self.stages), self.python)

    def words(self) -> list[str]:
        """Returns the options that say this."""
        words = ["--lenient"] if self.lenient else []
        words += ["--level", str(self.level)] if self.level is not None else []
        words += ["--allow-python-layers"] if self.python else []
        return words + [word for stage in self.stages for word in ("--stage", stage)]

    def solver(self, spec: SolverSpec) -> SolverSpec:
        """Returns the solver with level and stages for its training net, as in Caffe."""
        from schemas.net import NetState

        over = NetState(level=self.level, stages=self.stages)
        return replace(spec, train_state=spec.train_state.merged(over))


PLAIN = Reading()


def reading_options(command: F, stage: str = "--stage", python: bool = True) -> F:
    """Adds --lenient, --level, --stage and --allow-python-layers, if `python`, as one `reading`."""

    @functools.wraps(command)
    def packed(
        *args: Any,
        lenient: bool,
        level: int | None,
        net_stages: tuple[str, ...],
        allowed: bool = False,
        **kwargs: Any,
    ) -> Any:
        names = tuple(part for text in net_stages for part in text.split(",") if part)
        return command(*args, reading=Reading(lenient, level, names, allowed), **kwargs)

    if python:
        text = "Let layers of type Python run the code that the net names."
        flag = click.option("--allow-python-layers", "allowed", is_flag=True, help=text)
        packed = flag(packed)

    text = "Take the layers of this stage (include and exclude rules)."
    named: dict[str, Any] = {"multiple": True, "metavar": "NAME[,NAME]", "help": text}
    packed = click.option(stage, "net_stages", **named)(packed)
    text = "Take the layers of this level."
    packed = click.option("--level", type=int, metavar="N", help=text)(packed)
    text = "Pass over fields that only other programs know, with a warning for each."
    return cast(F, click.option("--lenient", is_flag=True, help=text)(packed))


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


def precision_option(command: F) -> F:
    return click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="What products are computed in: tf32 on GPUs that have it, else fp32.",
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


def read_net(path: str, sets: tuple[str, ...] = (), reading: Reading = PLAIN) -> NetSpec:
    """Returns the net of a file with `--set` applied. Raises NetError."""
    from netdef import formats

    spec, _ = formats.apply_set(formats.read_net(path, lenient=reading.lenient), None, sets)
    assert spec is not None
    return reading.net(spec)


def read_solver(path: str, reading: Reading = PLAIN) -> SolverSpec:
    """Returns the solver of a file. Raises NetError."""
    from netdef import formats

    return reading.solver(formats.read_solver(path, lenient=reading.lenient))


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
