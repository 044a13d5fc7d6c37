"""The nets of nets/ as plain PyTorch modules, equal to Caffe's."""

# PyTorch is typed in part, and may be absent where mypy runs:
# mypy: disallow-subclassing-any=False, warn-return-any=False
# mypy: disallow-untyped-calls=False, warn-unused-ignores=False

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.cases import Case
from bench.peer import Job
from bench.plain_net import Layer

Operation = Callable[..., Tensor]


def lrn_within(x: Tensor, size: int, alpha: float, beta: float) -> Tensor:
    """Caffe's LRN WITHIN_CHANNEL: alpha over size^2, zeros around, k fixed to 1."""
    # avg_pool2d counts the padding, so that its divisor is size^2 everywhere, as Caffe's.
    mean = functional.avg_pool2d(x * x, size, stride=1, padding=(size - 1) // 2)
    return x * (1 + alpha * mean).pow(-beta)


def operation(layer: Layer) -> Operation:
    """Returns what PyTorch has for a layer; a module if it has parameters."""
    o = layer.fields
    match layer.type:
        case "Convolution":
            size, step, pad = o["kernel_size"], o.get("stride", 1), o.get("pad", 0)
            more = {"groups": o["group"], "bias": o["bias_term"]}
            return nn.Conv2d(layer.shape[1], o["num_output"], size, step, pad, **more)
        case "InnerProduct":
            inputs = math.prod(layer.shape[1:])
            return FlatLinear(inputs, o["num_output"], bias=o["bias_term"])
        case "BatchNorm":
            # Caffe's running mean is over 1 / (1 - fraction) steps as well, but is kept as a sum.
            return nn.BatchNorm2d(layer.shape[1], o["eps"], 1 - o["moving_average_fraction"])
        case "Pooling":
            return pooling(o)
        case "LRN" if o["norm_region"] == "WITHIN_CHANNEL":
            return partial(lrn_within, size=o["local_size"], alpha=o["alpha"], beta=o["beta"])
        case "LRN":
            return nn.LocalResponseNorm(o["local_size"], o["alpha"], o["beta"], o["k"])
        case "ReLU":
            return nn.ReLU(inplace=layer.bottoms == (layer.top,))
        case "Eltwise" if o["operation"] == "SUM":
            return operator.add
        case "Concat":
            return lambda *parts: torch.cat(parts, 1)
        case "SoftmaxWithLoss":
            places = layer.shape[2:]  # of the scores; the label may lie flat
            return lambda x, label: (
                layer.loss_weight * functional.cross_entropy(x, label.view(-1, *places))
            )
        case "Softmax":
            return nn.Softmax(1)
    raise ValueError(f"layer '{layer.name}': nothing stands for {layer.type} in PyTorch here")


def pooling(o: Mapping[str, Any]) -> Operation:
    """Returns a pooling whose sizes round up, as Caffe's do.

    The average's divisor is the window inside of the padded bottom on both sides.
    """
    if o["global_pooling"]:
        return nn.AdaptiveAvgPool2d(1) if o["pool"] == "AVE" else nn.AdaptiveMaxPool2d(1)
    made = {"MAX": nn.MaxPool2d, "AVE": nn.AvgPool2d}[o["pool"]]
    rounds = {"ceil_mode": o["round_mode"] == "CEIL"}
    return made(o["kernel_size"], o.get("stride", 1), o.get("pad", 0), **rounds)


class FlatLinear(nn.Linear):
    """A linear map of all of an item."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, and the blobs that nobody reads after it."""

    apply: Operation
    bottoms: tuple[str, ...]
    top: str
    done: tuple[str, ...]


class Net(nn.Module):
    """A net of images. What no layer reads is its result: the loss, or the probabilities.

    A BatchNorm and the Scale after it are one BatchNorm2d with the Scale's name.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self._renamed: dict[str, str] = {}
        plan: list[tuple[Operation, Layer]] = []
        for layer in layers:
            if layer.type == "Dropout" and layer.fields["dropout_ratio"] == 0:
                assert layer.bottoms == (layer.top,), layer.name
            elif layer.type == "Scale" and plan and plan[-1][1].type == "BatchNorm":
                normalised, before = plan[-1]
                assert layer.bottoms == (layer.top,) == (before.top,), layer.name
                self.add_module(layer.name, normalised)  # type: ignore[arg-type]
                for ours, theirs in (("mean", "running_mean"), ("variance", "running_var")):
                    self._renamed[f"{before.name}/{ours}"] = f"{layer.name}.{theirs}"
            else:
                made = operation(layer)
                plan.append((made, layer))
                if layer.type in ("Convolution", "InnerProduct"):
                    self.add_module(layer.name, made)  # type: ignore[arg-type]
        readers = [layer.bottoms for _, layer in plan]
        self._steps = [
            Step(made, layer.bottoms, layer.top, _done(layer, readers[n + 1 :]))
            for n, (made, layer) in enumerate(plan)
        ]

    def forward(self, data: Tensor, label: Tensor | None = None) -> Tensor:
        blobs = {"data": data} if label is None else {"data": data, "label": label}
        for step in self._steps:
            made = step.apply(*[blobs[name] for name in step.bottoms])
            for name in step.done:
                del blobs[name]
            blobs[step.top] = made
        return reduce(operator.add, blobs.values())

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns netdef's blobs under PyTorch's names, and its counters of steps as they are."""
        mine = self.state_dict()
        counters = {k: v for k, v in mine.items() if k.endswith("_tracked")}
        named = {self._renamed.get(k, ".".join(k.rsplit("/", 1))): v for k, v in state.items()}
        # Left out: layers of training only, and scale_factors, which are 1 in the bench's weights.
        return counters | {k: v for k, v in named.items() if k in mine}


def _done(layer: Layer, later: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(b for b in set(layer.bottoms) if not any(b in bottoms for bottoms in later))


class CharRNN(nn.Module):
    """nets/char_rnn. The hidden states go on from batch to batch, as netdef's do."""

    h: Tensor
    c: Tensor

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.embed = nn.Embedding(case.classes, case.embed)
        self.lstm = nn.LSTM(case.embed, case.hidden, case.depth)
        self.scores = nn.Linear(case.hidden, case.classes)
        for name in ("h", "c"):  # buffers, as they are kept and restored with the weights
            self.register_buffer(name, torch.zeros(case.depth, case.batch, case.hidden))
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_hh"):  # netdef has one bias
                nn.init.zeros_(parameter.requires_grad_(False))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        # The gradient needs the states as they were: it gets copies.
        y, (h, c) = self.lstm(self.embed(x), (self.h.clone(), self.c.clone()))
        self.h.copy_(h.detach())
        self.c.copy_(c.detach())
        scores = self.scores(y.flatten(0, 1))
        return (
            functional.softmax(scores, 1)
            if label is None
            else functional.cross_entropy(scores, label)
        )

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns netdef's blobs under PyTorch's names, the rest of the state as it is."""
        made = self.state_dict()
        for key, blob in state.items():
            layer, name = key.split("/")
            if layer.startswith("lstm"):
                new = {"weight_x": "weight_ih", "weight_h": "weight_hh", "bias": "bias_ih"}[name]
                i, f, o, g = blob.chunk(4)  # PyTorch's gates are i, f, g, o
                key, blob = f"lstm.{new}_l{int(layer[4:]) - 1}", torch.cat([i, f, g, o])
            made[key.replace("/", ".")] = blob
        return made


def module_of(job: Job) -> Net | CharRNN:
    """Returns the net of a job."""
    return CharRNN(job.case) if job.case.steps else Net(job.layers)


def load(module: Net | CharRNN, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Copies netdef's blobs (`conv1/weight`) to the module's parameters; all have to fit."""
    state = {key: torch.from_numpy(w) for key, w in weights.items()}
    with torch.no_grad():
        module.load_state_dict(module.named(state), strict=True)
