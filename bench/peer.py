"""Peer: one side of a comparison, in a process of its own."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from bench.cases import Case, Mode, Rates
from bench.plain_net import Layer
from schemas.precision import Precision

Array = np.ndarray[Any, Any]
STEPS = 10  # of which the device itself times each operation


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process does."""

    peer: str  # a name of PEERS, or module:class:flavour
    case: Case
    mode: Mode
    threads: int
    backend: str = "cpu"  # netdef's
    device: str = "cpu"  # PyTorch's; of who only compiles, the target
    precision: Precision = "fp32"  # on a GPU
    rates: Rates | None = None  # of training
    weights: str = ""  # safetensors; "": the peer's own
    layers: tuple[Layer, ...] = ()  # for a peer that does not read the net; none if it is recurrent


class Peer(Protocol):
    """One net on one side. `PeerClass(job, data)` has it ready to run, apart from compilation."""

    def run(self, count: int) -> None:
        """Runs `count` steps (training steps or forward passes) and waits for the last."""
        ...

    def result(self) -> list[float]:
        """Returns the losses of the last three training steps, or all outputs of inference."""
        ...

    def facts(self) -> dict[str, Any]:
        """Returns what else is known: `gflop`, `launches`, ..."""
        ...

    def close(self) -> None:
        """Ends threads."""
        ...


# name -> module:class:flavour. Modules are imported by the worker only.
PEERS = {
    "netdef": "bench.netdef_side:NetdefPeer",
    "netdef_pdl": "bench.netdef_side:NetdefPeer:pdl",
    "program": "bench.netdef_side:NetdefProgram",
    "weights": "bench.netdef_side:NetdefWeights",
    "operation": "bench.micro:OperationProgram",
    "eager": "bench.torch_side:TorchPeer:eager",
    "channels_last": "bench.torch_side:TorchPeer:channels_last",
    "compile": "bench.torch_side:TorchPeer:compile",
    "cuda_graph": "bench.torch_side:TorchPeer:cuda_graph",
    "sgemm": "bench.ceiling:Sgemm",
    "max_autotune": "bench.torch_side:TorchPeer:max_autotune",
    "copy": "bench.torch_side:Copy",
    "matmul": "bench.torch_side:Matmul",
}


def encode(job: Job) -> str:
    """Returns the job as JSON, for a command line."""
    return json.dumps(asdict(job))


def decode(text: str) -> Job:
    """Reads what `encode` wrote."""
    fields = json.loads(text)
    case = fields.pop("case")
    case |= {name: tuple(case[name]) for name in ("item", "modes")}
    rates = fields.pop("rates")
    layers = fields.pop("layers")
    return Job(
        case=Case(**case),
        rates=Rates(**{**rates, "default": tuple(rates["default"])}) if rates else None,
        layers=tuple(Layer.from_plain(one) for one in layers),
        **fields,
    )


def make_peer(job: Job, data: Mapping[str, Array]) -> Peer:
    """Imports and builds the peer of a job."""
    module, name, *flavour = PEERS.get(job.peer, job.peer).split(":")
    made: Peer = getattr(importlib.import_module(module), name)(job, data, *flavour)
    return made
