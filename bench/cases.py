"""What is measured: nets, batches, synthetic data, work in a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from compiler.graph import Graph
    from schemas.net import LayerSpec, NetSpec
    from schemas.solver import SolverSpec

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Case:
    """A net of nets/ with its batch, the shape of one item and the number of classes."""

    net: str
    batch: int
    item: tuple[int, ...]
    classes: int = 10

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, *self.item)


CASES = {
    case.net: case
    for case in (
        Case("lenet", 64, (1, 28, 28)),
        Case("mlp", 128, (1, 28, 28)),
        Case("cifar10_quick", 100, (3, 32, 32)),
        Case("cifar10_full", 100, (3, 32, 32)),
    )
}


def case_of(net: str, batch: int | None = None) -> Case:
    """Returns the case of a net, with another batch if one is given."""
    case = CASES[net]
    return replace(case, batch=batch) if batch else case


def synthetic(case: Case, seed: int = 7) -> dict[str, Array]:
    """Returns `data` and `label`: one batch, the same for every peer."""
    rng = np.random.default_rng(seed)
    data = rng.uniform(-1.0, 1.0, case.shape).astype(np.float32)
    label = rng.integers(0, case.classes, case.batch).astype(np.float32)
    return {"data": data, "label": label}


def net_spec(case: Case) -> NetSpec:
    """Returns the net with DummyData of the case's shape, and xavier weights.

    CIFAR's own fillers (std 0.0001) make outputs so small that a wrong layer would hardly show in
    the first losses.
    """
    from netdef.formats import read_net

    spec = read_net(ROOT / "nets" / case.net / "net.yaml")
    return replace(spec, layers=tuple(_adapted(one, case) for one in spec.layers))


def _adapted(layer: LayerSpec, case: Case) -> LayerSpec:
    from schemas.net import Name, value_of

    if "weight_filler" in layer.params:
        return replace(layer, params={**layer.params, "weight_filler": value_of("xavier")})
    if layer.type.text != "Data":
        return layer
    shapes = value_of([list(case.shape), [case.batch]])
    return replace(layer, type=Name("DummyData", layer.type.span), params={"shape": shapes})


def solver_spec(case: Case) -> SolverSpec:
    """Returns the net's solver without tests, displays, snapshots and schedule."""
    from netdef.formats import read_solver

    spec = read_solver(ROOT / "nets" / case.net / "solver.yaml")
    return replace(
        spec,
        net=None,
        net_param=net_spec(case),
        lr_policy="fixed",
        test_iters=(),
        test_interval=0,
        display=0,
        average_loss=3,
        snapshot=0,
        snapshot_after_train=False,
        max_iter=10**9,
        random_seed=1,
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """SGD as a solver file sets it: momentum, and rate and decay of each blob of a layer."""

    momentum: float
    default: tuple[float, float]
    layers: Mapping[str, tuple[tuple[float, float], ...]]

    def of(self, layer: str, blob: int) -> tuple[float, float]:
        given = self.layers.get(layer, ())
        return tuple(given[blob]) if blob < len(given) else self.default  # type: ignore[return-value]


def rates(case: Case) -> Rates:
    """Returns the rates of a net's solver, so that a peer need not read netdef's files."""
    spec = solver_spec(case)
    assert spec.net_param is not None
    lr, decay = spec.base_lr, spec.weight_decay
    layers = {
        layer.name.text: tuple((lr * p.lr_mult, decay * p.decay_mult) for p in layer.param)
        for layer in spec.net_param.layers
        if layer.param
    }
    return Rates(spec.momentum, (lr, decay), layers)


def flops(graph: Graph, training: bool) -> float:
    """Returns the floating-point operations of the contractions of one step.

    Two for a multiply-accumulate. Training has three products a layer, less the data gradient of
    layers that read an input. Pooling, normalisation and updates are not counted.
    """
    from compiler.summary import summarize

    total = 0
    for row in summarize(graph).rows:
        first = any(name in graph.inputs for name, _ in row.bottoms)
        total += 2 * row.macs * ((2 if first else 3) if training else 1)
    assert math.isfinite(total)
    return float(total)
