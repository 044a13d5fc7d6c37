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
    from compiler.tilings import Tilings, Tunable
    from schemas.span import Span


@dataclass(frozen=True, slots=True)
class Traits:
    """What fusion and scheduling may assume of a backend."""

    # The second factor of a contraction must be contiguous along its own result axis; where it is
    # not (weights in a data gradient), a transposed copy is made by a kernel of its own.
    contiguous_factor: bool = False
    # Convolutions may be rewritten in Winograd's form: kernels of kind `transform`.
    winograd: bool = False
    # The epilogue of a contraction may fold a few results to one, and store a few elements for
    # each: a pooling and its gradient, where the windows do not overlap. And it may store a part
    # of the results elsewhere.
    wide_epilogues: bool = False
    # Convolutions of one blob may be one contraction, their weights side by side.
    siblings: bool = False
    # What is a part of a Concat is read there, with other channels beside its own.
    concats: bool = False
    # Independent kernels may share a launch.
    groups: bool = True
    # Sums are split in parts until a kernel has about `parallel` tiles of this many result
    # elements (rows, columns) to hand out; a second kernel adds the parts, or, with `last_adds`,
    # whoever is the last to finish a part of a tile. The split depends on shapes alone, never on
    # the number of threads, so results do not either.
    tile: tuple[int, int] = (64, 64)
    parallel: int = 1
    last_adds: bool = False
    # A part is a sum of at least `shortest` numbers. Only sums are split that have `inner` numbers,
    # at least 2, at each point of their outermost axis, which is what the parts divide.
    shortest: int = 256
    inner: int = 2
    # Activations, their gradients and the weights that products read are stored as bf16.
    narrow: bool = False
    # So many numbers, in vectors of neighbours, stay in a processor's own caches: means and
    # variances of more are taken in parts of no more than that. 0: they are taken whole.
    nearby: int = 0
    # A blob of so many numbers takes its step where its gradient is made, which is then not stored;
    # all others share one update. 0: all do.
    apart: int = 0
    # A map of one blob (normalisation, ReLU) that takes no more operations than this is made again
    # by each contraction and window that reads it. 0: what contractions read is stored, and what
    # windows read if it costs more than a few operations.
    prologue: int = 0
    # Inputs of no more channels than this lie planar, as the user gives them: the host copies bytes
    # and turns no pictures. 0: all lie channels last.
    planar: int = 0
    # Inputs have a slot of their own: the device has two of it and fills one while a step reads the
    # other.
    inlet: bool = False
    # Sums over the rows (pictures and places) of what a contraction stores can be taken, for each
    # of so many rows, by the contraction itself: its tiles have as many. The most wanted first.
    rows: tuple[int, ...] = ()


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
