"""Backends: one file each, found by name; what every one of them must offer."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from schemas.errors import PrecisionError
from schemas.precision import Precision
from schemas.program import Launch, Slot

if TYPE_CHECKING:
    from compiler.kernels.kernel import Kernel
    from compiler.kernels.schedule import Launch as Scheduled
    from compiler.kernels.schedule import Place, Schedule
    from compiler.lowering.traits import Traits
    from compiler.tilings import Tilings, Tunable
    from schemas.span import Span


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a backend makes of a schedule: see the fields of the same names in Program."""

    launches: tuple[Launch, ...]
    code: dict[str, bytes] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    slots: tuple[Slot, ...] = ()  # besides those of the schedule's buffers


class Backend(Protocol):
    """One file `compiler/backends/NAME.py` with a class `Backend(target, precision=None)`.

    `precision` None is what suits the target; PrecisionError for one that it does not compute in.
    """

    name: str
    target: str
    precision: Precision
    traits: Traits
    tilings: Tilings  # of this device; contractions that are not in it have the model's

    def version(self) -> str:
        """Returns what else decides what `compile` makes: tools, options, processor, tilings."""
        ...

    def tuned(self, tilings: Tilings) -> Backend:
        """Returns this backend with other tilings."""
        ...

    def tunable(self, kernel: Kernel) -> Tunable | None:
        """Returns the tilings of a contraction that are worth a try, None if there is no choice."""
        ...

    def render(self, kernel: Kernel) -> str:
        """Returns the kernel's source in the backend's language, for people and for `compile`."""
        ...

    def note(self, launch: Scheduled) -> str:
        """Says how a loop over time will run, or why a launch will be several; "" if neither."""
        ...

    def compile(
        self, name: str, schedule: Schedule, places: Mapping[str, Place], slots: tuple[str, ...]
    ) -> Compiled:
        """Compiles all launches; `places` says where each buffer lies, `slots` orders the slots."""
        ...


def backend_names() -> list[str]:
    """Returns the names of all backends: the files of this folder that define `Backend`."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg and "_" not in m.name]


def get_backend(
    name: str,
    target: str | None = None,
    precision: Precision | None = None,
    where: Span | None = None,
) -> Backend:
    """Returns a backend by name; `target` e.g. sm_90 for triton, None: this machine.

    Raises PrecisionError; `where` is the place that asks for the precision.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    try:
        made: Backend = module.Backend(target, precision=precision)
    except PrecisionError as error:
        raise PrecisionError(error.message, where, error.hint) from None
    return made
