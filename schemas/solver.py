"""What a solver file says: method, schedule, regularisation, tests, snapshots."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.errors import NetError
from schemas.net import NOWHERE, NetSpec, Value
from schemas.net import NetState as NetState
from schemas.precision import Precision
from schemas.span import Span


@dataclass(frozen=True, slots=True)
class SolverSpec:
    """A solver as written; field names and defaults are Caffe's (CAFFE.md section 4).

    `net`, `train_net` and `test_nets` are paths, resolved against the solver file's folder first
    and the working directory second; `*_param` are nets written inside the solver file.
    """

    type: str = "SGD"
    net: str | None = None
    train_net: str | None = None
    test_nets: tuple[str, ...] = ()
    net_param: NetSpec | None = None
    train_net_param: NetSpec | None = None
    test_net_params: tuple[NetSpec, ...] = ()
    train_state: NetState = NetState()
    test_states: tuple[NetState, ...] = ()

    max_iter: int = 0
    iter_size: int = 1
    base_lr: float = 0.01
    lr_policy: str = "fixed"
    gamma: float = 0.1
    power: float = 0.75
    stepsize: int = 0
    stepvalues: tuple[int, ...] = ()
    warmup_iter: int = 0
    min_lr: float = 0.0

    momentum: float = 0.0
    momentum2: float = 0.999
    rms_decay: float = 0.99
    delta: float = 1e-8
    weight_decay: float = 0.0
    weight_decay_l1: float | None = None  # L1L2 only; unset means: weight_decay for both
    regularization_type: str = "L2"
    clip_gradients: float = -1.0

    carry_state: bool = True  # hidden states go on from one batch to the next
    unroll: int = 0  # steps that a gradient goes back through time, 0: all of a batch

    precision: Precision | None = None  # None: what suits the device

    test_iters: tuple[int, ...] = ()
    test_interval: int = 0
    test_initialization: bool = True
    test_compute_loss: bool = False
    display: int = 0
    average_loss: int = 1
    snapshot: int = 0
    snapshot_prefix: str | None = None
    snapshot_format: str = "SAFETENSORS"
    snapshot_after_train: bool = True
    random_seed: int = -1
    weights: tuple[str, ...] = ()
    debug_info: bool = False
    deterministic_reference: bool = False  # convolutions are summed as they are written

    spans: dict[str, Span] = field(default_factory=dict)  # field name -> place of its value
    raw: dict[str, Value] = field(
        default_factory=dict
    )  # every field as written, for the run folder
    span: Span = NOWHERE
    file: str = "<string>"
    warnings: tuple[NetError, ...] = ()  # what the reader passed over
    lenient: bool = False  # so are the nets that it names

    def where(self, name: str) -> Span:
        """Returns the place of a field's value, or of the whole file where it is not written."""
        return self.spans.get(name, self.span)
