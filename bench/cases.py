"""What is measured: nets, batches, synthetic data, work in a step."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from compiler.ir.graph import Graph
    from schemas.net import LayerSpec, NetSpec
    from schemas.solver import SolverSpec

Array = np.ndarray[Any, Any]
Mode = Literal["train", "infer"]
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Case:
    """A net of nets/ with its batch, the shape of one item and the number of classes.

    Without a shape it is the net as its file is, with that data and those fillers. With `steps` it
    is nets/char_rnn for sequences of so many characters, of which there are `classes`, embedded in
    `embed` numbers, with `depth` layers of LSTM of `hidden` outputs.
    """

    net: str
    batch: int
    item: tuple[int, ...] = ()
    classes: int = 10
    steps: int = 0
    embed: int = 32
    hidden: int = 0
    depth: int = 0
    rate: float | None = None  # of SGD, in place of the solver's
    modes: tuple[Mode, ...] = ("train", "infer")  # that are measured if none is asked for

    @property
    def shape(self) -> tuple[int, ...]:
        return self.label_shape if self.steps else (self.batch, *self.item)

    @property
    def label_shape(self) -> tuple[int, ...]:
        return (self.steps, self.batch) if self.steps else (self.batch,)

    @property
    def folder(self) -> Path:
        """Where its files are, seen from here: a program's key has no checkout's name in it."""
        return Path(os.path.relpath(ROOT / "nets" / ("char_rnn" if self.steps else self.net)))


CASES = {
    case.net: case
    for case in (
        Case("lenet", 64, (1, 28, 28)),
        Case("mlp", 128, (1, 28, 28)),
        Case("cifar10_quick", 100, (3, 32, 32)),
        Case("cifar10_full", 100, (3, 32, 32)),
        Case("alexnet", 16, (3, 227, 227), 1000),
        Case("googlenet", 8, (3, 224, 224), 1000),
        Case("resnet18", 8, (3, 224, 224), 1000, rate=0.1 * 8 / 256),  # the file's is for 256
        Case("resnet50", 4, (3, 224, 224), 1000, rate=0.1 * 4 / 256),
        Case("char_rnn_128", 50, classes=65, steps=50, hidden=128, depth=2, rate=0.1),
        Case("char_rnn_512", 50, classes=65, steps=50, hidden=512, depth=2, rate=0.1),
        Case(
            "lstm_768",
            16,
            classes=65,
            steps=1024,
            embed=768,
            hidden=768,
            depth=1,
            rate=0.1,
            modes=("train",),
        ),
    )
}


# In the batches that one GPU trains on; vgg16 takes too long on a CPU.
GPU_CASES = {
    case.net: case
    for case in (
        CASES["lenet"],
        CASES["mlp"],
        CASES["cifar10_quick"],
        CASES["char_rnn_512"],
        replace(CASES["alexnet"], batch=128),
        replace(CASES["googlenet"], batch=64),
        replace(CASES["resnet18"], batch=256, rate=0.1),
        replace(CASES["resnet50"], batch=128, rate=0.05),
        Case("vgg16", 64, (3, 224, 224), 1000),
    )
}


# The same nets as the reference can evaluate them, whose products are NumPy's in float64.
CHECK_CASES = {
    case.net: case
    for case in (
        replace(GPU_CASES["lenet"], batch=16),
        replace(GPU_CASES["mlp"], batch=16),
        replace(GPU_CASES["cifar10_quick"], batch=16),
        replace(GPU_CASES["char_rnn_512"], batch=4, steps=6),
        replace(GPU_CASES["alexnet"], batch=4, item=(3, 67, 67)),
        replace(GPU_CASES["googlenet"], batch=1),
        replace(GPU_CASES["resnet18"], batch=8, item=(3, 65, 65)),
        replace(GPU_CASES["resnet50"], batch=8, item=(3, 65, 65)),
        replace(GPU_CASES["vgg16"], batch=2, item=(3, 64, 64)),
    )
}


# What is compiled or planned for a GPU that need not be there, in the batches of the nets' files.
STATIC_CASES = GPU_CASES | {
    case.net: case
    for case in (
        CASES["cifar10_full"],
        CASES["char_rnn_128"],
        CASES["lstm_768"],
        Case("nin", 128, (3, 32, 32)),
        Case("caffenet", 256, (3, 227, 227), 1000),
        Case("squeezenet", 32, (3, 227, 227), 1000),
        Case("mobilenet_v1", 64, (3, 224, 224), 1000),
        Case("zfnet", 128, (3, 224, 224), 1000),
        Case("overfeat", 128, (3, 231, 231), 1000),
        Case("fcn32s", 1),
        Case("lenet5", 16),
        Case("autoencoder", 100),
        Case("siamese", 64),
        Case("tdnn_siamese", 64),
        Case("adding_problem", 50),
        Case("copy_memory", 64),
        Case("seq_digits", 64),
    )
}

# Single operations. Batch and shape of what goes in and comes out: a product if it is flat. The
# convolutions are those of ResNet's four stages.
OPERATIONS = {
    one.net: one
    for one in (
        Case("matmul_8192", 8192, (8192,)),
        Case("conv3x3_64", 128, (64, 56, 56)),
        Case("conv3x3_128", 128, (128, 28, 28)),
        Case("conv3x3_256", 128, (256, 14, 14)),
        Case("conv3x3_512", 128, (512, 7, 7)),
    )
}


def case_of(net: str, batch: int | None = None) -> Case:
    """Returns the case of a net, with another batch if one is given."""
    case = CASES[net]
    return replace(case, batch=batch) if batch else case


def synthetic(case: Case, seed: int = 7) -> dict[str, Array]:
    """Returns `data` and `label`: one batch, the same for every peer."""
    rng = np.random.default_rng(seed)
    if case.steps:
        data = rng.integers(0, case.classes, case.shape).astype(np.float32)
    else:
        data = rng.uniform(-1.0, 1.0, case.shape).astype(np.float32)
    label = rng.integers(0, case.classes, case.label_shape).astype(np.float32)
    return {"data": data, "label": label}


def unfit(case: Case, peer: str) -> str | None:
    """Returns why a peer has nothing to show on a case; None if it has."""
    reasons = {
        "channels_last": "there are no images, so there is no order of channels",
        "compile": "torch.compile leaves nn.LSTM as it is",
        "max_autotune": "torch.compile leaves nn.LSTM as it is",
    }
    return reasons.get(peer) if case.steps else None


def net_spec(case: Case) -> NetSpec:
    """Returns the net with DummyData of the case's shape, and xavier weights.

    CIFAR's own fillers (std 0.0001) make outputs so small that a wrong layer would hardly show in
    the first losses.
    """
    from netdef.formats import read_net

    spec = read_net(case.folder / "net.yaml")
    if not case.item and not case.steps:
        return spec
    layers = _shallow(spec.layers) if case.depth == 1 else spec.layers
    return replace(spec, layers=tuple(_adapted(one, case) for one in layers))


def _shallow(layers: tuple[LayerSpec, ...]) -> tuple[LayerSpec, ...]:
    """Returns the layers of nets/char_rnn without its second LSTM; its readers read its bottom."""
    gone = next(one for one in layers if one.name.text == "lstm2")
    (old,), (new,) = gone.tops, gone.bottoms
    return tuple(
        replace(one, bottoms=tuple(new if b.text == old.text else b for b in one.bottoms))
        for one in layers
        if one is not gone
    )


def _adapted(layer: LayerSpec, case: Case) -> LayerSpec:
    from schemas.net import Name, value_of

    if layer.type.text == "Dropout":  # each side would draw others
        return replace(layer, params={"dropout_ratio": value_of(0.0)})
    if "weight_filler" in layer.params:
        changes = {"weight_filler": "xavier", **_sizes(layer.type.text, case)}
        made = {field: value_of(value) for field, value in changes.items()}
        return replace(layer, params={**layer.params, **made})
    if layer.type.text not in ("Data", "TextData"):
        return layer
    shapes = value_of([list(case.shape), list(case.label_shape)])
    return replace(layer, type=Name("DummyData", layer.type.span), params={"shape": shapes})


def _sizes(layer_type: str, case: Case) -> dict[str, int]:
    """Returns the fields of a layer of nets/char_rnn that the case sets."""
    if not case.steps:
        return {}
    return {
        "Embed": {"input_dim": case.classes, "num_output": case.embed},
        "LSTM": {"num_output": case.hidden},
        "InnerProduct": {"num_output": case.classes},
    }.get(layer_type, {})


def solver_spec(case: Case) -> SolverSpec:
    """Returns the net's solver without tests, displays, snapshots and schedule.

    Recurrent nets have SGD in place of Adam, as all others here.
    """
    from netdef.formats import read_solver

    spec = read_solver(case.folder / "solver.yaml")
    if case.steps:
        spec = replace(spec, type="SGD", warmup_iter=0)
    return replace(
        spec,
        net=None,
        net_param=net_spec(case),
        base_lr=spec.base_lr if case.rate is None else case.rate,
        lr_policy="fixed",
        test_iters=(),
        test_interval=0,
        display=0,
        average_loss=3,
        snapshot=0,
        snapshot_after_train=False,
        iter_size=1,
        max_iter=10**9,
        random_seed=1,
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """SGD as a solver file sets it: momentum, and rate and decay of each blob of a layer.

    `clip` is the largest norm of all gradients together; none below 0.
    """

    momentum: float
    default: tuple[float, float]
    layers: Mapping[str, tuple[tuple[float, float], ...]]
    clip: float = -1.0

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
    return Rates(spec.momentum, (lr, decay), layers, spec.clip_gradients)


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
